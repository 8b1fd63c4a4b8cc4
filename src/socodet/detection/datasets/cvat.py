"""Corrects masks in COCO files that CVAT wrote."""

from collections.abc import Sequence
from typing import Any

from socodet.detection.datasets.masks import mask_box, usable_segmentation
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.values import flag


def correct_cvat_masks(entries: Sequence[Any], problems: AnnotationProblems) -> list[Any]:
    """The entries of `annotations`, in which masks written by CVAT become single objects with the boxes around them.

    For masks drawn with the brush and for ellipses, CVAT writes run lengths and, like its library Datumaro
    (`convert_instance`), sets `iscrowd` to 1. The boxes of older versions lack the last row and column
    (`find_mask_bbox`). CVAT's objects are recognised by their attribute `occluded`.
    """
    return [_as_object(entry, problems) if _is_cvat_mask(entry) else entry for entry in entries]


def _is_cvat_mask(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("segmentation"), dict):
        return False
    attributes = entry.get("attributes")
    return isinstance(attributes, dict) and "occluded" in attributes and flag(entry.get("iscrowd")) is True


def _as_object(entry: dict[str, Any], problems: AnnotationProblems) -> dict[str, Any]:
    problems.add(Problem.MASK_AS_CROWD, f"annotation {entry.get('id')} of image {entry.get('image_id')}")
    written = entry["segmentation"]
    size = written.get("size")
    mask = usable_segmentation(written, *size) if isinstance(size, list) and len(size) == 2 else None
    box = mask_box(mask) if isinstance(mask, dict) else entry.get("bbox")
    return entry | {"iscrowd": 0, "bbox": box}
