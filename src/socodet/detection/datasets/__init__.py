"""Annotated detection sets: COCO's, Pascal VOC's and LVIS's forms, read into one."""

from socodet.detection.datasets.annotations import Category, DetectionDataset, ImageAnnotations, Style
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.problems import AnnotationProblems, Problem

__all__ = [
    "AnnotationProblems",
    "Category",
    "DetectionDataset",
    "ImageAnnotations",
    "Problem",
    "Style",
    "open_detection_set",
]
