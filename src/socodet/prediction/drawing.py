"""Detections drawn on their image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from socodet.detection.datasets.masks import decode_rle
from socodet.detection.scores import Detections
from socodet.reports.theme import object_colour

MASK_OPACITY = 0.4


def draw_objects(pixels_hw3: NDArray[np.uint8], found: Detections, names: Sequence[str]) -> Image.Image:
    """An image (H, W, 3) RGB with a box, class name and score for each object, and its mask if it has one.

    names: the class of each detection. A class has one colour. Higher scores are drawn on top.
    """
    colours = [object_colour(int(label) - 1) for label in found.labels]
    if found.masks is not None:
        pixels_hw3 = _with_masks(pixels_hw3, found, colours)
    image = Image.fromarray(np.ascontiguousarray(pixels_hw3))
    pen = ImageDraw.Draw(image)
    scale = max(image.size) / 640
    line, font = max(1, round(2 * scale)), ImageFont.load_default(size=max(10, round(12 * scale)))
    for index in np.argsort(found.scores, kind="stable").tolist():
        x1, y1, x2, y2 = (float(side) for side in found.boxes[index])
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colours[index], width=line)
        text = f"{names[index]} {found.scores[index]:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        height = bottom - top + 2 * line
        at = (x1, y1 - height) if y1 >= height else (x1, y1)  # inside if there is no room above
        pen.rectangle((*at, at[0] + right - left + 2 * line, at[1] + height), fill=colours[index])
        pen.text((at[0] + line - left, at[1] + line - top), text, fill="white", font=font)
    return image


def _with_masks(pixels_hw3: NDArray[np.uint8], found: Detections, colours: Sequence[str]) -> NDArray[np.uint8]:
    blended = pixels_hw3.astype(np.float32)
    for mask, colour in zip(found.masks or (), colours, strict=True):
        inside = decode_rle(mask).astype(bool)
        rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], np.float32)
        blended[inside] = (1 - MASK_OPACITY) * blended[inside] + MASK_OPACITY * rgb
    return blended.round().astype(np.uint8)
