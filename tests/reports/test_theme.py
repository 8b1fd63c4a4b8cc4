"""Colours are distinguishable with any kind of colour vision, and readable on their background."""

import itertools

import numpy as np
import pytest
from PIL import ImageColor

from socodet.reports.theme import DARK, HALO, LIGHT, OBJECT_COLOURS

VISION = {
    "usual": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""How linear RGB is perceived with each deficiency, from Machado, Oliveira and Fernandes (2009)."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
APART = 14.0
"""Least distance in CIELAB; 2.3 is just noticeable side by side."""


def linear(colour: str) -> np.ndarray:
    value = np.array(ImageColor.getrgb(colour)) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt((TO_XYZ @ rgb / [0.9505, 1.0, 1.089]).clip(0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """Contrast as defined by WCAG, 1 to 21."""
    dark, bright = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [LIGHT.series, DARK.series, OBJECT_COLOURS], ids=["light", "dark", "objects"])
def test_colours_are_distinguishable(colours: tuple[str, ...], vision: str) -> None:
    seen = [lab((np.array(VISION[vision]) @ linear(colour)).clip(0, 1)) for colour in colours]
    distances = {
        pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(range(len(seen)), 2)
    }
    assert min(distances.values()) > APART, min(distances, key=lambda pair: distances[pair])


def test_lines_and_label_text_have_enough_contrast() -> None:
    assert min(contrast(colour, "#ffffff") for colour in LIGHT.series) >= 2.9
    assert min(contrast(colour, "#181c21") for colour in DARK.series) >= 4.5
    assert min(contrast(colour, HALO) for colour in OBJECT_COLOURS) >= 4.5
