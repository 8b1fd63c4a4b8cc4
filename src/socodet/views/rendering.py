"""From a decoded image to the finished pixels of each view, by the compiled kernels."""

import math
import threading

import numpy as np
from numpy.typing import NDArray

from socodet.runtime.kernel_cache import njit
from socodet.views.coloring import drop_colors, jitter_colors
from socodet.views.finishing import finish
from socodet.views.photometric import Photometric
from socodet.views.resampling import resample_window, resize_canvas, whole_vectors, working_floats

Canvas = NDArray[np.float32]
"""(S, 3, P) float32 in 0..255: row, channel (RGB), column; the view is in the first S of P columns."""

_NEVER = 1e9  # a threshold no value reaches
_CACHE_LINE = 64  # bytes


class _Buffers(threading.local):
    """A thread's reused memory, for two canvases and a work buffer: fresh memory costs as much as a kernel."""

    def __init__(self) -> None:
        self._floats = [np.empty(0, np.float32) for _ in range(3)]

    def canvas(self, size: int, place: int) -> Canvas:
        """A canvas in buffer 0 or 1; overwrites the last one there."""
        shape = (size, 3, whole_vectors(size))
        return self._memory(math.prod(shape), place).reshape(shape)

    def working(self, count: int) -> NDArray[np.float32]:
        """A work buffer of `count` floats."""
        return self._memory(count, 2)

    def _memory(self, count: int, place: int) -> NDArray[np.float32]:
        """`count` floats, aligned to a cache line for the vector kernels."""
        if len(self._floats[place]) < count:
            memory = np.empty(count + _CACHE_LINE // 4, np.float32)
            start = -memory.ctypes.data % _CACHE_LINE // 4
            self._floats[place] = memory[start : start + count]
        return self._floats[place][:count]


_BUFFERS = _Buffers()


def show_window(image: NDArray[np.uint8], window: NDArray[np.float64], size: int, place: int = 0) -> Canvas:
    """A window of the image at size x size, resampled with antialiasing.

    image: (H, W, 3) uint8. window: (4,) xyxy in [0, 1] of the image. The canvas is valid until this thread makes
    another with the same `place`, 0 or 1.
    """
    height, width, _ = image.shape
    # Numba compiles a kernel again for read-only or strided arrays; always the same type means one compilation.
    pixels = np.require(image, np.uint8, ["C", "W"]).reshape(-1)
    x0, y0, x1, y1 = window.tolist()
    canvas = _BUFFERS.canvas(size, place)
    work = _BUFFERS.working(working_floats(width, size))
    resample_window(pixels, width, x0 * width, y0 * height, x1 * width, y1 * height, canvas, work)
    return canvas


def resize(canvas: Canvas, size: int, place: int = 1) -> Canvas:
    """The canvas at another size, in the other buffer."""
    resized = _BUFFERS.canvas(size, place)
    resize_canvas(canvas, resized)
    return resized


def render(canvas: Canvas, photometric: Photometric, flipped: bool) -> NDArray[np.uint8]:
    """The finished view, (3, S, S) uint8 RGB: colours, blur, solarize, flip; rounded once.

    Changes the canvas in place.
    """
    size = canvas.shape[0]
    pixels = np.empty((3, size, size), np.uint8)
    threshold = photometric.solarize_threshold
    _render(
        canvas,
        photometric.jittered,
        photometric.order,
        (photometric.brightness, photometric.contrast, photometric.saturation, photometric.hue),
        photometric.grayscale,
        photometric.blur_sigma or 0.0,
        float(_NEVER if threshold is None else threshold),
        flipped,
        pixels,
    )
    return pixels


@njit(nogil=True, cache=True)
def _render(canvas, jittered, order, factors, grayscale, sigma, threshold, flipped, pixels):  # type: ignore[no-untyped-def]
    if jittered:
        jitter_colors(canvas, order, factors)
    if grayscale:
        drop_colors(canvas)
    finish(canvas, sigma, np.float32(threshold), flipped, pixels)


def warm_up() -> None:
    """Compiles every kernel in this process, or loads it from Numba's cache.

    Called before data workers start, so that they inherit the compiled code instead of each making it.
    """
    image, window = np.zeros((4, 4, 3), np.uint8), np.array([0.0, 0.0, 1.0, 1.0])
    canvas = resize(show_window(image, window, 8), 8)
    render(canvas, Photometric(True, (0, 1, 2, 3), 1.0, 1.0, 1.0, 0.0, True, 1.0, 128.0), True)
