"""Compiled antialiased resampling, with the filter of PIL's `Image.resize(..., BILINEAR, box=window)`.

Bilinear is the default of torchvision's RandomResizedCrop, with which such crops are commonly made. The
triangle filter is as wide as the reduction, so that every source pixel counts. Values stay float: nothing is
rounded here.

Between the kernels a view is a "canvas": float32 (S, 3, P) in 0..255, row by row and in each row channel by
channel, so that what goes down the columns runs over all three channels at once. P is S filled up to whole
vectors (`whole_vectors`), so that loops leave no rest to do value by value; what the columns from S on hold
is finite and goes nowhere.
"""

import numpy as np

from socodet.kernels import njit

_VECTOR = 64  # floats: four vectors of 512 bits, as many as compilers take at once
_BLOCK = 5  # taps summed at once: all that a reduction by up to 2 1/2 needs
_OUTER, _INNER = np.float32(0.125), np.float32(0.375)  # taps of a reduction to half


@njit(nogil=True, cache=True)
def whole_vectors(length):  # type: ignore[no-untyped-def]
    """`length` rounded up to whole vectors."""
    return (length + _VECTOR - 1) // _VECTOR * _VECTOR


@njit(nogil=True, cache=True)
def _taps(start, stop, length, outputs):  # type: ignore[no-untyped-def]
    """First source pixel, count and normalised weights of each output pixel along one axis.

    The window [start, stop) of an axis of `length` pixels becomes `outputs` pixels. Pixels beyond the window
    but in the image count where the filter reaches them, as PIL has it. Weights: (outputs, a multiple of
    _BLOCK), 0 beyond the count.
    """
    scale = (stop - start) / outputs
    support = max(scale, 1.0)
    steepness = 1.0 / support
    most = int(2 * support) + 2
    first = np.empty(outputs, np.intp)
    count = np.empty(outputs, np.intp)
    weights = np.zeros((outputs, most + _BLOCK - 1), np.float32)
    longest = 0
    for i in range(outputs):
        centre = start + (i + 0.5) * scale
        begin = min(max(int(centre - support + 0.5), 0), length - 1)
        end = max(min(int(centre + support + 0.5), length), begin + 1)
        total = 0.0
        for j in range(begin, end):
            total += max(1.0 - abs(j + 0.5 - centre) * steepness, 0.0)
        share = 1.0 / total
        for j in range(begin, end):
            weights[i, j - begin] = max(1.0 - abs(j + 0.5 - centre) * steepness, 0.0) * share
        first[i] = begin
        count[i] = end - begin
        longest = max(longest, end - begin)
    blocks = (longest + _BLOCK - 1) // _BLOCK
    return first, count, np.ascontiguousarray(weights[:, : blocks * _BLOCK])


@njit(nogil=True, cache=True)
def _weigh_rows(image, stride, left, first, count, weights, row):  # type: ignore[no-untyped-def]
    """The weighted sum of `count` rows of a flat image, from `left` on: as many values as `row` has."""
    for t in range(count):
        weight = weights[t]
        begin = (first + t) * stride + left
        source = image[begin : begin + row.shape[0]]
        if t == 0:
            for i in range(source.shape[0]):
                row[i] = weight * np.float32(source[i])
        else:
            for i in range(source.shape[0]):
                row[i] += weight * np.float32(source[i])


@njit(nogil=True, cache=True, inline="always")
def _weigh_5(row, p, w0, w1, w2, w3, w4):  # type: ignore[no-untyped-def]
    """The weighted sum of one channel of five neighbouring pixels, the first at p."""
    return (
        w0 * row[p]
        + w1 * row[p + np.uintp(3)]
        + w2 * row[p + np.uintp(6)]
        + w3 * row[p + np.uintp(9)]
        + w4 * row[p + np.uintp(12)]
    )


@njit(nogil=True, cache=True)
def _weigh_columns(a, b, c, d, starts, weights, canvas, y):  # type: ignore[no-untyped-def]
    """Four interleaved rows to rows y to y + 3 of the canvas, five taps a pixel; a weight is loaded once."""
    for x in range(starts.shape[0]):
        w0, w1, w2, w3, w4 = weights[x, 0], weights[x, 1], weights[x, 2], weights[x, 3], weights[x, 4]
        for channel in range(3):
            p = starts[x] + np.uintp(channel)
            canvas[y, channel, x] = _weigh_5(a, p, w0, w1, w2, w3, w4)
            canvas[y + 1, channel, x] = _weigh_5(b, p, w0, w1, w2, w3, w4)
            canvas[y + 2, channel, x] = _weigh_5(c, p, w0, w1, w2, w3, w4)
            canvas[y + 3, channel, x] = _weigh_5(d, p, w0, w1, w2, w3, w4)


@njit(nogil=True, cache=True)
def _add_columns(a, b, c, d, starts, weights, canvas, y):  # type: ignore[no-untyped-def]
    """Five more taps for the same."""
    for x in range(starts.shape[0]):
        w0, w1, w2, w3, w4 = weights[x, 0], weights[x, 1], weights[x, 2], weights[x, 3], weights[x, 4]
        for channel in range(3):
            p = starts[x] + np.uintp(channel)
            canvas[y, channel, x] += _weigh_5(a, p, w0, w1, w2, w3, w4)
            canvas[y + 1, channel, x] += _weigh_5(b, p, w0, w1, w2, w3, w4)
            canvas[y + 2, channel, x] += _weigh_5(c, p, w0, w1, w2, w3, w4)
            canvas[y + 3, channel, x] += _weigh_5(d, p, w0, w1, w2, w3, w4)


@njit(nogil=True, cache=True)
def resample_window(image, width, x0, y0, x1, y1, canvas):  # type: ignore[no-untyped-def]
    """The window (x0, y0, x1, y1), in pixels, of an interleaved image.

    image: (H * W * 3,) uint8. canvas: (S, 3, P) float32, written.
    """
    size = canvas.shape[0]
    first_x, count_x, weights_x = _taps(x0, x1, width, size)
    first_y, count_y, weights_y = _taps(y0, y1, image.shape[0] // (3 * width), size)
    taps = weights_x.shape[1]
    left = first_x[0] * 3
    right = (first_x[size - 1] + count_x[size - 1]) * 3
    # What lies beyond the window's end, of this row or the next, is read by taps of weight 0 alone.
    rows = np.zeros((4, whole_vectors(right - left + 3 * taps)), np.float32)
    a, b, c, d = rows[0], rows[1], rows[2], rows[3]
    starts = np.empty((taps // _BLOCK, size), np.uintp)
    for block in range(taps // _BLOCK):
        for x in range(size):
            starts[block, x] = first_x[x] * 3 - left + 3 * _BLOCK * block
    canvas[:, :, size:] = 0
    for four in range(0, size, 4):
        y = min(four, size - 4)  # the last four may repeat rows
        for i in range(4):
            _weigh_rows(image, 3 * width, left, first_y[y + i], count_y[y + i], weights_y[y + i], rows[i])
        _weigh_columns(a, b, c, d, starts[0], weights_x, canvas, y)
        for block in range(1, taps // _BLOCK):
            _add_columns(a, b, c, d, starts[block], weights_x[:, block * _BLOCK :], canvas, y)


@njit(nogil=True, cache=True)
def _halve_down(flat, start, stride, row):  # type: ignore[no-untyped-def]
    """`row`: the inner one of the rows at half the height; the four it is made of begin at `start`."""
    first = np.uintp(start)
    second, third, fourth = (
        first + np.uintp(stride),
        first + np.uintp(2 * stride),
        first + np.uintp(3 * stride),
    )
    for i in range(row.shape[0]):
        k = np.uintp(i)
        row[k] = _OUTER * (flat[k + first] + flat[k + fourth]) + _INNER * (flat[k + second] + flat[k + third])


@njit(nogil=True, cache=True)
def _halve_along(row, even, odd, out):  # type: ignore[no-untyped-def]
    """A row at half its length; `out` (P,) written, its first and last value wrong.

    row: (2 P and more,) float32. even and odd: (P + 1,) to work in.
    """
    for x in range(out.shape[0]):
        k = np.uintp(2) * np.uintp(x)
        even[x] = row[k]
        odd[x + 1] = row[k + np.uintp(1)]
    following, own = even[1:], odd[1:]
    for x in range(out.shape[0]):
        out[x] = _OUTER * (odd[x] + following[x]) + _INNER * (even[x] + own[x])


@njit(nogil=True, cache=True)
def _weigh_row(row, first, count, weights, begin, end, step, out):  # type: ignore[no-untyped-def]
    """The values begin, begin + step, ... below `end` of a row at another length."""
    for x in range(begin, end, step):
        value = np.float32(0)
        for t in range(count[x]):
            value += weights[x, t] * row[first[x] + t]
        out[x] = value


@njit(nogil=True, cache=True)
def resize_canvas(canvas, resized):  # type: ignore[no-untyped-def]
    """A whole canvas (S, 3, P) at another size: `resized` (T, 3, Q), written."""
    size, _, columns = canvas.shape
    new_size, _, new_columns = resized.shape
    first, count, weights = _taps(0.0, float(size), size, new_size)
    flat = canvas.reshape(-1)
    buffer = np.zeros(3 * columns + 2 * new_columns, np.float32)
    even = np.zeros(new_columns + 1, np.float32)
    odd = np.zeros(new_columns + 1, np.float32)
    half = size == 2 * new_size  # the paper's V3: the same by vectors, but for the ends
    resized[:, :, new_size:] = 0
    for y in range(new_size):
        if half and 0 < y < new_size - 1:
            _halve_down(flat, first[y] * 3 * columns, 3 * columns, buffer[: 3 * columns])
        else:
            _weigh_rows(flat, 3 * columns, 0, first[y], count[y], weights[y], buffer[: 3 * columns])
        for c in range(3):
            row, out = buffer[c * columns :], resized[y, c]
            if half:
                _halve_along(row, even, odd, out)
                _weigh_row(row, first, count, weights, 0, new_size, new_size - 1, out)
            else:
                _weigh_row(row, first, count, weights, 0, new_size, 1, out)
