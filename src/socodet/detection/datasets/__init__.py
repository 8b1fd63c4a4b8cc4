"""Annotated detection sets: COCO's, LVIS's, Pascal VOC's, YOLO's and Hugging Face's forms, read into one."""
