"""Which files are images, by the ending of their names; and what is said of those that may be and are not read."""

import posixpath
from collections import Counter
from dataclasses import dataclass, field

from socodet.errors import InputError
from socodet.runtime.notices import notice

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif")
UNREAD = frozenset(
    ".heic .heif .avif .jxl .jp2 .j2k .jpx .psd .svg .tga .ppm .pgm .pbm .pnm .exr .hdr .ico .pcx .dcm .nii "  # noqa: SIM905
    ".dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .raw".split()
)
"""Formats of images that cannot be read."""
_OTHER = frozenset(
    ".txt .md .rst .json .jsonl .xml .csv .tsv .yaml .yml .toml .ini .cfg .log .html .pdf .url .license .names .data "  # noqa: SIM905
    ".tar .zip .gz .tgz .bz2 .xz .7z .rar .parquet .arrow .npy .npz .mat .pkl .pt .pth .safetensors .h5 .hdf5 .db "
    ".lmdb .tfrecord .index .idx .py .ipynb .sh .bat .mp4 .avi .mov .mkv .webm .wav .mp3 .ds_store".split()
)
"""Files that lie among images and are none."""
_NAMES = frozenset({"license", "licence", "readme", "makefile", "copying", "authors", "notice", "version"})
_NEARLY_ALL = 20
"""With so many files skipped for one that is read, the folder is not what it was taken for."""


@dataclass
class Skipped:
    """Files that may be images and are not read because of the ending of their names."""

    endings: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, name: str) -> None:
        """Counts a file unless it is certainly no image."""
        ending = posixpath.splitext(name)[1].lower()
        if ending not in _OTHER and posixpath.basename(name).lower() not in _NAMES:
            self.endings[ending] += 1
            self.first = min(self.first or name, name)

    def say(self, location: str, images: int) -> None:
        """A word on stderr; InputError when nearly all files are skipped."""
        count = self.endings.total()
        if not count:
            return
        kinds = ", ".join(f"{number:,} {ending or 'without one'}" for ending, number in self.endings.most_common())
        what = f"{count:,} files by the ending of their names: {kinds} (first: {self.first})"
        if count >= _NEARLY_ALL * images:
            raise InputError(
                f"{location}: {images:,} images, and skipped {what}; convert or rename these, or list the images that "
                "are meant in a text file"
            )
        notice(f"{location}: skipped {what}; images end in {' '.join(SUFFIXES)}")
