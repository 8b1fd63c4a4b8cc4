"""What a run records of an annotated dataset, to tell on resume whether it is still the same."""

import hashlib
from typing import TYPE_CHECKING, Any

from socodet.runtime.serialization import to_json

if TYPE_CHECKING:
    from socodet.detection.datasets.annotations import DetectionDataset


def describe_dataset(data: "DetectionDataset", detector: str) -> dict[str, Any]:
    """What identifies an annotated dataset wherever it is stored, in plain JSON types; `detector` learns from it."""
    return {
        "images": len(data),
        "style": data.style,
        "masks": data.has_masks,
        "pixel_reading": to_json(data.pixel_reading),
        **contents(data, detector),
        "categories": [to_json(category) for category in data.categories],
    }


def contents(data: "DetectionDataset", detector: str) -> dict[str, str]:
    """Digests of what the detector of that name learns from, or is scored on. Earlier versions had only the first."""
    from socodet.detection.detectors.by_name import detector_named

    found = {"sha256": digest(data), "flags_sha256": _digest_of_flags(data)}
    if data.has_masks and detector_named(detector).has_masks:
        found["masks_sha256"] = _digest_of_masks(data)
    return found


def digest(data: "DetectionDataset") -> str:
    """SHA-256 of a dataset's image ids, boxes and labels in order, the same wherever it is stored."""
    digest = hashlib.sha256()
    for image in data.images:
        digest.update(
            f"{image.image_id}\0".encode(errors="surrogatepass") + image.boxes.tobytes() + image.labels.tobytes()
        )
    return digest.hexdigest()


def _digest_of_flags(data: "DetectionDataset") -> str:
    """SHA-256 of which objects are crowd regions or difficult, and of LVIS's lists of labels."""
    digest = hashlib.sha256()
    for image in data.images:
        lists = f"{sorted(image.absent)}{sorted(image.incomplete)}"
        digest.update(image.crowd.tobytes() + image.difficult.tobytes() + lists.encode())
    return digest.hexdigest()


def _digest_of_masks(data: "DetectionDataset") -> str:
    """SHA-256 of the objects' polygons and run lengths."""
    from socodet.detection.datasets.masks import as_rle

    digest = hashlib.sha256()
    for image in data.images:
        for mask in image.masks or ():
            if isinstance(mask, dict):
                counts = as_rle(mask, *mask["size"])["counts"]
                parts = [counts.encode() if isinstance(counts, str) else counts]
            else:
                parts = [polygon.tobytes() for polygon in mask]
            digest.update(f"{[len(part) for part in parts]}".encode() + b"".join(parts))
    return digest.hexdigest()
