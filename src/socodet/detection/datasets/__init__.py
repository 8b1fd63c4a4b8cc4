"""Annotated datasets in the formats of COCO, LVIS, VOC, YOLO, LabelMe and Hugging Face, all read into one form."""
