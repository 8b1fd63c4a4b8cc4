"""`socodet convert`: an annotated dataset of any known format as a COCO file, or a report of what it holds."""

import io
import json
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from socodet._version import __version__
from socodet.detection.datasets.annotations import DetectionDataset, ImageAnnotations
from socodet.detection.datasets.classes import describe_objects
from socodet.detection.datasets.folder_listing import reuse_folder_listings
from socodet.detection.datasets.layouts import layout_at, open_detection_set
from socodet.detection.datasets.masks import Segmentation
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.datasets.shared_images import note_on_shared
from socodet.errors import InputError
from socodet.images.opening import without_pillow_limit
from socodet.images.reach import points_outside
from socodet.runtime.files import check_output_file, resolve_path, write_atomically
from socodet.runtime.notices import notice
from socodet.runtime.shown import Shown, ShownTable

ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
"""File suffixes for Pillow's format names, where the two differ; phones write JPEGs in the format MPO."""


@dataclass(frozen=True)
class Conversion(Shown):
    """The dataset that was read, and the file that was written, if any."""

    layout: str
    parts: Mapping[str, DetectionDataset]
    """The datasets by split; their `problems` say what was left out and why."""
    file: Path | None

    def as_json(self) -> dict[str, Any]:
        """The layout, the file, and each split's images, objects, classes and problems."""
        parts = {
            name: {
                "images": len(data),
                "objects": sum(map(len, data.images)),
                "classes": [category.name for category in data.categories],
                "problems": data.problems.as_json(),
            }
            for name, data in self.parts.items()
        }
        return {"layout": self.layout, "file": self.file, "parts": parts}

    def lines(self) -> list[str]:
        """For each split, what it contains, and a line for each problem."""
        lines = []
        for split, data in self.parts.items():
            objects = sum(map(len, data.images))
            unusable = sum(image.unusable for image in data.images)
            empty = sum(not len(image) for image in data.images) - unusable
            classes = len({label for image in data.images for label in image.labels.tolist()})
            lines.append(
                f"{split}: {len(data):,} images, {objects:,} objects, {classes} of {len(data.categories)} classes, "
                f"{'boxes and outlines' if data.has_masks else 'boxes'}; {empty:,} images without an object"
            )
            if unusable:
                lines[-1] += f"; {unusable:,} with annotations of which none can be used, left out of training"
                lines[-1] += "" if self.file is None else " and of the file"
            lines.append(f"  objects: {describe_objects(data)}")
            lines += [f"  {line}" for line in data.problems.lines()]
        return lines

    def shown(self) -> list[ShownTable]:
        """For each split, what it contains and how many annotations were left out or corrected."""
        header = ("split", "images", "objects", "classes", "problems")
        rows = [
            (
                *(name, f"{len(data):,}", f"{sum(map(len, data.images)):,}", f"{len(data.categories):,}"),
                "; ".join(data.problems.lines()) or "none",
            )
            for name, data in self.parts.items()
        ]
        return [ShownTable(rows, header, "" if self.file is None else f"{self.file}: written")]

    def __str__(self) -> str:
        return "\n".join([self.layout, *self.lines(), *([f"{self.file}: written"] if self.file else [])])


@reuse_folder_listings()
def convert(
    data: str | Path,
    output: str | Path | None = None,
    *,
    split: str | None = None,
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    save_images: str | Path | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Reads an annotated dataset as `finetune` does, and writes it as a COCO file; without `output` it only reads.

    `data`, `split`, `images` and `reading` are as in `open_detection_set`. Without `split` all splits are read; to
    write a file, there must be only one. Images that cannot be read, or whose size differs from the annotations, are
    left out. Each `file_name` is relative to the folder of `output`. `save_images` is a new folder for images that are
    not stored as files, as in a Hugging Face dataset. VOC's `difficult` and LVIS's fields are kept, so that reading the
    file gives the same dataset. InputError for a dataset that cannot be used, and for an existing output unless
    `overwrite`.
    """
    file = None if output is None else check_output_file(output, overwrite=overwrite)
    reading = reading or ReadingSettings()
    layout = layout_at(Path(data), images=None if images is None else Path(images), reading=reading, split=split)
    splits = (split,) if split else ("train", "val") if reading.val_share else layout.splits
    for absence in () if split else layout.absent:
        notice(absence)
    if file is not None and len(splits) > 1:
        raise InputError(f"{data}: has the splits {', '.join(splits)}; choose one with --split")
    read = {
        split: open_detection_set(data, split=split, images=images, reading=reading, check_images=True)
        for split in splits
    }
    for name, dataset in read.items():
        if not len(dataset):
            what = f"{data}, {name}" if len(read) > 1 else f"{data}"
            raise InputError(f"{what}: none of its images can be used: {'; '.join(dataset.problems.lines())}")
    for name, dataset in read.items():
        shared = note_on_shared(read["train"], dataset) if "train" in read and name != "train" else None
        if shared is not None:
            notice(shared)
    if file is not None:
        (dataset,) = read.values()
        dataset = dataset.without_unusable()  # without annotations they would be images without an object
        if not len(dataset):
            raise InputError(f"{data}: none of its images can be used: {'; '.join(dataset.problems.lines())}")
        names = _saved(dataset, save_images) if any(image.stored for image in dataset.images) else None
        content = as_coco(dataset, file, names)
        far = [one["file_name"] for one in content["images"] if points_outside(one["file_name"], file, file.parent)]
        if far:
            notice(
                f"{file}: {len(far):,} of its images are far from it (first: {far[0]}); read it with --outside-images"
            )
        write_atomically(file, json.dumps(content).encode() + b"\n")
    return Conversion(layout.name, read, file)


def as_coco(data: DetectionDataset, file: Path, paths: list[Path] | None = None) -> dict[str, Any]:
    """A dataset as the content of a COCO file, to be written to `file`; `paths`: of the images, if not their own.

    Image ids are kept if all of them are numbers, category ids always; problems are listed in `info`.
    """
    paths = paths or [image.file for image in data.images]
    ids = [image.image_id for image in data.images]
    if not all(isinstance(one, int) for one in ids):
        ids = list(range(1, len(ids) + 1))
    here = file.absolute().parent.resolve()
    id_of = {label: category.id for label, category in enumerate(data.categories, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image, path in zip(ids, data.images, paths, strict=True):
        name = Path(os.path.relpath(path.parent.resolve() / path.name, here)).as_posix()
        entry: dict[str, Any] = {"id": image_id, "file_name": name, "width": image.width, "height": image.height}
        if data.style == "lvis":
            entry["neg_category_ids"] = sorted(id_of[label] for label in image.absent)
            entry["not_exhaustive_category_ids"] = sorted(id_of[label] for label in image.incomplete)
        images.append(entry)
        for place in range(len(image)):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id} | _object(image, place, id_of, data.style)
            )
    return {
        "info": {
            "description": f"{data.name}, converted by socodet {__version__}",
            "problems": data.problems.as_json(),
        },
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": category.id, "name": category.name}
            | ({"frequency": category.frequency} if category.frequency else {})
            for category in data.categories
        ],
    }


def _object(image: ImageAnnotations, place: int, id_of: Mapping[int, int], style: str) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, image.boxes[place])
    found: dict[str, Any] = {
        "category_id": id_of[int(image.labels[place])],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": float(image.areas[place]),
        "iscrowd": int(image.crowd[place]),
    }
    if image.masks is not None:
        found["segmentation"] = _plain(image.masks[place])
    if style == "voc":
        found["difficult"] = int(image.difficult[place])
    return found


def _plain(mask: Segmentation) -> Any:
    return [polygon.tolist() for polygon in mask] if isinstance(mask, list) else mask


def _saved(data: DetectionDataset, folder: str | Path | None) -> list[Path]:
    """Writes images that are not stored as files into a new folder."""
    if folder is None:
        raise InputError(f"{data.name}: its images are not stored as files; give a folder for them with --save-images")
    place = resolve_path(folder)
    names = {image.file.name for image in data.images}
    if place.exists() and not (place.is_dir() and all(_may_be_leftover(path, names) for path in place.iterdir())):
        raise InputError(f"{place}: exists and is not an empty folder; give another one for --save-images")
    place.mkdir(parents=True, exist_ok=True)
    paths = []
    for image in data.images:
        encoded = image.read()
        with without_pillow_limit(), Image.open(io.BytesIO(encoded)) as opened:
            ending = ENDINGS.get(opened.format or "", (opened.format or "png").lower())
        paths.append(place.absolute() / f"{image.file.name}.{ending}")
        if paths[-1].exists() and paths[-1].read_bytes() != encoded:
            raise InputError(f"{paths[-1]}: exists and is another image; give another folder for --save-images")
        write_atomically(paths[-1], encoded)
    return paths


def _may_be_leftover(path: Path, names: Set[str]) -> bool:
    """Whether a killed call may have left this file: it is named like one of the images, or like an unfinished file."""
    return path.stem in names or (path.name.startswith(".") and path.suffix == ".partial")
