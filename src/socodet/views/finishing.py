"""Compiled last steps of a view: Gaussian blur, solarize, flip, and the one rounding to uint8."""

import numpy as np

from socodet.runtime.kernel_cache import njit
from socodet.runtime.vectors import LANES, broadcast, load, multiply_add, pick_less, reverse, store, store_bytes

_TOP, _HALF = np.float32(255), np.float32(0.5)


@njit(nogil=True, cache=True)
def _gaussian(sigma, size):  # type: ignore[no-untyped-def]
    """Weights, from the centre outwards, of a Gaussian to three standard deviations.

    The tail left out changes no value by more than half a grey level. The weights of both sides sum to 1.
    """
    radius = min(int(np.ceil(3 * sigma)), size - 1)
    weights = np.empty(radius + 1, np.float64)
    total = 0.0
    for t in range(radius + 1):
        weights[t] = np.exp(-0.5 * (t / sigma) ** 2)
        total += weights[t] if t == 0 else 2 * weights[t]
    return (weights / total).astype(np.float32)


@njit(nogil=True, cache=True)
def _blur_down(flat, size, columns, y, weights, rows, margin, padded):  # type: ignore[no-untyped-def]
    """Row y of a canvas blurred along the columns; edges are reflected without repeating the edge pixel.

    rows: (3 * padded,) written: a channel every `padded` values, each after `margin` others.
    """
    own, stride = 3 * y * columns, 3 * columns
    for x in range(0, columns, LANES):
        weight, p = broadcast(weights[0]), own + x
        red, green, blue = (
            weight * load(flat, p),
            weight * load(flat, p + columns),
            weight * load(flat, p + 2 * columns),
        )
        for t in range(1, weights.shape[0]):
            weight = broadcast(weights[t])
            p, q = abs(y - t) * stride + x, (size - 1 - abs(size - 1 - y - t)) * stride + x
            red = multiply_add(weight, load(flat, p) + load(flat, q), red)
            green = multiply_add(weight, load(flat, p + columns) + load(flat, q + columns), green)
            blue = multiply_add(weight, load(flat, p + 2 * columns) + load(flat, q + 2 * columns), blue)
        store(rows, margin + x, red)
        store(rows, padded + margin + x, green)
        store(rows, 2 * padded + margin + x, blue)


@njit(nogil=True, cache=True)
def _reflect(rows, first, last, radius):  # type: ignore[no-untyped-def]
    """Reflects rows[first] to rows[last] beyond both ends, without repeating the end values."""
    for t in range(1, radius + 1):
        rows[first - t] = rows[first + t]
        rows[last + t] = rows[last - t]


@njit(nogil=True, cache=True)
def _put(value, threshold, flipped, out, row, width, x):  # type: ignore[no-untyped-def]
    """Solarize, round, and write to columns x to x + 15, or their mirror, of the row that begins at out[row]."""
    value = pick_less(value, threshold, value, broadcast(_TOP) - value) + broadcast(_HALF)
    if flipped:
        store_bytes(out, row + width - LANES - x, reverse(value))
    else:
        store_bytes(out, row + x, value)


@njit(nogil=True, cache=True)
def _plain(canvas, threshold, flipped, pixels):  # type: ignore[no-untyped-def]
    """`finish` without blur; pixels (3, S, 16 or more)."""
    size, _, columns = canvas.shape
    width, plane = pixels.shape[2], pixels[0].size
    flat, out = canvas.reshape(-1), pixels.reshape(-1)
    for y in range(size):
        for column in range(0, width, LANES):
            x = min(column, width - LANES)
            p, row = 3 * y * columns + x, y * width
            _put(load(flat, p), threshold, flipped, out, row, width, x)
            _put(load(flat, p + columns), threshold, flipped, out, plane + row, width, x)
            _put(load(flat, p + 2 * columns), threshold, flipped, out, 2 * plane + row, width, x)


@njit(nogil=True, cache=True)
def _blurred(canvas, sigma, threshold, flipped, pixels):  # type: ignore[no-untyped-def]
    """`finish` with blur; pixels (3, S, 16 or more)."""
    size, _, columns = canvas.shape
    width, plane = pixels.shape[2], pixels[0].size
    flat, out = canvas.reshape(-1), pixels.reshape(-1)
    weights = _gaussian(sigma, size)
    radius = weights.shape[0] - 1
    margin = (radius + LANES - 1) // LANES * LANES
    padded = columns + 2 * margin
    rows = np.zeros(3 * padded, np.float32)
    for y in range(size):
        _blur_down(flat, size, columns, y, weights, rows, margin, padded)
        for channel in range(3):
            first = channel * padded + margin
            _reflect(rows, first, first + size - 1, radius)
        row = y * width
        for column in range(0, width, LANES):
            x = min(column, width - LANES)
            weight, p = broadcast(weights[0]), margin + x
            red, green, blue = (
                weight * load(rows, p),
                weight * load(rows, p + padded),
                weight * load(rows, p + 2 * padded),
            )
            for t in range(1, radius + 1):
                weight, before, after = broadcast(weights[t]), p - t, p + t
                red = multiply_add(weight, load(rows, before) + load(rows, after), red)
                green = multiply_add(weight, load(rows, before + padded) + load(rows, after + padded), green)
                blue = multiply_add(weight, load(rows, before + 2 * padded) + load(rows, after + 2 * padded), blue)
            _put(red, threshold, flipped, out, row, width, x)
            _put(green, threshold, flipped, out, plane + row, width, x)
            _put(blue, threshold, flipped, out, 2 * plane + row, width, x)


@njit(nogil=True, cache=True)
def finish(canvas, sigma, threshold, flipped, pixels):  # type: ignore[no-untyped-def]
    """A canvas as a finished view.

    canvas: (S, 3, P) float32, 0..255. sigma: blur in pixels, 0 for none. threshold: float32 from which values
    are solarized, above 255 for none. flipped: mirror left to right. pixels: (3, S, S) uint8, written.
    """
    size = canvas.shape[0]
    narrow = size < LANES  # narrower than a vector: goes through rows of a vector's length
    to = np.empty((3, size, LANES), np.uint8) if narrow else pixels
    if sigma > 0:
        _blurred(canvas, sigma, broadcast(threshold), flipped and not narrow, to)
    else:
        _plain(canvas, broadcast(threshold), flipped and not narrow, to)
    if narrow:
        for channel in range(3):
            for y in range(size):
                for x in range(size):
                    pixels[channel, y, size - 1 - x if flipped else x] = to[channel, y, x]
