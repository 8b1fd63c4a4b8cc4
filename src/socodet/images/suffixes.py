"""Which files are images, by their suffix; and a note about those that may be images and are not read."""

import posixpath
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec

from PIL import features

from socodet.errors import InputError
from socodet.runtime.counted import counted
from socodet.runtime.notices import notice

_HEIF = (".heic", ".heif", ".hif")
HEIF_SUFFIXES = _HEIF if find_spec("pillow_heif") else ()
AVIF_SUFFIXES = (".avif",) if features.check("avif") else ()
JPEG_2000_SUFFIXES = (".jp2", ".j2k", ".jpx", ".j2c") if features.check("jpg_2000") else ()
"""Endings of formats that only some installations read."""
INSTALL_HEIF = "pip install 'socodet[heif]' reads them"
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", *JPEG_2000_SUFFIXES, *AVIF_SUFFIXES, *HEIF_SUFFIXES),
)
UNREAD = frozenset(
    ".heic .heif .hif .avif .jxl .jp2 .j2k .jpx .j2c .psd .svg .tga .exr .hdr .ico .pcx .dcm .nii "  # noqa: SIM905
    ".dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .raw".split()
) - frozenset(SUFFIXES)
"""Formats of images that cannot be read."""
_OTHER = frozenset(
    ".txt .md .rst .json .jsonl .xml .csv .tsv .yaml .yml .toml .ini .cfg .log .html .pdf .url .license .names .data "  # noqa: SIM905
    ".tar .zip .gz .tgz .bz2 .xz .7z .rar .parquet .arrow .npy .npz .mat .pkl .pt .pth .safetensors .h5 .hdf5 .db "
    ".lmdb .tfrecord .index .idx .py .ipynb .sh .bat .mp4 .avi .mov .mkv .webm .wav .mp3 .ds_store".split()
)
"""Files that are often found among images and are not images."""
_NAMES = frozenset({"license", "licence", "readme", "makefile", "copying", "authors", "notice", "version"})
_NEARLY_ALL = 20
"""With this many files skipped for each one that is read, it is probably the wrong folder."""


@dataclass
class Skipped:
    """Files that may be images but are not read because of their suffix, and folders with results of socodet."""

    endings: Counter[str] = field(default_factory=Counter)
    first: str = ""
    results: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Counts a file unless it is certainly not an image."""
        ending = posixpath.splitext(name)[1].lower()
        if ending not in _OTHER and posixpath.basename(name).lower() not in _NAMES:
            self.endings[ending] += 1
            self.first = min(self.first or name, name)

    def report_results(self, location: str) -> None:
        """A note on stderr about folders with results of socodet."""
        if self.results:
            folders = counted(len(self.results), "folder")
            notice(f"{location}: skipped {folders} with results of socodet (first: {min(self.results)})")

    def report(self, location: str, images: int) -> None:
        """A note on stderr about files; InputError if nearly all were skipped."""
        count = self.endings.total()
        if not count:
            return
        heif = sum(self.endings[ending] for ending in (*_HEIF, ".avif"))
        fix = f"; {INSTALL_HEIF}, {heif:,} of them" if heif else ""
        suffixes = ", ".join(f"{number:,} {ending or 'without one'}" for ending, number in self.endings.most_common())
        what = f"{count:,} files by their suffix: {suffixes} (first: {self.first})"
        if count >= _NEARLY_ALL * images:
            raise InputError(
                f"{location}: {images:,} images, and skipped {what}{fix}; convert or rename these, or list the images "
                "that are meant in a text file"
            )
        notice(f"{location}: skipped {what}{fix}; images end in {' '.join(SUFFIXES)}")
