"""Detections drawn on their image."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from socodet.detection.datasets.masks import decode_rle
from socodet.detection.scores import Detections
from socodet.reports.fonts import font_for
from socodet.reports.theme import HALO, object_colour
from socodet.runtime.notices import printable

MASK_OPACITY = 0.4
LONGEST_SIDE = 65_500
"""In pixels; a JPEG cannot have longer sides."""
Rectangle = tuple[float, float, float, float]
"""xyxy in pixels."""


def draw_objects(pixels_hw3: NDArray[np.uint8], found: Detections, names: Sequence[str]) -> Image.Image:
    """Draws a box, class name and score for each object, and its mask if it has one, on an image (H, W, 3) RGB.

    names: the class of each detection. Each class has one colour. Boxes with higher scores are drawn on top, and their
    labels are placed first. The image is scaled down if a side is longer than `LONGEST_SIDE`.
    """
    colours = [object_colour(int(label) - 1) for label in found.labels]
    if found.masks is not None:
        pixels_hw3 = _with_masks(pixels_hw3, found, colours)
    image = Image.fromarray(np.ascontiguousarray(pixels_hw3))
    pen = ImageDraw.Draw(image)
    scale = min(max(image.size) / 640, min(image.size) / 160)  # letters must not cover a narrow strip
    shown = [printable(name) for name in names]
    line = max(1, round(2 * scale))
    font = ImageFont.truetype(font_for("0.123456789".join(["", *shown])), max(10, round(12 * scale)))
    order = np.argsort(found.scores, kind="stable").tolist()
    for index in order:
        x1, y1, x2, y2 = (float(side) for side in found.boxes[index])
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colours[index], width=line)
    taken: list[Rectangle] = []
    for index in reversed(order):
        text = f"{shown[index]} {found.scores[index]:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        size = right - left + 2 * line, bottom - top + 2 * line
        x1, y1 = (float(side) for side in found.boxes[index, :2])
        place = free_place((x1, y1), size, image.size, taken)
        taken.append(place)
        pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colours[index])
        pen.text((place[0] + line - left, place[1] + line - top), text, fill=HALO, font=font)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image


def free_place(
    corner: tuple[float, float], size: tuple[float, float], image: tuple[int, int], taken: Iterable[Rectangle]
) -> Rectangle:
    """Where a label of this size goes: above its box's corner, or at the first free place further down.

    It stays within the image (width, height); if nothing below is free, it goes at the corner.
    """
    (x, y), (width, height) = corner, size
    x, first = max(0.0, min(x, image[0] - width)), max(0.0, y - height)
    beside = [(top, bottom) for left, top, right, bottom in taken if left < x + width and x < right]
    tops = [first, *sorted(bottom for _, bottom in beside if bottom > first)]
    free = (t for t in tops if t + height <= image[1] and all(b <= t or t + height <= a for a, b in beside))
    top = next(free, first)
    return x, top, x + width, top + height


def _with_masks(pixels_hw3: NDArray[np.uint8], found: Detections, colours: Sequence[str]) -> NDArray[np.uint8]:
    blended = pixels_hw3.astype(np.float32)
    for mask, colour in zip(found.masks or (), colours, strict=True):
        inside = decode_rle(mask).astype(bool)
        rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], np.float32)
        blended[inside] = (1 - MASK_OPACITY) * blended[inside] + MASK_OPACITY * rgb
    return blended.round().astype(np.uint8)
