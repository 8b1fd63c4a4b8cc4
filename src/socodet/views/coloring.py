"""Compiled colour operations on a canvas, float32 (S, 3, P) in 0..255: those of torchvision's functions.

Nothing is rounded between operations; values are kept in 0..255 after each, as there. Each operation is a
function of one row's three channels: in a loop over the rows the compiler would look for overlap between the
channels of all rows, find it, and give up vector code.
"""

import numpy as np

from socodet.kernels import njit

_RED, _GREEN, _BLUE = np.float32(0.2989), np.float32(0.587), np.float32(0.114)  # torchvision's luma
_ZERO, _ONE, _TOP = np.float32(0), np.float32(1), np.float32(255)
_TWO, _THREE, _FOUR, _SIX = np.float32(2), np.float32(3), np.float32(4), np.float32(6)


@njit(nogil=True, cache=True)
def _clamp(value):  # type: ignore[no-untyped-def]
    return min(max(value, _ZERO), _TOP)


@njit(nogil=True, cache=True)
def _brightness(red, green, blue, factor):  # type: ignore[no-untyped-def]
    for i in range(red.shape[0]):
        red[i] = min(red[i] * factor, _TOP)
        green[i] = min(green[i] * factor, _TOP)
        blue[i] = min(blue[i] * factor, _TOP)


@njit(nogil=True, cache=True)
def _contrast(red, green, blue, factor, mean):  # type: ignore[no-untyped-def]
    offset = (_ONE - factor) * mean
    for i in range(red.shape[0]):
        red[i] = _clamp(red[i] * factor + offset)
        green[i] = _clamp(green[i] * factor + offset)
        blue[i] = _clamp(blue[i] * factor + offset)


@njit(nogil=True, cache=True)
def _saturation(red, green, blue, factor):  # type: ignore[no-untyped-def]
    for i in range(red.shape[0]):
        grey = (_ONE - factor) * (_RED * red[i] + _GREEN * green[i] + _BLUE * blue[i])
        red[i] = _clamp(red[i] * factor + grey)
        green[i] = _clamp(green[i] * factor + grey)
        blue[i] = _clamp(blue[i] * factor + grey)


@njit(nogil=True, cache=True)
def _hue(red, green, blue, turn):  # type: ignore[no-untyped-def]
    """HSV's hue turned by `turn` circles; written without branches, so that it becomes vector code.

    The hue runs from 0 (red) by 2 (green) and 4 (blue) to 6, and each channel is a trapezoid over it. All of
    it is multiplied by the chroma here, which spares the division.
    """
    sixths = turn * _SIX if turn >= _ZERO else turn * _SIX + _SIX
    for i in range(red.shape[0]):
        r, g, b = red[i], green[i], blue[i]
        top = max(max(r, g), b)
        bottom = min(min(r, g), b)
        chroma = top - bottom
        circle = _SIX * chroma
        hue = _TWO * chroma + (b - r) if top == g else _FOUR * chroma + (r - g)
        hue = g - b if top == r else hue
        hue += sixths * chroma
        hue = hue - circle if hue >= circle else hue
        hue = hue + circle if hue < _ZERO else hue
        from_cyan = abs(hue - _THREE * chroma) - chroma
        from_green = _TWO * chroma - abs(hue - _TWO * chroma)
        from_blue = _TWO * chroma - abs(hue - _FOUR * chroma)
        red[i] = bottom + min(max(from_cyan, _ZERO), chroma)
        green[i] = bottom + min(max(from_green, _ZERO), chroma)
        blue[i] = bottom + min(max(from_blue, _ZERO), chroma)


@njit(nogil=True, cache=True)
def _add_grey(red, green, blue, sums):  # type: ignore[no-untyped-def]
    for i in range(sums.shape[0]):
        sums[i] += _RED * red[i] + _GREEN * green[i] + _BLUE * blue[i]


@njit(nogil=True, cache=True)
def _apply(operation, red, green, blue, factors, mean):  # type: ignore[no-untyped-def]
    if operation == 0:
        _brightness(red, green, blue, np.float32(factors[0]))
    elif operation == 1:
        _contrast(red, green, blue, np.float32(factors[1]), mean)
    elif operation == 2:
        _saturation(red, green, blue, np.float32(factors[2]))
    else:
        _hue(red, green, blue, np.float32(factors[3]))


@njit(nogil=True, cache=True)
def jitter_colors(canvas, order, factors):  # type: ignore[no-untyped-def]
    """Brightness (0), contrast (1), saturation (2) and hue (3) in the given order, in place.

    canvas: (S, 3, P) float32. order: four ints. factors: four floats, the last the turn of the hue in
    circles. Contrast needs the mean of the whole view, so rows are passed twice: up to it, and from it.
    """
    size = canvas.shape[0]
    sums = np.zeros(canvas.shape[2], np.float32)  # a sum a column: vector code without reordering a sum
    position = 0
    while order[position] != 1:
        position += 1
    for y in range(size):
        red, green, blue = canvas[y, 0], canvas[y, 1], canvas[y, 2]
        for i in range(position):
            _apply(order[i], red, green, blue, factors, _ZERO)
        _add_grey(red, green, blue, sums)
    total = 0.0
    for x in range(size):
        total += sums[x]
    mean = np.float32(total / (size * size))
    for y in range(size):
        red, green, blue = canvas[y, 0], canvas[y, 1], canvas[y, 2]
        for i in range(position, 4):
            _apply(order[i], red, green, blue, factors, mean)


@njit(nogil=True, cache=True)
def _grayscale(red, green, blue):  # type: ignore[no-untyped-def]
    for i in range(red.shape[0]):
        grey = _RED * red[i] + _GREEN * green[i] + _BLUE * blue[i]
        red[i] = grey
        green[i] = grey
        blue[i] = grey


@njit(nogil=True, cache=True)
def drop_colors(canvas):  # type: ignore[no-untyped-def]
    """Grayscale in place: every channel becomes the luma. canvas: (S, 3, P) float32."""
    for y in range(canvas.shape[0]):
        _grayscale(canvas[y, 0], canvas[y, 1], canvas[y, 2])
