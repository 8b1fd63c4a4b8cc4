"""Reads proposals made by other programs: boxes by image name.

- JSON, image stem → [[x, y, w, h], …], as in the method's public code; one file, or a folder of them;
- COCO's result format, [{"image_id", "bbox": [x, y, w, h], "score"?}, …], with the COCO file that names the images; or
  a COCO file with both images and annotations;
- a folder of .npy files, one per image, (N, 4) float32 xyxy: the cache of DETReg (`datasets/selfdet.py`, which names
  each by the image's file name up to its first dot, and converts to xyxy before it saves);
- Parquet: a proposal table, or any with a column `image` and a column `boxes` or `xyxy`, or `xywh`, of lists of 4.

x and y are always the upper left corner, in pixels of the image.
"""

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ijson
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.proposals.settings import BoxForm
from socodet.proposals.table import METADATA_KEY, ProposalTable, check_fits_memory
from socodet.runtime.files import parse_json, read_user_file

FORMS_KNOWN = "give a .json, a .parquet, or a folder of .npy or .json files"
NOT_JSON = "repair it or make it again"


Boxes = dict[str, NDArray[np.float32]]
Sizes = dict[str, tuple[float, float]]


class ForeignProposals(NamedTuple):
    """The content of a file."""

    boxes: Mapping[str, NDArray[np.float32]]
    """By image name: (N, 4) as in the file, best first if they have scores."""
    form: BoxForm
    """The meaning of the four numbers."""
    sizes: Mapping[str, tuple[float, float]]
    """By image name: width and height that the boxes are for, pixels, where the file gives them."""


def read_foreign(
    path: str | Path, *, coco_images: str | Path | None = None, form: BoxForm | None = None
) -> ForeignProposals:
    """Reads proposals in any of the formats above; `form` overrides the format's usual meaning of the four numbers.

    `coco_images` is the COCO file that maps each `image_id` to an image. InputError for a file that is missing, cannot
    be read, or holds no proposals.
    """
    path = Path(path)
    usual: BoxForm
    boxes: Boxes
    sizes: Sizes = {}
    if path.is_dir():
        boxes, usual = _read_folder(path)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder of proposals; {FORMS_KNOWN}")
    elif path.suffix.lower() == ".json":
        boxes, sizes = _read_json(path, coco_images)
        usual = "xywh"
    elif path.suffix.lower() == ".parquet":
        boxes, usual, sizes = _read_parquet(path)
    else:
        raise InputError(f"{path}: is not a known format of proposals; {FORMS_KNOWN}")
    if not boxes:
        raise InputError(f"{path}: holds no proposals; {FORMS_KNOWN}")
    return ForeignProposals(boxes, form or usual, sizes)


def _read_json(path: Path, coco_images: str | Path | None) -> tuple[Boxes, Sizes]:
    data = _content(path)
    if data.lstrip()[:1] == b"[":
        entries = parse_json(path, data, NOT_JSON)
        names, sizes = _coco_images(path, coco_images)
        return _from_coco(path, entries, names), sizes
    if b'"annotations"' in data:
        content = parse_json(path, data, NOT_JSON)
        if "annotations" in content:
            names, sizes = _coco_images(path, coco_images or path)
            return _from_coco(path, content["annotations"], names), sizes
    return _from_names(path, data), {}


def _content(path: Path) -> bytes:
    return read_user_file(path).removeprefix(codecs.BOM_UTF8)


def _read_folder(path: Path) -> tuple[Boxes, BoxForm]:
    arrays, texts = (  # no pipes, which would block, and none of macOS's ._NAME
        sorted(file for file in path.rglob(f"*.{ending}") if file.is_file() and not file.name.startswith("."))
        for ending in ("npy", "json")
    )
    if not arrays and not texts:
        raise InputError(f"{path}: no .npy or .json file in it; {FORMS_KNOWN}")
    if arrays and texts:
        raise InputError(f"{path}: holds .npy and .json files, {arrays[0].name} and {texts[0].name}; keep one format")
    if arrays:
        return {file.relative_to(path).with_suffix("").as_posix(): _read_array(file) for file in arrays}, "xyxy"
    boxes: Boxes = {}
    for file in texts:
        for name, found in _from_names(file, _content(file)).items():
            if name in boxes:
                raise InputError(
                    f"{file}: has boxes of {name}, and so has another file of the folder; keep one of them"
                )
            boxes[name] = found
    return boxes, "xywh"


def _read_array(file: Path) -> NDArray[np.float32]:
    try:
        content = np.load(file, mmap_mode="r", allow_pickle=False)  # mapped: its size is compared with the file's
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: is not an array of numbers ({error}); save (N, 4) numbers by numpy.save") from None
    return np.array(_as_boxes(content, str(file)))  # copied, as a mapped file stays open


def _as_boxes(value: Any, where: str) -> NDArray[np.float32]:
    """(N, 4) float32. InputError that says where."""
    boxes: NDArray[np.float32] | None
    try:
        boxes = np.asarray(value, np.float32)
    except (ValueError, TypeError):
        boxes = None
    if boxes is not None and boxes.size == 0:
        return np.empty((0, 4), np.float32)
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{where}: is not a list of boxes; give four numbers for each box")
    if not np.isfinite(boxes).all():
        raise InputError(f"{where}: a box has a number that is not finite; leave it out")
    return boxes


def _from_names(path: Path, data: bytes) -> Boxes:
    if data.lstrip()[:1] != b"{":
        raise InputError(f"{path}: is not a JSON object of image names; give {{stem: [[x, y, w, h], ...], ...}}")
    try:
        # One image at a time: the boxes of a million images would take 10 GB as Python lists.
        boxes: Boxes = {}
        for name, found in ijson.kvitems(data, "", use_float=True):
            if name in boxes:
                raise InputError(f"{path}: has boxes of {name} twice; keep one of them")
            boxes[name] = _as_boxes(found, f"{path}: {name}")
        return boxes
    except ijson.JSONError as error:
        what = " ".join(line.strip() for line in str(error).splitlines()[:2])  # the error, and the text around it
        raise InputError(f"{path}: is not valid JSON ({what}); {NOT_JSON}") from None


def _coco_images(path: Path, coco_images: str | Path | None) -> tuple[dict[Any, str], Sizes]:
    """The file name of each image_id, from a COCO file, and the sizes by file name."""
    if coco_images is None:
        raise InputError(f"{path}: names images by image_id only; give the COCO file of the images, --coco-images")
    file = Path(coco_images)
    if not file.is_file():
        raise InputError(f"{file}: no such COCO file; give the one whose images the proposals are of")
    content = parse_json(file, _content(file), NOT_JSON)
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        if len(names) < len(content["images"]):
            raise InputError(f"{file}: two of its images have the same id; give each its own")
        sides = [(names[image["id"]], image.get("width"), image.get("height")) for image in content["images"]]
        return names, {name: (width, height) for name, width, height in sides if _sized(width) and _sized(height)}
    except (KeyError, TypeError):
        raise InputError(
            f"{file}: is not a COCO file; one has a list `images`, with `id` and `file_name` for each image"
        ) from None


def _sized(side: Any) -> bool:
    return isinstance(side, int | float) and side > 0


def _from_coco(path: Path, entries: Any, names: dict[Any, str]) -> Boxes:
    found: dict[str, list[tuple[float, Any]]] = {}
    number = 0
    try:
        for number, entry in enumerate(entries):  # noqa: B007 (for the message)
            image = entry["image_id"]
            name = names.get(image, f"image_id {image}")
            found.setdefault(name, []).append((-float(entry.get("score", 0)), entry["bbox"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path}: entry {number} is not a proposal; each needs image_id and bbox [x, y, w, h], and may have a score"
        ) from None
    best_first = {name: sorted(pairs, key=lambda pair: pair[0]) for name, pairs in found.items()}
    return {
        name: _as_boxes([bbox for _, bbox in pairs], f"{path}: boxes of {name}") for name, pairs in best_first.items()
    }


def _read_parquet(path: Path) -> tuple[Boxes, BoxForm, Sizes]:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is not a Parquet file ({error}); make it again") from None
    if METADATA_KEY in (schema.metadata or {}):
        table = ProposalTable.read(path)
        sizes: Sizes = {key: size for key in table.keys if all(size := table.size(key))}  # 0: it was unreadable
        return {key: table.boxes(key) for key in table.keys}, "xyxy", sizes
    column = next((name for name in ("boxes", "xyxy", "xywh") if name in schema.names), None)
    if "image" not in schema.names or column is None:
        raise InputError(
            f"{path}: has the columns {', '.join(schema.names)}; it needs `image`, and `boxes`, `xyxy` or `xywh`"
        )
    check_fits_memory(path)
    boxes: Boxes = {}
    for image, value in _rows(path, column):
        if not isinstance(image, str):
            raise InputError(f"{path}: an image is named {image!r}; the column `image` must hold strings")
        if image in boxes:
            raise InputError(f"{path}: has two rows of {image}; put all its boxes in one")
        boxes[image] = _as_boxes([] if value is None else value, f"{path}: {image}")
    return boxes, "xywh" if column == "xywh" else "xyxy", {}


def _rows(path: Path, column: str) -> Iterator[tuple[Any, Any]]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(4096, columns=["image", column]):
            yield from zip(batch.column("image").to_pylist(), batch.column(column).to_pylist(), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: is damaged ({error}); make it again") from None
