"""Segmentations in COCO's forms: polygons, and run lengths over the columns."""

from collections.abc import Sequence
from typing import Any

import faster_coco_eval.core.mask as coco_masks
import numpy as np
from matplotlib.path import Path
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

from socodet.detection.datasets.values import number, pixel_count

RLE = dict[str, Any]
"""{"size": [height, width], "counts": run lengths, a list or COCO's compressed string}; columns first, zeros first."""
Polygons = list[NDArray[np.float64]]
"""Each (2·P,) x, y, x, y, … in pixels; an object may have several parts. They need double precision: COCO draws on a
grid of fifths of a pixel, and coordinates with one decimal lie exactly on its lines."""
Segmentation = RLE | Polygons
LONGEST = 7
"""Maximum number of characters of a run in a compressed string, with five bits each; no image needs more."""
EMPTY: tuple[Any, ...] = (None, "", [], [[]], {})
"""Values that tools write for an object without an outline."""


def usable_segmentation(value: Any, height: int, width: int) -> Segmentation | None:
    """A segmentation from a COCO file, with polygons as arrays; None if it is not valid for an image of this size.

    Polygons are lists of x, y, x, y, …; a single list of numbers and points [x, y] are accepted as well. Parts with
    fewer than three points or with a non-finite number are left out.
    """
    if isinstance(value, dict):
        return _usable_rle(value, height, width)
    polygons: Polygons = []
    for part in outline_parts(value):
        try:
            polygon = np.asarray(part, np.float64)
        except (ValueError, TypeError, OverflowError):
            continue
        if polygon.ndim == 2 and polygon.shape[1] == 2:
            polygon = polygon.reshape(-1)
        if polygon.ndim == 1 and len(polygon) >= 6 and len(polygon) % 2 == 0 and _all_finite(polygon):
            polygons.append(polygon)
    return polygons or None


def _all_finite(numbers: NDArray[np.float64]) -> bool:
    return int(np.count_nonzero(np.isfinite(numbers))) == len(numbers)


def outline_parts(value: Any) -> list[Any]:
    """The parts of an outline as written, usable or not."""
    if not isinstance(value, list):
        return []
    lengths = {len(part) if isinstance(part, list) else None for part in value}
    numbers, points = lengths <= {None}, lengths <= {2}
    return [value] if numbers or points else value


def misses_box(segmentation: Segmentation, near: Sequence[float]) -> bool:
    """Whether a mask is empty, or polygons lie outside `near`, the xyxy box of their object and a pixel around it."""
    if isinstance(segmentation, dict):
        return mask_area(as_rle(segmentation, *segmentation["size"])) == 0
    x1, y1, x2, y2 = near
    x, y = segmentation[0][:2].tolist()
    if x1 <= x <= x2 and y1 <= y <= y2:  # the first point alone settles it for nearly every object
        return False
    points = np.concatenate(segmentation).reshape(-1, 2)
    return bool((points.max(0) < (x1, y1)).any() or (points.min(0) > (x2, y2)).any())


def box_outline(box: Sequence[float] | NDArray[np.float32]) -> Polygons:
    """The outline of an xyxy box."""
    x1, y1, x2, y2 = (float(side) for side in box)
    return [np.array([x1, y1, x2, y1, x2, y2, x1, y2], np.float64)]


def as_rle(segmentation: Segmentation, height: int, width: int) -> RLE:
    """Compressed run lengths of a segmentation, with its parts joined."""
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            rle: RLE = coco_masks.frPyObjects(segmentation, height, width)
            return rle
        return segmentation
    near = [part for polygon in segmentation for part in _near_image(polygon, height, width)]
    if not near:
        return encode_masks(np.zeros((1, height, width), np.uint8))[0]
    parts = coco_masks.frPyObjects([polygon.tolist() for polygon in near], height, width)
    joined: RLE = coco_masks.merge(parts)
    return joined


def _near_image(polygon: NDArray[np.float64], height: int, width: int) -> Polygons:
    """Cuts a polygon one side beyond the image, because COCO's code uses memory in proportion to its edges' length."""
    points, margin = polygon.reshape(-1, 2), max(height, width)
    lowest, highest = np.array([-margin, -margin]), np.array([width + margin, height + margin])
    if (points >= lowest).all() and (points <= highest).all():
        return [polygon]
    outline = Path(np.concatenate([points, points[:1]]), closed=True)
    clipped = map(np.asarray, outline.clip_to_bbox(Bbox([lowest, highest])).to_polygons())
    return [part.reshape(-1) for part in clipped if len(part) > 2]


def decode_mask(segmentation: Segmentation, size: tuple[int, int], scaled: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) of 0 and 1: the segmentation of an image of `size`, (height, width), at the size `scaled`.

    Polygons are scaled before they are drawn; run lengths are scaled after decoding, to the nearest pixel. An object
    too small to cover a pixel gets the pixel at its centre: from an empty mask, a detector would learn that nothing is
    there.
    """
    ratio = np.array([scaled[1] / size[1], scaled[0] / size[0]])
    if isinstance(segmentation, list):
        polygons = [(polygon.reshape(-1, 2) * ratio).reshape(-1) for polygon in segmentation]
        drawn = decode_rle(as_rle(polygons, *scaled))
        return drawn if drawn.any() else _one_pixel(np.concatenate(polygons).reshape(-1, 2), scaled)
    mask = decode_rle(as_rle(segmentation, *size))
    if scaled == size:
        return mask
    resized = np.asarray(Image.fromarray(mask).resize((scaled[1], scaled[0]), Image.Resampling.NEAREST))
    if resized.any() or not mask.any():
        return resized
    y, x = np.nonzero(mask)
    return _one_pixel((np.stack([x, y], 1) + 0.5) * ratio, scaled)


def _one_pixel(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W), empty except for the pixel at the centre of the bounds of (P, 2) points, if it is within the image."""
    mask = np.zeros(size, np.uint8)
    x, y = np.floor((points.min(0) + points.max(0)) / 2).astype(int)
    if 0 <= y < size[0] and 0 <= x < size[1]:
        mask[y, x] = 1
    return mask


def decode_rle(rle: RLE) -> NDArray[np.uint8]:
    """(H, W) of 0 and 1."""
    return np.ascontiguousarray(coco_masks.decode(rle), np.uint8)


def mask_area(rle: RLE) -> int:
    """The number of pixels in the mask."""
    return int(coco_masks.area(rle))


def mask_box(rle: RLE) -> list[float]:
    """The box around the mask's pixels: x, y, width, height; 0, 0, 0, 0 if it is empty."""
    box: list[float] = coco_masks.toBbox(as_rle(rle, *rle["size"])).tolist()
    return box


def encode_masks(masks: NDArray[np.uint8] | NDArray[np.bool_]) -> list[RLE]:
    """Compressed run lengths of (N, H, W) masks of 0 and 1, with the counts as text, so that JSON can hold them."""
    encoded = coco_masks.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0)))
    return [{"size": [int(side) for side in rle["size"]], "counts": _text(rle["counts"])} for rle in encoded]


def placed_mask(patch: NDArray[np.bool_], corner: Sequence[int], height: int, width: int) -> RLE:
    """Compressed run lengths of an (H, W) mask whose upper left pixel is at `corner` (x, y) of an image.

    Parts outside the image are cut off. Memory use depends on the patch, not on the image.
    """
    x, y = corner
    patch = patch[max(0, -y) : max(0, height - y), max(0, -x) : max(0, width - x)]
    steps = np.diff(np.pad(patch.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (column, start), end = np.nonzero(steps == 1), np.nonzero(steps == -1)[1]
    before = (max(0, x) + column) * height + max(0, y)
    starts, ends = before + start, before + end
    apart = starts[1:] != ends[:-1]  # a run that continues at the top of the next column is a single run
    edges = np.stack([starts[np.r_[True, apart][: len(starts)]], ends[np.r_[apart, True][: len(ends)]]], 1)
    counts = np.diff(edges.reshape(-1), prepend=0, append=height * width).tolist()
    return _as_text(coco_masks.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def joined_masks(masks: Sequence[RLE]) -> RLE:
    """The union of these masks."""
    return _as_text(coco_masks.merge(list(masks)))


def _as_text(rle: RLE) -> RLE:
    return rle | {"counts": _text(rle["counts"])}


def _text(counts: bytes | str) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts


def _usable_rle(value: RLE, height: int, width: int) -> RLE | None:
    """Run lengths with whole numbers (which may be written as 80.0); None unless size and counts match the image."""
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or [pixel_count(side) for side in size] != [height, width]:
        return None
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts} if _total(counts) == height * width else None
    runs = [number(run) for run in counts] if isinstance(counts, list) else []
    if not all(run >= 0 and run.is_integer() for run in runs) or sum(runs) != height * width:
        return None
    return {"size": [height, width], "counts": [int(run) for run in runs]}


def _total(counts: str) -> int | None:
    """The number of pixels that a compressed string covers; None for an invalid string.

    The encoding (cocoapi, `rleToString`): five bits per character from the lowest, 32 marks that more follow, 16 in the
    last is the sign; from the fourth run on, each is the difference from the run two before it.
    """
    try:
        bits = np.frombuffer(counts.encode("latin-1"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return None
    ends = np.flatnonzero(bits & 32 == 0)
    if not len(bits):
        return 0
    if bits.min() < 0 or bits.max() > 63 or not len(ends) or ends[-1] != len(bits) - 1:
        return None
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > LONGEST:
        return None
    shifts = 5 * (np.arange(len(bits)) - np.repeat(ends - lengths + 1, lengths))
    runs = np.add.reduceat((bits & 31) << shifts, ends - lengths + 1) - ((bits[ends] & 16) >> 4 << 5 * lengths)
    for first in (1, 2):  # from the fourth run on, each is written as the difference from the run two before it
        runs[first::2] = runs[first::2].cumsum()
    return int(runs.astype(np.float64).sum()) if (runs >= 0).all() else None
