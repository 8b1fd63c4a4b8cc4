"""The colour spaces of selective search (Uijlings et al. 2013, section 3.2), each channel 0..255."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from socodet.runtime.kernel_cache import njit

ColorSpace = Literal["hsv", "lab", "rgi", "hue", "intensity"]

# Lab needs a power and a cube root for every value; tables are much faster, and exact to 0.01 of 255.
_LINEAR_STEPS = 1020
_CUBE_STEPS = 4096
_srgb = np.arange(_LINEAR_STEPS + 2) / _LINEAR_STEPS
_LINEAR = np.where(_srgb <= 0.04045, _srgb / 12.92, ((_srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)
_ratio = np.arange(_CUBE_STEPS + 2) / _CUBE_STEPS
_CUBE_ROOT = np.where(_ratio > (6 / 29) ** 3, np.cbrt(_ratio), _ratio / (3 * (6 / 29) ** 2) + 4 / 29).astype(np.float32)
# sRGB primaries to CIE XYZ, each row divided by the white point D65.
_XYZ = (
    np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    / np.array([[0.9505], [1.0], [1.089]])
).astype(np.float32)


def convert(rgb: NDArray[np.float32], space: ColorSpace) -> NDArray[np.float32]:
    """Planes (3, h, w) of RGB 0..255 in another space: (C, h, w) float32, 0..255.

    hsv: hue, saturation, value. lab: CIE L*a*b*, L scaled to 0..255, a and b shifted by 128. rgi: the red and green
    shares of the colour, and the intensity. hue: the hue alone. intensity: the mean of the three.
    """
    planes: NDArray[np.float32]
    match space:
        case "hsv":
            planes = _hsv(rgb)
        case "lab":
            planes = _lab(rgb, _LINEAR, _CUBE_ROOT, _XYZ)
        case "rgi":
            planes = _rgi(rgb)
        case "hue":
            planes = np.ascontiguousarray(_hsv(rgb)[:1])
        case "intensity":
            planes = np.ascontiguousarray(_rgi(rgb)[2:])
    return planes


@njit(nogil=True, cache=True)
def _hsv(rgb):  # type: ignore[no-untyped-def]
    _, height, width = rgb.shape
    out = np.empty_like(rgb)
    sixth = np.float32(255 / 6)
    for y in range(height):
        for x in range(width):
            r, g, b = rgb[0, y, x], rgb[1, y, x], rgb[2, y, x]
            value = max(r, g, b)
            chroma = value - min(r, g, b)
            hue = np.float32(0)
            saturation = np.float32(0)
            if chroma > 0:
                saturation = np.float32(255) * chroma / value
                if value == r:
                    hue = (g - b) / chroma
                    if hue < 0:
                        hue += np.float32(6)
                elif value == g:
                    hue = (b - r) / chroma + np.float32(2)
                else:
                    hue = (r - g) / chroma + np.float32(4)
            out[0, y, x] = hue * sixth
            out[1, y, x] = saturation
            out[2, y, x] = value
    return out


@njit(nogil=True, cache=True)
def _look_up(table, position):  # type: ignore[no-untyped-def]
    cell = int(position)
    return table[cell] + (position - cell) * (table[cell + 1] - table[cell])


@njit(nogil=True, cache=True)
def _lab(rgb, linear, cube_root, xyz):  # type: ignore[no-untyped-def]
    _, height, width = rgb.shape
    out = np.empty_like(rgb)
    to_linear = np.float32((linear.size - 2) / 255)
    to_root = np.float32(cube_root.size - 2)
    for y in range(height):
        for x in range(width):
            r = _look_up(linear, min(rgb[0, y, x], np.float32(255)) * to_linear)
            g = _look_up(linear, min(rgb[1, y, x], np.float32(255)) * to_linear)
            b = _look_up(linear, min(rgb[2, y, x], np.float32(255)) * to_linear)
            fx = _look_up(cube_root, min(xyz[0, 0] * r + xyz[0, 1] * g + xyz[0, 2] * b, np.float32(1)) * to_root)
            fy = _look_up(cube_root, min(xyz[1, 0] * r + xyz[1, 1] * g + xyz[1, 2] * b, np.float32(1)) * to_root)
            fz = _look_up(cube_root, min(xyz[2, 0] * r + xyz[2, 1] * g + xyz[2, 2] * b, np.float32(1)) * to_root)
            out[0, y, x] = (np.float32(116) * fy - np.float32(16)) * np.float32(2.55)
            out[1, y, x] = np.float32(500) * (fx - fy) + np.float32(128)
            out[2, y, x] = np.float32(200) * (fy - fz) + np.float32(128)
    return out


@njit(nogil=True, cache=True)
def _rgi(rgb):  # type: ignore[no-untyped-def]
    _, height, width = rgb.shape
    out = np.empty_like(rgb)
    for y in range(height):
        for x in range(width):
            r, g, b = rgb[0, y, x], rgb[1, y, x], rgb[2, y, x]
            total = r + g + b
            share = np.float32(255) / total if total > 0 else np.float32(0)
            out[0, y, x] = r * share if total > 0 else np.float32(85)
            out[1, y, x] = g * share if total > 0 else np.float32(85)
            out[2, y, x] = total / np.float32(3)
    return out
