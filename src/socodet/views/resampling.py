"""Compiled antialiased resampling, with the filter of PIL's `Image.resize(..., BILINEAR, box=window)`.

Bilinear is the default of torchvision's RandomResizedCrop, the usual way to make such crops. The triangle filter is as
wide as the reduction, so that every source pixel counts. Values stay float: nothing is rounded here.

Between the kernels a view is a "canvas": float32 (S, 3, P) in 0..255, row by row and in each row channel by channel. P
is S rounded up to whole vectors (`whole_vectors`); the padding columns hold finite values that are never used.
"""

import numpy as np

from socodet.runtime.kernel_cache import njit
from socodet.runtime.vectors import LANES, broadcast, load, load_bytes, multiply_add, store, transpose

_BLOCK = 4 * LANES  # values of a row that are summed at once
_TILE = LANES * LANES
_OUTER, _INNER = np.float32(0.125), np.float32(0.375)  # taps of a reduction to half


@njit(nogil=True, cache=True)
def whole_vectors(length):  # type: ignore[no-untyped-def]
    """`length` rounded up to whole vectors."""
    return (length + LANES - 1) // LANES * LANES


@njit(nogil=True, cache=True)
def _taps(start, stop, length, outputs):  # type: ignore[no-untyped-def]
    """First source pixel, count and normalised weights of each output pixel along one axis.

    The window [start, stop) of an axis of `length` pixels becomes `outputs` pixels. As in PIL, pixels of the image
    beyond the window count where the filter reaches them. Weights: (outputs, largest count), 0 beyond each count.
    """
    scale = (stop - start) / outputs
    support = max(scale, 1.0)
    steepness = 1.0 / support
    most = int(2 * support) + 2
    first = np.empty(outputs, np.intp)
    count = np.empty(outputs, np.intp)
    weights = np.zeros((outputs, most), np.float32)
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
    used = np.empty((outputs, longest), np.float32)
    for i in range(outputs):
        for j in range(longest):
            used[i, j] = weights[i, j]
    return first, count, used


@njit(nogil=True, cache=True)
def _weigh_rows(image, stride, first, count, weights, row):  # type: ignore[no-untyped-def]
    """The weighted sum of `count` rows of a flat image: as many values as `row` has."""
    for t in range(count):
        weight = weights[t]
        begin = (first + t) * stride
        source = image[begin : begin + row.shape[0]]
        if t == 0:
            for i in range(source.shape[0]):
                row[i] = weight * np.float32(source[i])
        else:
            for i in range(source.shape[0]):
                row[i] += weight * np.float32(source[i])


def working_floats(width: int, size: int) -> int:
    """Floats of work buffer that `resample_window` needs for an image of this width and a view of this size."""
    most_taps = 2 * (width // size + 1) + 2
    return LANES * (3 * width + max(3 * most_taps, _BLOCK)) + 3 * _TILE


@njit(nogil=True, cache=True)
def _add_rows(image, begin, stride, count, weights, at, rows, out):  # type: ignore[no-untyped-def]
    """The weighted sum of `count` runs of _BLOCK bytes, `stride` apart, with the weights from index `at` on."""
    p = begin
    weight = broadcast(weights[at])
    a = weight * load_bytes(image, p)
    b = weight * load_bytes(image, p + LANES)
    c = weight * load_bytes(image, p + 2 * LANES)
    d = weight * load_bytes(image, p + 3 * LANES)
    for t in range(1, count):
        p += stride
        weight = broadcast(weights[at + t])
        a = multiply_add(weight, load_bytes(image, p), a)
        b = multiply_add(weight, load_bytes(image, p + LANES), b)
        c = multiply_add(weight, load_bytes(image, p + 2 * LANES), c)
        d = multiply_add(weight, load_bytes(image, p + 3 * LANES), d)
    store(rows, out, a)
    store(rows, out + LANES, b)
    store(rows, out + 2 * LANES, c)
    store(rows, out + 3 * LANES, d)


@njit(nogil=True, cache=True)
def _add_narrow_rows(image, begin, stride, count, weights, at, span, rows, out):  # type: ignore[no-untyped-def]
    """The same for fewer than _BLOCK bytes."""
    for i in range(span):
        value = np.float32(0)
        for t in range(count):
            value += weights[at + t] * np.float32(image[begin + t * stride + i])
        rows[out + i] = value


@njit(nogil=True, cache=True)
def _add_columns(columns, first, weights, at, taps, tiles, out):  # type: ignore[no-untyped-def]
    """One pixel of 16 rows from `taps` neighbouring ones: a vector for each channel, in a tile of its own.

    columns: value i of all 16 rows is vector i; the first value is `first`.
    """
    p = first * LANES
    weight = broadcast(weights[at])
    red = weight * load(columns, p)
    green = weight * load(columns, p + LANES)
    blue = weight * load(columns, p + 2 * LANES)
    for t in range(1, taps):
        p += 3 * LANES
        weight = broadcast(weights[at + t])
        red = multiply_add(weight, load(columns, p), red)
        green = multiply_add(weight, load(columns, p + LANES), green)
        blue = multiply_add(weight, load(columns, p + 2 * LANES), blue)
    store(tiles, out, red)
    store(tiles, out + _TILE, green)
    store(tiles, out + 2 * _TILE, blue)


@njit(nogil=True, cache=True)
def resample_window(image, width, x0, y0, x1, y1, canvas, work):  # type: ignore[no-untyped-def]
    """The window (x0, y0, x1, y1), in pixels, of an interleaved image.

    image: (H * W * 3,) uint8. canvas: (S, 3, P) float32, written. work: (`working_floats`,) float32, overwritten.

    16 rows at a time: summed along the columns, transposed so that a vector holds one value of all 16 rows, summed
    along the rows, where taps may then start anywhere, and transposed back. So no value is ever gathered singly.
    """
    if canvas.shape[0] < LANES:
        tall = np.empty((LANES, 3, canvas.shape[2]), np.float32)
        _resample(image, width, x0, y0, x1, y1, canvas.shape[0], tall, work)
        source, target = tall.reshape(-1), canvas.reshape(-1)
        for i in range(target.size):
            target[i] = source[i]
    else:
        _resample(image, width, x0, y0, x1, y1, canvas.shape[0], canvas, work)


@njit(nogil=True, cache=True)
def _resample(image, width, x0, y0, x1, y1, size, canvas, work):  # type: ignore[no-untyped-def]
    """`resample_window` at `size` to a canvas of at least 16 rows."""
    first_x, count_x, weights_x = _taps(x0, x1, width, size)
    first_y, count_y, weights_y = _taps(y0, y1, image.shape[0] // (3 * width), size)
    taps_x, taps_y = weights_x.shape[1], weights_y.shape[1]
    along, down = weights_x.reshape(-1), weights_y.reshape(-1)
    flat, columns_out = canvas.reshape(-1), canvas.shape[2]
    stride, left = 3 * width, 3 * first_x[0]
    span = 3 * (first_x[size - 1] + count_x[size - 1]) - left
    rows = np.zeros(LANES * _BLOCK, np.float32)
    tiles, columns = work[: 3 * _TILE], work[3 * _TILE :]
    columns[LANES * span : LANES * (span + 3 * taps_x)] = 0  # only read with weight 0
    for sixteen in range(0, size, LANES):
        y = max(min(sixteen, size - LANES), 0)  # the last sixteen may repeat rows
        for block in range(0, span, _BLOCK):
            begin = max(min(block, span - _BLOCK), 0)
            for i in range(LANES):
                row = min(y + i, size - 1)
                place, at = first_y[row] * stride + left + begin, row * taps_y
                if span < _BLOCK:
                    _add_narrow_rows(image, place, stride, count_y[row], down, at, span, rows, i * _BLOCK)
                else:
                    _add_rows(image, place, stride, count_y[row], down, at, rows, i * _BLOCK)
            for part in range(0, min(span, _BLOCK), LANES):
                transpose(rows, part, _BLOCK, columns, LANES * (begin + part), LANES)
        for x in range(0, columns_out, LANES):
            for i in range(LANES):
                pixel = min(x + i, size - 1)
                _add_columns(columns, 3 * first_x[pixel] - left, along, pixel * taps_x, taps_x, tiles, i * LANES)
            out = 3 * y * columns_out + x
            for channel in range(3):
                transpose(tiles, channel * _TILE, LANES, flat, out + channel * columns_out, 3 * columns_out)


@njit(nogil=True, cache=True)
def _halve_down(flat, start, stride, row):  # type: ignore[no-untyped-def]
    """One inner row at half the height, from four rows of which the first begins at `start`."""
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
    """A row at half its length; `out` (P,) is written, its first and last value wrong.

    row: (2 P or more,) float32. even and odd: (P + 1,) work buffers.
    """
    for x in range(out.shape[0]):
        k = np.uintp(2) * np.uintp(x)
        even[x] = row[k]
        odd[x + 1] = row[k + np.uintp(1)]
    following, own = even[1:], odd[1:]
    for x in range(out.shape[0]):
        out[x] = _OUTER * (odd[x] + following[x]) + _INNER * (even[x] + own[x])


@njit(nogil=True, cache=True)
def _weigh_row(row, first, count, weights, end, step, out):  # type: ignore[no-untyped-def]
    """Resamples a row at every `step`-th output position below `end`."""
    for x in range(0, end, step):
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
    half = size == 2 * new_size  # the paper's V3: a vectorised path with the same result, except for the ends
    resized[:, :, new_size:] = 0
    for y in range(new_size):
        if half and 0 < y < new_size - 1:
            _halve_down(flat, first[y] * 3 * columns, 3 * columns, buffer[: 3 * columns])
        else:
            _weigh_rows(flat, 3 * columns, first[y], count[y], weights[y], buffer[: 3 * columns])
        for c in range(3):
            row, out = buffer[c * columns :], resized[y, c]
            if half:
                _halve_along(row, even, odd, out)
                _weigh_row(row, first, count, weights, new_size, new_size - 1, out)
            else:
                _weigh_row(row, first, count, weights, new_size, 1, out)
