"""Annotated detection sets: COCO's, LVIS's, Pascal VOC's, YOLO's and Hugging Face's forms, read into one."""

from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations, Style
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.reading import ReadingSettings

__all__ = [
    "AnnotationProblems",
    "Category",
    "DetectionDataset",
    "ImageAnnotations",
    "Problem",
    "ReadingSettings",
    "Style",
    "open_detection_set",
]
