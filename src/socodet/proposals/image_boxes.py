"""From one image to its proposals."""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from socodet.errors import ArgumentError, InputError
from socodet.images.decode import decode_image
from socodet.images.reading import PLAIN, PixelReading
from socodet.proposals.baselines import grid_boxes, random_boxes
from socodet.proposals.filters import distinct, object_sized
from socodet.proposals.selective_search.search import STRATEGIES, selective_search
from socodet.proposals.settings import Method, ProposalSettings
from socodet.runtime.extensions import find, is_extension
from socodet.runtime.kernel_cache import announce_compilation


def propose_boxes(
    image: NDArray[np.uint8],
    settings: ProposalSettings,
    rng: np.random.Generator | None = None,
    name: str = "an image",
) -> NDArray[np.float32]:
    """Object proposals of an image (H, W, 3) uint8 RGB: (N, 4) float32, N may be 0.

    xyxy in pixels of the image, exclusive right and bottom, 0 <= x1 < x2 <= W; filtered by `settings`, without near
    duplicates. `rng` is for random boxes and the user's functions; by default it is seeded with `settings.seed`.
    InputError, with the image's `name`, when such a function raises anything or returns no boxes.
    """
    compile_kernels(settings.method)
    return _kept_boxes(image, settings, rng, name)


@cache
def compile_kernels(method: Method) -> None:
    """Compiles the kernels, or loads them from the disk, by running them on a tiny image."""
    image = (np.arange(16 * 16 * 3) * 37 % 251).astype(np.uint8).reshape(16, 16, 3)
    with announce_compilation("selective search"):
        _kept_boxes(image, ProposalSettings("grid" if is_extension(method) else method, work_size=16), None, "")


def _kept_boxes(
    image: NDArray[np.uint8], settings: ProposalSettings, rng: np.random.Generator | None, name: str
) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    rng = np.random.default_rng(settings.seed) if rng is None else rng
    match settings.method:
        case "random":
            boxes = random_boxes(width, height, settings, rng)
        case "grid":
            boxes = grid_boxes(width, height, settings)
        case own if is_extension(own):
            boxes = _custom_boxes(own, image, rng, name)
        case strategy:
            boxes = selective_search(image, STRATEGIES[strategy], settings.work_size)
    boxes = boxes[object_sized(boxes, width, height, settings)]
    return distinct(boxes, settings.max_overlap)


def _custom_boxes(function: str, image: NDArray[np.uint8], rng: np.random.Generator, name: str) -> NDArray[np.float32]:
    """The boxes that the user's function returns, clipped. InputError if it raises anything or returns no boxes."""
    own = find(function)
    try:
        found = own(image, rng)
        boxes = np.asarray(found, np.float32)
    except Exception as error:  # whatever the user's function raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{function}: fails on {name} ({why}); correct the function") from error
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise InputError(
            f"{function}: gives {boxes.shape} for {name}; it must give finite boxes (N, 4), xyxy in pixels of the image"
        )
    height, width = image.shape[:2]
    if problem := other_coordinates(boxes, width, height):
        raise InputError(f"{function}: {problem.format(name)}")
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def other_coordinates(boxes: NDArray[np.float32], width: int, height: int) -> str | None:
    """What shows that the user's boxes (N, 4) are not xyxy in pixels of an image, with {} for its name.

    A negative width or height, as of xywh; or that all of them lie outside, or within its first pixel, as shares do.
    """
    negative = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    inside = ((boxes[:, 2:] > 0) & (boxes[:, :2] < (width, height))).all(axis=1)
    if not len(boxes) or not (negative.any() or not inside.any() or boxes.max() <= 1):
        return None
    box = ", ".join(f"{one:g}" for one in boxes[np.argmax(negative)])
    return f"gives the box ({box}) for {{}}, which is {width}x{height}; a box must be x1, y1, x2, y2 in pixels"


def image_rng(seed: int, key: str) -> np.random.Generator:
    """A generator of its own for each image, so that its boxes do not depend on other images."""
    return np.random.default_rng([seed, *hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()])


@dataclass(frozen=True)
class OnlineProposals:
    """Makes boxes when an image is sampled, in place of a table: the same as in a table with these settings."""

    settings: ProposalSettings
    reading: PixelReading = PLAIN
    """As in `decode_image`."""

    def __post_init__(self) -> None:
        if not isinstance(self.settings, ProposalSettings):
            what = type(self.settings).__name__
            raise ArgumentError(f"OnlineProposals: settings must be a recipe's .proposals, not of type {what}")

    def look_up(self, key: str, data: bytes) -> tuple[int, NDArray[np.float32]]:
        """The width of an encoded image, pixels, and its proposals (N, 4) xyxy. UnreadableImageError."""
        image = decode_image(data, reading=self.reading)  # at full size, as for a table, even if the views are small
        return image.shape[1], propose_boxes(image, self.settings, image_rng(self.settings.seed, key), key)
