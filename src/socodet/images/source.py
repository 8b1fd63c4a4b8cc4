"""Image sources: anything with a length, and a unique key and encoded bytes for each image."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.dataset_split import DatasetSplit, is_dataset, open_dataset
from socodet.images.decode import decode_image, image_size
from socodet.images.file_header import image_file_size, read_image_file
from socodet.images.folder import ImageFolder, holds_results, open_files, open_folder
from socodet.images.lists import open_coco, open_list
from socodet.images.patterns import files_matching, is_pattern
from socodet.images.reading import PLAIN, PixelReading, requested_reading
from socodet.images.shards import TarShards, open_shards, shards_in
from socodet.images.suffixes import SUFFIXES
from socodet.images.truncated import TRUNCATED
from socodet.images.value_range import evenly_spaced, reading_of_dataset
from socodet.runtime.notices import log_if_slow

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


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


Images = str | Path | Sequence[str | Path] | ImageSource
"""Images as the functions of `socodet` take them: what `open_images` opens, a list of image files, or a source."""


@dataclass(frozen=True)
class ImageSelection:
    """Some images of a source, or all, in the order of `indices`, under the source's keys."""

    source: ImageSource
    indices: Sequence[int]
    reading: PixelReading | None = None
    """How they are read; None means as in the source."""

    @property
    def is_part(self) -> bool:
        """Whether images were chosen, rather than all read in another way."""
        return self.reading is None

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
        """The location of the source."""
        return self.source.location


def reading_of(source: ImageSource) -> PixelReading:
    """How the images of a source are read."""
    if isinstance(source, ImageSelection):
        return source.reading or reading_of(source.source)
    return PLAIN


def image_ids(source: ImageSource) -> Sequence[int | str]:
    """The ids of a COCO file's images; for any other images, their numbers from 1."""
    if isinstance(source, ImageSelection):
        ids = image_ids(source.source)
        return [ids[index] for index in source.indices]
    if isinstance(source, ImageFolder) and source.ids is not None:
        return source.ids.tolist() if isinstance(source.ids, np.ndarray) else source.ids
    return range(1, len(source) + 1)


def version_of(source: ImageSource, index: int) -> list[int] | None:
    """Size of an image in bytes, and when its file, or what holds it, was last changed; None if gone or unknown."""
    if isinstance(source, ImageSelection):
        return version_of(source.source, int(source.indices[index]))
    if isinstance(source, TarShards):
        return [int(source.sizes[index]), int(source.modified[source.numbers[index]])]
    if isinstance(source, DatasetSplit):
        return source.version(index)
    if not isinstance(source, ImageFolder):
        return None
    try:
        facts = os.stat(source.path(index))
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def digest_sizes(source: ImageSource, indices: Sequence[int]) -> str:
    """Hash of the sizes of some images, which reveals most replacements. Unlike times, sizes survive a copy."""
    versions = [version_of(source, index) for index in indices]
    return hashlib.sha256(repr([version and version[0] for version in versions]).encode()).hexdigest()[:16]


def read_encoded(source: ImageSource, index: int, max_pixels: int | None = None) -> bytes:
    """The bytes of an image; `max_pixels` is by default what the source allows.

    OSError; TooManyPixelsError before a large file of more pixels is read.
    """
    if max_pixels is None:
        max_pixels = reading_of(source).max_pixels
    if isinstance(source, ImageSelection):
        return read_encoded(source.source, int(source.indices[index]), max_pixels)
    if isinstance(source, ImageFolder):
        return read_image_file(source.path(index), max_pixels)
    return source.read(index)


def size_of(source: ImageSource, index: int, max_pixels: int | None = None) -> tuple[int, int]:
    """`image_size` of an image, from a file's header if that is enough. OSError or UnreadableImageError."""
    if max_pixels is None:
        max_pixels = reading_of(source).max_pixels
    if isinstance(source, ImageSelection):
        return size_of(source.source, int(source.indices[index]), max_pixels)
    if isinstance(source, ImageFolder):
        return image_file_size(source.path(index), max_pixels)
    return image_size(source.read(index), max_pixels)


def read_pixels(source: ImageSource, index: int, least_side: int | None = None) -> NDArray[np.uint8]:
    """`decode_image` of an image of a source: (H, W, 3) RGB. OSError or UnreadableImageError.

    A truncated JPEG is counted in `TRUNCATED`.
    """
    return decode_image(
        read_encoded(source, index),
        least_side,
        reading_of(source),
        on_truncated=lambda: TRUNCATED.add(source.key(index)),
    )


def digest_names(source: ImageSource, asked: bytes = b"") -> str:
    """Hash of `asked` and the images' names in order: the same set in another place has the same digest."""
    digest = hashlib.sha256(asked)
    for index in range(len(source)):
        digest.update(source.key(index).encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def open_images(images: str | Path | Sequence[str | Path], reading: PixelReading | None = None) -> ImageSource:
    """Opens images that are given in any of these forms.

    - a folder: every file below it that ends in one of `SUFFIXES`, as `folder.open_folder` says (ImageNet's and
      VOC's layouts need nothing else);
    - a folder that Hugging Face's `Dataset.save_to_disk` wrote (`dataset_split.py`);
    - a folder without images that holds .tar files, one .tar file, or a pattern of them such as
      `shards/train-{000000..000146}.tar` or `shards/*.tar` (`shards.py`);
    - a pattern of image files, such as `photographs/**/*.jpg`;
    - a COCO file, .json (`lists.open_coco`);
    - any other file: a text file of image paths (`lists.open_list`);
    - a list of image files (`folder.open_files`).

    Images of more than 8 bits are scaled to 8; `value_range.reading_of_dataset` finds the range and prints it.
    `reading`: how they are read, if that is known already. InputError, in one line, for anything else, and if it
    cannot be read or holds no image.
    """
    if images == "":
        raise InputError("images: the path is empty; give a folder, a list of images or tar shards")
    if not isinstance(images, str | Path):
        return _apply_reading(open_files([Path(one) for one in images]), reading)
    with log_if_slow(f"{images}: listing its images"):
        source = _open(Path(images))
    return _apply_reading(source, reading)


def as_source(images: Images) -> ImageSource:
    """The images that a function was given: a source as it is, else as `open_images` opens it."""
    return open_images(images) if isinstance(images, str | Path | Sequence) else images


def open_image(path: str | Path) -> ImageSource:
    """One image file as a source, read as `open_images` says."""
    return _apply_reading(ImageFolder(Path(path).parent, [Path(path).name]), None)


def full_location(noted: str) -> str:
    """The location of its images that a run has noted. InputError for part of a path, all that a run from the Hub has.

    Such a part could be the name of another folder in the working directory.
    """
    if not os.path.isabs(noted):
        raise InputError(f"{noted}: is all that this run notes of where its images are; they are on another machine")
    return noted


def with_reading(source: ImageSource, reading: PixelReading) -> ImageSource:
    """The source, read as `reading` says; what that leaves open stays as before."""
    return _apply_reading(source, reading.filled_from(reading_of(source)))


def _apply_reading(source: ImageSource, reading: PixelReading | None) -> ImageSource:
    if reading is None:
        sampled = evenly_spaced(len(source))
        names, most = [source.key(index) for index in sampled], requested_reading().reading.max_pixels
        reading = reading_of_dataset(names, lambda place: read_encoded(source, sampled[place], most), source.location)
    return source if reading == PLAIN else ImageSelection(source, range(len(source)), reading)


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
        if holds_results(str(given), set(os.listdir(given))):
            raise InputError(f"{given}: socodet wrote this folder, which holds no images; give a folder of images")
        raise InputError(
            f"{given}: no image in it or below it, and no .tar shard in it; images end in {' '.join(SUFFIXES)}"
        )
    if not os.path.isfile(given):
        if is_pattern(str(given)):
            return _open_matching(str(given))
        raise InputError(f"{given}: no such file or folder; give a folder of images, tar shards or a list of images")
    if suffix in SUFFIXES:
        raise InputError(f"{given}: is one image; give the folder that holds it, or a text file that lists images")
    if suffix in ARCHIVES:
        raise InputError(
            f"{given}: is an archive; unpack it, and give the folder, or a .tar file that is not compressed"
        )
    if suffix == ".tar":
        return open_shards([given], str(given))
    if suffix in VIDEOS:
        raise InputError(
            f"{given}: is a video; save its frames as images, for example with ffmpeg, and give their folder"
        )
    if suffix in (".yaml", ".yml"):
        raise InputError(f"{given}: may describe a dataset, but lists no images; give the folder of its images")
    if suffix == ".json":
        return open_coco(given)
    return open_list(given)


def _open_matching(pattern: str) -> ImageSource:
    files = files_matching(pattern)
    other = next((file for file in files if file.suffix.lower() not in SUFFIXES), None)
    if other is None:
        return replace(open_files(files), named_in=Path(pattern))
    image = next((file for file in files if file.suffix.lower() in SUFFIXES), None)
    if image is not None:
        raise InputError(
            f"{pattern}: matches {other}, which is no image, and {image}; end the pattern in a suffix, as in *.jpg"
        )
    return open_shards(files, pattern)
