"""Annotated datasets in the formats that docs/data.md shows, all read into one form."""

from typing import TYPE_CHECKING

from socodet.runtime.lazy import lazy_getattr

if TYPE_CHECKING:
    from socodet.detection.datasets.annotations import Category as Category
    from socodet.detection.datasets.annotations import DetectionDataset as DetectionDataset
    from socodet.detection.datasets.annotations import ImageAnnotations as ImageAnnotations
    from socodet.detection.datasets.annotations import Style as Style
    from socodet.detection.datasets.layouts import open_detection_set as open_detection_set
    from socodet.detection.datasets.problems import AnnotationProblems as AnnotationProblems
    from socodet.detection.datasets.problems import Problem as Problem
    from socodet.detection.datasets.reading import ReadingSettings as ReadingSettings

__getattr__ = lazy_getattr(__name__)
