"""Image sources: anything with a length, and a unique key and encoded bytes for each image."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.cut_short import CUT_SHORT
from socodet.images.dataset_split import is_dataset, open_dataset
from socodet.images.decode import decode_image
from socodet.images.folder import ImageFolder, open_folder
from socodet.images.lists import open_coco, open_list
from socodet.images.shards import is_pattern, open_shards, shards_in, shards_matching
from socodet.images.suffixes import SUFFIXES
from socodet.images.value_range import FULL_RANGE, spread_over, white_of_set

__all__ = ["ImageFolder", "ImageSelection", "ImageSource", "open_images", "read_pixels", "white_of"]


class ImageSource(Protocol):
    """A fixed sequence of encoded images. Must be cheap to hand to data workers."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The name of image `index`: unique, and the same on every machine."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded bytes of image `index`; OSError if they cannot be read."""
        ...

    @property
    def location(self) -> str:
        """Where the images are, as shown to users."""
        ...


@dataclass(frozen=True)
class ImageSelection:
    """Some images of a source, in the order of `indices`, under the keys they have there."""

    source: ImageSource
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        """The key of the image in its source."""
        return self.source.key(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """The bytes of the image in its source."""
        return self.source.read(int(self.indices[index]))

    @property
    def location(self) -> str:
        """That of the source."""
        return self.source.location


@dataclass(frozen=True)
class NarrowRangeImages:
    """A source whose 16-bit images use fewer bits."""

    source: ImageSource
    white: int
    """Their value that is white."""

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        """The key of the image in its source."""
        return self.source.key(index)

    def read(self, index: int) -> bytes:
        """The bytes of the image in its source."""
        return self.source.read(index)

    @property
    def location(self) -> str:
        """That of the source."""
        return self.source.location


def white_of(source: ImageSource) -> int:
    """The value that is white in a source's 16-bit images."""
    if isinstance(source, ImageSelection):
        return white_of(source.source)
    return source.white if isinstance(source, NarrowRangeImages) else FULL_RANGE


def read_pixels(source: ImageSource, index: int, least_side: int | None = None) -> NDArray[np.uint8]:
    """`decode_image` of an image of a source: (H, W, 3) RGB. OSError or UnreadableImageError.

    One that is cut short is counted in `CUT_SHORT`.
    """
    return decode_image(
        source.read(index), least_side, white_of(source), on_cut=lambda: CUT_SHORT.add(source.key(index))
    )


def open_images(path: str | Path) -> ImageSource:
    """The images at `path`, in any of these forms.

    - a folder: every file below it that ends in one of `SUFFIXES`, as `folder.open_folder` says (ImageNet's and
      VOC's layouts need nothing else);
    - a folder that Hugging Face's `Dataset.save_to_disk` wrote (`dataset_split.py`);
    - a folder without images that holds .tar files, one .tar file, or a pattern of them such as
      `shards/train-{000000..000146}.tar` or `shards/*.tar` (`shards.py`);
    - a COCO file, .json (`lists.open_coco`);
    - any other file: a text file of image paths (`lists.open_list`).

    If a sample of the 16-bit images uses fewer bits, the range they use is scaled to 8 bits, with a note on stderr.
    InputError, in one line, for anything else, and if it cannot be read or holds no image.
    """
    source = _open(Path(path))
    sampled = spread_over(len(source))
    names = [source.key(index) for index in sampled]
    white = white_of_set(names, lambda place: source.read(sampled[place]), source.location)
    return source if white == FULL_RANGE else NarrowRangeImages(source, white)


def _open(given: Path) -> ImageSource:
    suffix = given.suffix.lower()
    if os.path.isdir(given):
        if is_dataset(given):
            return open_dataset(given)
        folder = open_folder(given)
        if folder is not None:
            return folder
        shards = shards_in(given)
        if shards:
            return open_shards(shards, str(given))
        raise InputError(
            f"{given}: no image in it or below it, and no .tar shard in it; images end in {' '.join(SUFFIXES)}"
        )
    if not os.path.isfile(given):
        if is_pattern(str(given)):
            return open_shards(shards_matching(str(given)), str(given))
        raise InputError(f"{given}: no such file or folder; give a folder of images, tar shards or a list of images")
    if suffix in SUFFIXES:
        raise InputError(f"{given}: is one image; give the folder that holds it, or a text file that lists images")
    if suffix == ".tar":
        return open_shards([given], str(given))
    if suffix == ".json":
        return open_coco(given)
    return open_list(given)
