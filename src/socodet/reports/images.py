"""The images that a report shows, with their proposals, either a run's or others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from socodet.errors import InputError, UnreadableImageError
from socodet.images.reading import read_images_like
from socodet.images.source import ImageSource, digest_names, open_images, read_pixels
from socodet.pretraining.preparation import file_digest, reopen_images, sample_images
from socodet.proposals.image_boxes import image_rng, propose_boxes
from socodet.proposals.settings import ONLINE, ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.reports.runs import RunRecord

LONGEST_SIDE = 640
"""Larger images are shrunk to this many pixels, because a report may hold many and shows none of them larger."""

Boxes = NDArray[np.float32]
Proposer = Callable[[str, NDArray[np.uint8]], Boxes]
"""Returns an image's proposals (N, 4), xyxy in pixels, given its key and pixels (H, W, 3)."""


@dataclass(frozen=True)
class ShownImage:
    """An image with its proposals."""

    index: int
    """The image's index in the source."""
    key: str
    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    boxes: Boxes
    """(N, 4) xyxy in pixels; N may be 0."""

    @property
    def name(self) -> str:
        """The key; if that is an absolute path, its last part."""
        return Path(self.key).name if Path(self.key).is_absolute() else self.key


def readable_images(source: ImageSource, seed: int = 0) -> Iterator[tuple[int, str, NDArray[np.uint8]]]:
    """Index, key and pixels (H, W, 3) of every readable image, in an order shuffled by `seed`."""
    for index in np.random.default_rng(seed).permutation(len(source)).tolist():
        try:
            pixels = read_pixels(source, index)
        except (UnreadableImageError, OSError):
            continue
        yield index, source.key(index), pixels


def shown_images(source: ImageSource, proposer: Proposer, limit: int) -> list[ShownImage]:
    """Up to `limit` readable images. Raises InputError when there is none."""
    shown = [
        _shrink(index, key, pixels, proposer(key, pixels))
        for index, key, pixels in islice(readable_images(source), limit)
    ]
    if not shown:
        raise none_readable(source)
    return shown


def none_readable(source: ImageSource) -> InputError:
    """The error to raise when no image of the source can be read."""
    return InputError(f"{source.location}: none of its images can be read; check the files")


def _shrink(index: int, key: str, pixels: NDArray[np.uint8], boxes: Boxes) -> ShownImage:
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        size = max(1, round(width * LONGEST_SIDE / longest)), max(1, round(height * LONGEST_SIDE / longest))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        boxes = boxes * np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return ShownImage(index, key, pixels, boxes)


def medium_box(boxes: Boxes, height: int, width: int) -> int:
    """Index of the box whose size is nearest to half the image's: large enough to see, but not the whole image."""
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / (height * width))
    return int(np.abs(sides - 0.5).argmin())


def open_run_images(trained: Sequence[RunRecord], images: str | Path | None) -> tuple[ImageSource | None, str | None]:
    """The images of the first run, or `images` if given; None and the reason when they no longer exist."""
    first = trained[0].description
    location = first["location"] if images is None else images
    try:
        if images is None:
            source = reopen_images(first)
        else:
            with read_images_like(trained[0].folder.pixel_reading()):
                source = open_images(location)
    except InputError:
        if images is not None:
            raise
        return None, (
            f"The images are no longer at {location}, where {trained[0].name} had them, so every figure that needs "
            "them is left out; give --images DIR if they have moved"
        )
    count = first["images"]["count"]
    if count < len(source):
        some = sample_images(source, count, first["recipe"]["training"]["seed"])
        source = some if digest_names(some) == first["images"]["names_sha256"] else source
    return source, None


def proposer_of(record: RunRecord, source: ImageSource) -> Proposer:
    """The run's proposals: from its table if that is of these images, otherwise made with its settings."""
    path = _table_path(record)
    if path is not None and _holds_proposals_of(record, path) and trained_on(record, source):
        table = ProposalTable.read(path)
        return lambda key, pixels: table.boxes(key)
    settings = record.settings(ProposalSettings, "proposals")
    return lambda key, pixels: propose_boxes(pixels, settings, image_rng(settings.seed, key), key)


def notes_on_images(record: RunRecord, source: ImageSource) -> list[str]:
    """A one-line note if the images or boxes shown are not those that the run was trained on."""
    path, method = _table_path(record), record.description["recipe"]["proposals"]["method"]
    if not trained_on(record, source):
        return [f"{record.name} was trained on different images; the boxes are new {method} proposals"]
    if path is not None and not _holds_proposals_of(record, path):
        return [f"{record.name}'s proposals are no longer at {path}; the boxes are new {method} proposals"]
    return []


def _table_path(record: RunRecord) -> Path | None:
    """The path of a run's proposal table; None if proposals are made during training."""
    given = record.description["proposals"]
    if given == ONLINE:
        return None
    return record.folder.proposals if given is None else Path(given)


def _holds_proposals_of(record: RunRecord, path: Path) -> bool:
    """Whether a run's proposals are still there; the table it was given may have been replaced since."""
    given = record.description.get("table")
    return path.is_file() and (not isinstance(given, dict) or file_digest(path) == given.get("sha256"))


def trained_on(record: RunRecord, source: ImageSource) -> bool:
    """Whether these are the run's images, judged by their names."""
    return digest_names(source) == str(record.description["images"]["names_sha256"])
