"""Compiled last steps of a view: Gaussian blur, solarize, flip, and the one rounding to uint8."""

import numpy as np

from socodet.kernels import njit

_TOP, _HALF = np.float32(255), np.float32(0.5)


@njit(nogil=True, cache=True)
def _gaussian(sigma, size):  # type: ignore[no-untyped-def]
    """Radius, and weights from the centre outwards, of a Gaussian to three standard deviations.

    What is left out moves no value by more than half a level. The weights of both sides sum to 1; those
    beyond the radius, up to 3 or 6 taps, are 0.
    """
    radius = min(int(np.ceil(3 * sigma)), size - 1)
    weights = np.zeros(4 if radius <= 3 else max(radius, 6) + 1, np.float64)
    total = 0.0
    for t in range(radius + 1):
        weights[t] = np.exp(-0.5 * (t / sigma) ** 2)
        total += weights[t] if t == 0 else 2 * weights[t]
    return radius, (weights / total).astype(np.float32)


# The sums read all their taps by offsets into one array, and many of them in one pass: making a slice costs
# as much as several vectors' work.


@njit(nogil=True, cache=True)
def _sum_3_pairs(v, at, weights, out):  # type: ignore[no-untyped-def]
    o, a, b, c, d, e, f = at[0], at[1], at[2], at[3], at[4], at[5], at[6]
    w, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for i in range(out.shape[0]):
        k = np.uintp(i)
        out[k] = w * v[k + o] + w1 * (v[k + a] + v[k + b]) + w2 * (v[k + c] + v[k + d]) + w3 * (v[k + e] + v[k + f])


@njit(nogil=True, cache=True)
def _sum_6_pairs(v, at, weights, out):  # type: ignore[no-untyped-def]
    o, a, b, c, d, e, f = at[0], at[1], at[2], at[3], at[4], at[5], at[6]
    g, h, m, n, p, q = at[7], at[8], at[9], at[10], at[11], at[12]
    w, w1, w2, w3, w4, w5, w6 = (
        weights[0],
        weights[1],
        weights[2],
        weights[3],
        weights[4],
        weights[5],
        weights[6],
    )
    for i in range(out.shape[0]):
        k = np.uintp(i)
        out[k] = (
            w * v[k + o]
            + w1 * (v[k + a] + v[k + b])
            + w2 * (v[k + c] + v[k + d])
            + w3 * (v[k + e] + v[k + f])
            + w4 * (v[k + g] + v[k + h])
            + w5 * (v[k + m] + v[k + n])
            + w6 * (v[k + p] + v[k + q])
        )


@njit(nogil=True, cache=True)
def _add_pair(v, a, b, weight, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        k = np.uintp(i)
        out[k] += weight * (v[k + a] + v[k + b])


@njit(nogil=True, cache=True)
def _weigh(v, at, weights, out):  # type: ignore[no-untyped-def]
    """The weighted sum of runs of values: `out`, as long as each.

    v: the values, flat. at: where the runs begin, uintp: the centre's, then pair by pair the two of a weight.
    """
    if weights.shape[0] == 4:
        _sum_3_pairs(v, at, weights, out)
        return
    _sum_6_pairs(v, at, weights, out)
    for t in range(7, weights.shape[0]):
        _add_pair(v, at[2 * t - 1], at[2 * t], weights[t], out)


@njit(nogil=True, cache=True)
def _rows_around(y, size, stride, radius, at):  # type: ignore[no-untyped-def]
    """Where row y and the rows above and below it begin; beyond the edge reflected, the edge not repeated."""
    at[0] = y * stride
    for i in range(1, at.shape[0], 2):
        t = min((i + 1) // 2, radius)
        at[i] = abs(y - t) * stride
        at[i + 1] = (size - 1 - abs(size - 1 - y - t)) * stride


@njit(nogil=True, cache=True)
def _pad(row, size, radius, margin, padded):  # type: ignore[no-untyped-def]
    """`row` (P,) into `padded` from `margin` on, its `size` values reflected at both ends."""
    for x in range(row.shape[0]):
        padded[np.uintp(margin) + np.uintp(x)] = row[x]
    for t in range(1, radius + 1):
        padded[margin - t] = row[t]
        padded[margin + size - 1 + t] = row[size - 1 - t]


@njit(nogil=True, cache=True)
def _store(row, threshold, flipped, out):  # type: ignore[no-untyped-def]
    """Solarize, round to uint8, flip: row (P,) float32 to out (S,) uint8."""
    size = out.shape[0]
    if flipped:
        last = np.uintp(size - 1)
        for x in range(size):
            value = row[x]
            value = _TOP - value if value >= threshold else value
            out[last - np.uintp(x)] = np.uint8(value + _HALF)
    else:
        for x in range(size):
            value = row[x]
            value = _TOP - value if value >= threshold else value
            out[x] = np.uint8(value + _HALF)


@njit(nogil=True, cache=True)
def finish(canvas, sigma, threshold, flipped, pixels):  # type: ignore[no-untyped-def]
    """A canvas as a finished view.

    canvas: (S, 3, P) float32, 0..255. sigma: blur in pixels, 0 for none. threshold: float32 from which values
    are solarized, above 255 for none. flipped: mirror left to right. pixels: (3, S, S) uint8, written.
    """
    size, _, columns = canvas.shape
    if sigma <= 0:
        for y in range(size):
            for c in range(3):
                _store(canvas[y, c], threshold, flipped, pixels[c, y])
        return
    radius, weights = _gaussian(sigma, size)
    margin = weights.shape[0] - 1
    flat = canvas.reshape(-1)
    rows = np.empty(2 * margin + 1, np.uintp)
    along = np.empty(2 * margin + 1, np.uintp)
    along[0] = margin
    for t in range(1, margin + 1):
        along[2 * t - 1] = margin - t
        along[2 * t] = margin + t
    blurred = np.empty(3 * columns, np.float32)
    padded = np.zeros(columns + 2 * margin, np.float32)
    out = np.empty(columns, np.float32)
    for y in range(size):
        _rows_around(y, size, 3 * columns, radius, rows)
        _weigh(flat, rows, weights, blurred)
        for c in range(3):
            _pad(blurred[c * columns : (c + 1) * columns], size, radius, margin, padded)
            _weigh(padded, along, weights, out)
            _store(out, threshold, flipped, pixels[c, y])
