"""What `predict` has found: one line of JSON per image, kept on disk because it may not all fit into memory."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from socodet.detection.scores.predicted import JSON, LINES, whole_lines
from socodet.images.source import ImageSource, version_of
from socodet.runtime.counted import counted
from socodet.runtime.files import GrowingFile, JsonList, atomic_file
from socodet.runtime.notices import log_if_slow, log_note
from socodet.runtime.progress import progress_bar

CSV = "predictions.csv"
COLUMNS = ("file_name", "label", "score", "x1", "y1", "x2", "y2")
SUREST = 3
"""Number of images remembered for having the detections with the highest scores."""
MANY = 10_000
"""Number of images from which writing the results shows a progress bar."""
TOGETHER = 1000
"""Number of detections written at once."""


class DetectionLines:
    """The lines of an output folder, looked up by image, and their totals."""

    def __init__(self, folder: Path, source: ImageSource) -> None:
        self.file, self._source = folder / LINES, source
        self._starts = np.full(len(source), -1, np.int64)
        self._end = 0
        self.detections = 0
        self.of_classes: Counter[str] = Counter()
        self.drawn_apart: dict[str, str] = {}
        """Name of each drawing that is not called like its image, by the image's key."""
        self._unreadable: dict[int, tuple[str, str]] = {}
        self._surest: list[tuple[float, int]] = []

    @classmethod
    def of_earlier_calls(cls, folder: Path, source: ImageSource) -> "DetectionLines":
        """The lines of images already processed, except those whose files have changed since. Writes nothing.

        Images that could not be read count as not processed, because a package or a permission may have been missing.
        A line truncated by a crash, and everything after it, is ignored.
        """
        found = cls(folder, source)
        if not found.file.is_file():
            return found
        changed: list[str] = []
        index_of = {source.key(index): index for index in range(len(source))}
        with log_if_slow(f"{found.file}: comparing the images that are done with their files"):
            for start, line in whole_lines(found.file):
                index = index_of.get(line["file_name"], -1)
                if index < 0 or found._starts[index] >= 0 or "unreadable" in line:
                    continue
                if version_of(source, index) not in (line.get("version"), None):
                    changed.append(line["file_name"])
                    continue
                found._starts[index] = start
                found._count(index, line)
        if changed:
            about = f"{counted(len(changed), 'image')} changed since the last call (first: {changed[0]})"
            log_note(f"{folder}: {about}; repeating them")
        return found

    @property
    def left(self) -> list[int]:
        """Indices of the images still to be processed."""
        missing: list[int] = np.flatnonzero(self._starts < 0).tolist()
        return missing

    @property
    def done(self) -> int:
        """Number of images already processed."""
        return int((self._starts >= 0).sum())

    @property
    def unreadable(self) -> tuple[tuple[str, str], ...]:
        """Name of each image that could not be read, and why."""
        return tuple(self._unreadable[index] for index in sorted(self._unreadable))

    @property
    def highest_scoring(self) -> list[str]:
        """Names of the images with the highest-scoring detections."""
        return [self._source.key(index) for _, index in self._surest]

    @property
    def highest_score(self) -> float | None:
        """The highest score of all detections; None without any."""
        return -self._surest[0][0] if self._surest else None

    def begin(self) -> GrowingFile:
        """Rewrites the file with only the valid lines, and opens it for `add`."""
        done = self._in_file()
        starts = self._starts[done].tolist()
        with atomic_file(self.file) as file:
            self._end = 0
            pieces = self._texts(starts)
            for index, text in zip(done.tolist(), pieces, strict=True):
                self._starts[index] = self._end
                self._end += file.write(text)
        return GrowingFile(self.file)

    def add(self, file: GrowingFile, index: int, line: dict[str, Any]) -> None:
        """Writes the line of an image. Raises OSError like `GrowingFile.append`."""
        text = json.dumps(line).encode() + b"\n"
        file.append(text)
        self._starts[index] = self._end
        self._end += len(text)
        self._count(index, line)

    def write_results(self, ids: Sequence[int | str], *, show_progress: bool = False) -> None:
        """Writes the two result files, with the detections of all images in their order and with their ids.

        The lines are kept, so that repeating the call finds everything done.
        """
        folder, show = self.file.parent, show_progress and len(ids) >= MANY
        with (
            progress_bar("write predictions", len(ids), show=show) as progress,
            atomic_file(folder / JSON) as entries_file,
            atomic_file(folder / CSV) as table_file,
        ):
            entries = JsonList(entries_file)
            table_file.write(_rows([COLUMNS]))
            for image_id, text in zip(ids, self._texts(self._starts.tolist()), strict=True):
                line = json.loads(text)
                about = {"image_id": image_id, "file_name": line["file_name"]}
                objects = iter(line.get("objects", ()))
                while some := [about | one for one in islice(objects, TOGETHER)]:
                    entries.write(some)
                    table_file.write(_rows(map(_row, some)))
                progress.advance()
            entries.end()
            entries_file.write(b"\n")

    def _count(self, index: int, line: dict[str, Any]) -> None:
        if "unreadable" in line:
            self._unreadable[index] = line["file_name"], line["unreadable"]
        if "drawn" in line:
            self.drawn_apart[line["file_name"]] = str(line["drawn"])
        objects = line.get("objects", ())
        self.detections += len(objects)
        self.of_classes.update(one["category"] for one in objects)
        if objects:
            highest = max(one["score"] for one in objects)
            self._surest = sorted([*self._surest, (-highest, index)])[:SUREST]

    def _in_file(self) -> NDArray[np.int64]:
        """The processed images, in the order of their lines."""
        done = np.flatnonzero(self._starts >= 0)
        return done[np.argsort(self._starts[done])]

    def _texts(self, starts: Sequence[int]) -> Iterator[bytes]:
        """The lines that begin at these byte offsets of the file."""
        if not starts:
            return
        with self.file.open("rb") as file:
            at = 0
            for start in starts:
                if start != at:
                    file.seek(start)
                text = file.readline()
                at = start + len(text)
                yield text


class VersionedImages(Sequence[int]):
    """Images to be read. The version of each file is noted before it is read, so the pixels are never older than it."""

    def __init__(self, indices: Sequence[int], source: ImageSource) -> None:
        self._indices, self._source = indices, source
        self._versions: dict[int, list[int] | None] = {}

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, places: int) -> int: ...

    @overload
    def __getitem__(self, places: slice) -> Sequence[int]: ...

    def __getitem__(self, places: int | slice) -> int | Sequence[int]:
        taken = self._indices[places]
        for index in [taken] if isinstance(taken, int) else taken:
            self._versions[index] = version_of(self._source, index)
        return taken

    def version(self, index: int) -> list[int] | None:
        """The version noted for an image; can be asked only once."""
        return self._versions.pop(index)


def names_in(folder: Path) -> Iterator[str]:
    """Names of the images that have a line in the folder."""
    if (folder / LINES).is_file():
        yield from (line["file_name"] for _, line in whole_lines(folder / LINES))


def _row(one: dict[str, Any]) -> list[str]:
    x, y, w, h = one["bbox"]
    corners = (f"{side:.2f}" for side in (x, y, x + w, y + h))
    return [one["file_name"], one["category"], f"{one['score']:.4f}", *corners]


def _rows(rows: Any) -> bytes:
    with io.StringIO(newline="") as table:
        csv.writer(table).writerows(rows)
        return table.getvalue().encode(errors="surrogateescape")
