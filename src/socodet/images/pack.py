"""`socodet pack`: shrinks images once, into tar shards that are read sequentially."""

import errno
import io
import json
import os
import platform
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import simplejpeg
from PIL import Image

from socodet._version import __version__
from socodet.errors import InputError, UnreadableImageError, none_readable
from socodet.images.decode import JPEG, decode_image, image_size
from socodet.images.names import inner_path
from socodet.images.reading import PixelReading, PixelSettings, read_images_as
from socodet.images.source import Images, ImageSource, as_source, digest_names, digest_sizes, read_encoded, reading_of
from socodet.images.suffixes import SUFFIXES
from socodet.images.truncated import TRUNCATED, is_truncated
from socodet.runtime.counted import counted
from socodet.runtime.files import atomic_file, create_folder, link_target, resolve_path, write_atomically
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.limits import available_cores
from socodet.runtime.notices import log_if_slow
from socodet.runtime.progress import ProgressBar, progress_bar
from socodet.runtime.settings import PositiveFloat, PositiveInt, Range, Settings
from socodet.runtime.shown import Shown
from socodet.runtime.threads import map_in_order

RECORD = "pack.json"
LARGEST = 2**31
LONGEST_JPEG_SIDE = 65_500


@dataclass(frozen=True)
class PackSettings(Settings):
    """Size and encoding of packed images; `socodet pack --help-all` explains each field."""

    size: PositiveInt = 288
    """Shorter side, in pixels, to which larger images are scaled down; smaller ones stay as they are."""
    quality: Annotated[int, Range(1, 100)] = 90
    """JPEG quality of images that are re-encoded, 1 to 100."""
    value_range: PositiveFloat | None = None
    """Value of white in images with more than 8 bits or floating-point pixels, as for
    `socodet pretrain`."""
    bands: tuple[PositiveInt, ...] | None = None
    """Which bands to read as red, green and blue, counted from 1; or a single band to read as grey."""
    max_pixels: PositiveInt = LARGEST
    """Images with more pixels are skipped as unreadable. Large JPEGs are decoded at reduced size; other large images
    briefly need much memory."""
    shard_images: PositiveInt = 1000
    """Images per shard."""


@dataclass(frozen=True)
class PackSummary(Shown):
    """What `pack` did."""

    output: Path
    images: int
    """Images in the shards."""
    copied: int
    """Of these, small JPEGs that were copied byte for byte."""
    shards: int
    bytes: int
    """Size of all shards together."""
    unreadable: tuple[tuple[str, str], ...]
    """Key and reason of each image that could not be read and was left out."""
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.output}: {counted(self.images, 'image')} ({self.copied:,} unchanged) in "
            f"{counted(self.shards, 'shard')}, {self.bytes / 1e6:.1f} MB, in {self.seconds:.1f} s"
        )


@dataclass(frozen=True)
class _Packed:
    data: bytes
    copied: bool


@releases_folder_locks
def pack(
    images: Images,
    output: str | Path,
    *,
    settings: PackSettings = PackSettings(),
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> PackSummary:
    """Shrinks all images into tar shards, in a folder that `open_images` opens.

    An image is decoded upright, scaled down with antialiasing until its shorter side has `settings.size` pixels,
    and encoded as JPEG. A JPEG that is small enough already is copied as it is. Images keep their order and their
    keys, which are their names in the tar, without a leading `/` or `..`. A key without an image suffix gets `.jpg`
    appended. A PNG keeps its name, although its content becomes a JPEG.

    `workers` images are processed at once; by default as many as there are cores. Finished shards are kept beside the
    output, in a hidden folder, until all are done. After an interruption the same call resumes from them, but makes a
    shard again if the file size of one of its images has changed; a call with other settings or images leaves them
    untouched. The shards' bytes depend neither on the workers nor on interruptions. `pack.json` in the output holds the
    settings, counts, and unreadable images.

    InputError if there are no images or none can be read, if two would have one name in a shard, if another process
    packs the same, or if `output` cannot be written, or exists and `overwrite` is false. Only folders that `pack` wrote
    are ever overwritten.
    """
    start = time.monotonic()
    with read_images_as(PixelSettings(settings.value_range, settings.bands, settings.max_pixels)):
        source = as_source(images)
    output = resolve_path(output)
    _check_output(output, overwrite=overwrite)
    output = link_target(output)
    _check_names(source)
    work = output.with_name(f".{output.name}.{_job_digest(source, settings)}.parts")
    shards = work / "shards"
    try:
        lock_folder(work, output)
        for left in work.glob(f"unfinished.{platform.node()}.*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        with create_folder(shards):
            with progress_bar("pack", len(source), show=show_progress) as bar:
                notes = _make_shards(source, settings, work, workers or available_cores(), bar)
            TRUNCATED.report()
            record: dict[str, Any] = {
                "version": __version__,
                "settings": asdict(settings),
                "location": source.location,
                "images": sum(note["images"] for note in notes),
                "copied": sum(note["copied"] for note in notes),
                "shards": len(notes),
                "bytes": sum(note["bytes"] for note in notes),
                "unreadable": [pair for note in notes for pair in note["unreadable"]],
            }
            if not record["images"]:
                shutil.rmtree(work)  # the files may be repaired
                raise none_readable(f"{source.location}: none of its {len(source)} images", record["unreadable"][0])
            write_atomically(shards / RECORD, json.dumps(record, indent=1).encode())
            _check_output(output, overwrite=overwrite)  # another job may have made it meanwhile
            if output.is_dir():
                os.replace(output, work / "replaced")
            os.replace(shards, output)
            shutil.rmtree(work)
    except OSError as error:
        raise InputError(
            f"{output}: cannot be written ({error.strerror or error}); fix that, and the same call resumes"
        ) from None
    images_packed, copied, count, size = (record[field] for field in ("images", "copied", "shards", "bytes"))
    unreadable = tuple((key, why) for key, why in record["unreadable"])
    return PackSummary(output, images_packed, copied, count, size, unreadable, time.monotonic() - start)


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        content = os.listdir(output)
        if content and RECORD not in content:
            raise InputError(f"{output}: exists and is not a folder of packed images; give another output")
        if content and not overwrite:
            raise InputError(f"{output}: exists; give another --output or pass --overwrite")
    elif output.exists():
        raise InputError(f"{output}: is a file; give a folder for the shards")


def _check_names(source: ImageSource) -> None:
    names: set[str] = set()
    for key in map(source.key, range(len(source))):
        name = _name(key)
        if name in names:
            other = next(one for one in map(source.key, range(len(source))) if _name(one) == name)
            raise InputError(f"{source.location}: has both {other} and {key}, one name in a shard; rename one")
        names.add(name)


def _name(key: str) -> str:
    """The name of an image in its shard."""
    name = inner_path(key)
    return name if name.lower().endswith(SUFFIXES) else f"{name}.jpg"


def _job_digest(source: ImageSource, settings: PackSettings) -> str:
    """Identifies a job: finished shards are reused only for the same images, settings and version."""
    return digest_names(source, json.dumps([__version__, source.location, asdict(settings)]).encode())[:12]


def _make_shards(
    source: ImageSource, settings: PackSettings, work: Path, workers: int, bar: ProgressBar
) -> list[dict[str, Any]]:
    """Makes the missing shards; returns the notes of all, in order."""
    firsts = range(0, len(source), settings.shard_images)
    images = [range(first, min(first + settings.shard_images, len(source))) for first in firsts]
    shards = [work / "shards" / f"shard-{number:06d}.tar" for number in range(len(images))]
    with log_if_slow(f"{work}: comparing what is finished with the image files"):
        notes = [_finished(shard, work, source, indices) for shard, indices in zip(shards, images, strict=True)]
    to_pack = (index for indices, note in zip(images, notes, strict=True) if note is None for index in indices)
    packed = map_in_order(lambda index: _pack_one(source, index, settings), to_pack, workers, source.key)
    with closing(packed):
        for number, shard in enumerate(shards):
            note = notes[number]
            if note is None:
                sizes = digest_sizes(source, images[number])
                note = _write_shard(source, shard, islice(packed, len(images[number])), bar) | {"sizes": sizes}
                notes[number] = note
                write_atomically(_note_path(shard, work), json.dumps(note).encode())
            else:
                bar.done_earlier(len(images[number]))
    return [note for note in notes if note is not None]


def _note_path(shard: Path, work: Path) -> Path:
    return work / f"{shard.stem}.json"


def _finished(shard: Path, work: Path, source: ImageSource, indices: range) -> dict[str, Any] | None:
    """The note of a shard that an earlier call finished, unless one of its images has been replaced since.

    It is written after the shard, so the shard is complete.
    """
    with suppress(OSError, ValueError, KeyError):
        note: dict[str, Any] = json.loads(_note_path(shard, work).read_bytes())
        if shard.stat().st_size == note["bytes"] and note["sizes"] == digest_sizes(source, indices):
            return note
    return None


def _write_shard(
    source: ImageSource, shard: Path, packed: Iterable[tuple[int, _Packed | str]], bar: ProgressBar
) -> dict[str, Any]:
    """Writes packed images into a shard; returns its note, with those that could not be read."""
    images = copied = 0
    unreadable = []
    # a unique name, in case folders cannot be locked
    unfinished = shard.parent.with_name(f"unfinished.{platform.node()}.{os.getpid()}")
    with atomic_file(shard, unfinished) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
            for index, image in packed:
                if isinstance(image, str):
                    unreadable.append([source.key(index), image])
                else:
                    # without date and owner: the same bytes for everyone
                    member = tarfile.TarInfo(_name(source.key(index)))
                    member.size = len(image.data)
                    tar.addfile(member, io.BytesIO(image.data))
                    images += 1
                    copied += image.copied
                bar.advance()
        size = file.tell()
        if unfinished.stat().st_size != size:
            raise OSError(errno.EIO, "changed while it was written", str(shard))
    return {"images": images, "copied": copied, "bytes": size, "unreadable": unreadable}


def _pack_one(source: ImageSource, index: int, settings: PackSettings) -> _Packed | str:
    try:
        reading = _reading(source, settings)
        return _small(
            read_encoded(source, index, settings.max_pixels),
            settings,
            reading,
            lambda: TRUNCATED.add(source.key(index)),
        )
    except (UnreadableImageError, OSError) as error:
        return str(error)


def _reading(source: ImageSource, settings: PackSettings) -> PixelReading:
    asked = PixelSettings(settings.value_range, settings.bands, settings.max_pixels)
    return replace(reading_of(source).with_settings(asked), max_pixels=settings.max_pixels)


def _small(data: bytes, settings: PackSettings, reading: PixelReading, on_truncated: Callable[[], None]) -> _Packed:
    # Decoding at twice the target size or more loses nothing that scaling down would keep.
    pixels = decode_image(data, 2 * settings.size, reading, on_truncated)
    jpeg = data.startswith(JPEG)
    width, height = image_size(data, settings.max_pixels) if jpeg else (pixels.shape[1], pixels.shape[0])
    shorter = min(width, height)
    if jpeg and shorter <= settings.size and reading.bands is None and not is_truncated(data):
        return _Packed(data, copied=True)
    if shorter > settings.size:
        scaled = max(1, round(width * settings.size / shorter)), max(1, round(height * settings.size / shorter))
        part = round(width / pixels.shape[1])
        # The last row and column of an image decoded at 1/part may cover fewer pixels than the others.
        content = (0, 0, width / part, height / part)
        pixels = np.array(Image.fromarray(pixels).resize(scaled, Image.Resampling.LANCZOS, content))
    if max(pixels.shape) > LONGEST_JPEG_SIDE:
        raise UnreadableImageError(f"{width}x{height} is too long for a JPEG; cut it")
    encoded: bytes = simplejpeg.encode_jpeg(pixels, settings.quality, "RGB", "420")
    return _Packed(encoded, copied=False)
