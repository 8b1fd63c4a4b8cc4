"""Compiled colour operations on a canvas, float32 (S, 3, P) in 0..255: those of torchvision's functions.

Nothing is rounded between operations; values are clamped to 0..255 after each, as in torchvision. All operations run on
16 pixels at a time, so each pixel is read and written once.
"""

import numpy as np

from socodet.runtime.kernel_cache import njit
from socodet.runtime.vectors import (
    LANES,
    absolute,
    broadcast,
    greatest,
    least,
    load,
    multiply_add,
    pick_equal,
    pick_less,
    store,
)

_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)  # torchvision's luma
_ZERO, _ONE, _TOP = np.float32(0), np.float32(1), np.float32(255)
_TWO, _THREE, _FOUR, _SIX = np.float32(2), np.float32(3), np.float32(4), np.float32(6)


@njit(nogil=True, cache=True)
def _clamp(value):  # type: ignore[no-untyped-def]
    return least(greatest(value, broadcast(_ZERO)), broadcast(_TOP))


@njit(nogil=True, cache=True)
def _luma(red, green, blue):  # type: ignore[no-untyped-def]
    return multiply_add(broadcast(_BLUE), blue, multiply_add(broadcast(_GREEN), green, broadcast(_RED) * red))


@njit(nogil=True, cache=True)
def _brighten(red, green, blue, factor):  # type: ignore[no-untyped-def]
    top = broadcast(_TOP)
    return least(red * factor, top), least(green * factor, top), least(blue * factor, top)


@njit(nogil=True, cache=True)
def _blend(red, green, blue, factor, other):  # type: ignore[no-untyped-def]
    """Each channel times `factor`, plus `other`."""
    return (
        _clamp(multiply_add(red, factor, other)),
        _clamp(multiply_add(green, factor, other)),
        _clamp(multiply_add(blue, factor, other)),
    )


@njit(nogil=True, cache=True)
def _turn_hue(red, green, blue, sixths):  # type: ignore[no-untyped-def]
    """HSV's hue turned by `sixths` of a circle, 0 to 6.

    The hue runs from 0 (red) through 2 (green) and 4 (blue) to 6, and each channel is a trapezoid over it. Everything
    is multiplied by the chroma here, which saves the division.
    """
    zero, two = broadcast(_ZERO), broadcast(_TWO)
    top = greatest(greatest(red, green), blue)
    bottom = least(least(red, green), blue)
    chroma = top - bottom
    circle = broadcast(_SIX) * chroma
    hue = pick_equal(
        top, green, multiply_add(two, chroma, blue - red), multiply_add(broadcast(_FOUR), chroma, red - green)
    )
    hue = multiply_add(sixths, chroma, pick_equal(top, red, green - blue, hue))
    hue = pick_less(hue, circle, hue, hue - circle)
    hue = pick_less(hue, zero, hue + circle, hue)
    from_cyan = absolute(hue - broadcast(_THREE) * chroma) - chroma
    from_green = two * chroma - absolute(hue - two * chroma)
    from_blue = two * chroma - absolute(hue - broadcast(_FOUR) * chroma)
    return (
        bottom + least(greatest(from_cyan, zero), chroma),
        bottom + least(greatest(from_green, zero), chroma),
        bottom + least(greatest(from_blue, zero), chroma),
    )


@njit(nogil=True, cache=True)
def _operate(canvas, order, begin, end, factors, mean):  # type: ignore[no-untyped-def]
    """Applies the operations order[begin:end] to each pixel; returns the mean luma of the result."""
    size, _, columns = canvas.shape
    flat = canvas.reshape(-1)
    brightness, contrast = broadcast(np.float32(factors[0])), broadcast(np.float32(factors[1]))
    grey = broadcast((_ONE - np.float32(factors[1])) * mean)
    saturation, desaturation = broadcast(np.float32(factors[2])), broadcast(_ONE - np.float32(factors[2]))
    turn = np.float32(factors[3])
    sixths = broadcast(turn * _SIX if turn >= _ZERO else turn * _SIX + _SIX)
    shown = np.zeros(columns, np.float32)
    shown[:size] = 1  # padding columns do not count
    total = broadcast(_ZERO)
    for y in range(size):
        row = broadcast(_ZERO)
        for x in range(3 * y * columns, (3 * y + 1) * columns, LANES):
            red, green, blue = load(flat, x), load(flat, x + columns), load(flat, x + 2 * columns)
            for i in range(begin, end):
                if order[i] == 0:
                    red, green, blue = _brighten(red, green, blue, brightness)
                elif order[i] == 1:
                    red, green, blue = _blend(red, green, blue, contrast, grey)
                elif order[i] == 2:
                    luma = _luma(red, green, blue)
                    red, green, blue = _blend(red, green, blue, saturation, desaturation * luma)
                else:
                    red, green, blue = _turn_hue(red, green, blue, sixths)
            if begin < end:
                store(flat, x, red)
                store(flat, x + columns, green)
                store(flat, x + 2 * columns, blue)
            row = multiply_add(load(shown, x - 3 * y * columns), _luma(red, green, blue), row)
        total = total + row
    sums = np.empty(LANES, np.float32)
    store(sums, 0, total)
    return np.float32(sums.sum() / (size * size))


@njit(nogil=True, cache=True)
def jitter_colors(canvas, order, factors):  # type: ignore[no-untyped-def]
    """Brightness (0), contrast (1), saturation (2) and hue (3) in the given order, in place.

    canvas: (S, 3, P) float32. order: four ints. factors: four floats, the last the rotation of the hue in circles.
    Contrast needs the mean of the whole view, so there are two passes over the pixels: before contrast, and from it on.
    """
    contrast = np.int64(0)
    while order[contrast] != 1:
        contrast += 1
    mean = _operate(canvas, order, np.int64(0), contrast, factors, _ZERO)
    _operate(canvas, order, contrast, np.int64(4), factors, mean)


@njit(nogil=True, cache=True)
def drop_colors(canvas):  # type: ignore[no-untyped-def]
    """Grayscale in place: every channel becomes the luma. canvas: (S, 3, P) float32."""
    size, _, columns = canvas.shape
    flat = canvas.reshape(-1)
    for y in range(size):
        for x in range(3 * y * columns, (3 * y + 1) * columns, LANES):
            luma = _luma(load(flat, x), load(flat, x + columns), load(flat, x + 2 * columns))
            store(flat, x, luma)
            store(flat, x + columns, luma)
            store(flat, x + 2 * columns, luma)
