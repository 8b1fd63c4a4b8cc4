"""Imports other programs' proposals into a proposal table: matches their names with the images and filters them."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.names import inner_path
from socodet.images.source import Images, ImageSource, as_source, size_of
from socodet.proposals.filters import distinct, object_sized
from socodet.proposals.foreign_formats import ForeignProposals, read_foreign
from socodet.proposals.make_table import ProposalSummary, check_workers
from socodet.proposals.part_files import ROW_GROUP
from socodet.proposals.settings import BoxForm, ProposalSettings
from socodet.proposals.table import Origin, Row, as_text, rows_to_arrow, table_schema
from socodet.runtime.files import atomic_file, check_output_file, create_folder, link_target
from socodet.runtime.limits import available_cores
from socodet.runtime.notices import notice
from socodet.runtime.progress import progress_bar
from socodet.runtime.threads import map_in_order

NONE = np.empty((0, 4), np.float32)
SLACK = 1.0
"""Pixels by which a box may reach outside its image: some programs give the last pixel, some the edge after it."""
MANY, MOST = 0.05, 0.25
"""If over the first share of boxes lies outside the images, the form is wrong if the other one fits much better; if
over the second share does, these are the wrong images."""


@dataclass(frozen=True)
class ConversionSummary(ProposalSummary):
    """What `convert_proposals` did."""

    given: int
    """Boxes in the file for these images."""
    outside: int
    """Of these, empty boxes, and boxes that were clipped because they reached outside their image by over a pixel."""
    without: int
    """Images without a box in the file."""
    size_mismatch: int
    """Images whose size differs from that in the file; their boxes were left out."""
    unknown: tuple[str, ...]
    """Names in the file that match no image."""

    def __str__(self) -> str:
        return (
            f"{super().__str__()}\nfrom {self.given} boxes in the file, {self.outside} of them outside their image or "
            f"empty; {self.without} images have none"
        )


def convert_proposals(
    images: Images,
    proposals: str | Path,
    output: str | Path,
    *,
    settings: ProposalSettings = ProposalSettings(),
    keep_all: bool = False,
    coco_images: str | Path | None = None,
    form: BoxForm | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> ConversionSummary:
    """Writes proposals made elsewhere, in one of the formats of `foreign_formats.py`, as the proposal table `output`.

    Boxes are clipped to their image and, unless `keep_all`, filtered by `settings`, which are not used otherwise.
    Names in the file are image keys or file names, with or without suffix, all in the same form. An image gets no boxes
    if the file has none for it or gives another size. `form`: the meaning of a box's four numbers, if it is not the
    format's usual one.

    InputError when there are no images or proposals, when the names match no image or are ambiguous, when boxes do not
    fit their images or most sizes in the file differ, and for `output` and `workers` as for `propose`.
    """
    start = time.monotonic()
    check_workers(workers)
    source = as_source(images)
    output, proposals = check_output_file(output, overwrite=overwrite), Path(proposals)
    foreign = read_foreign(proposals, coco_images=coco_images, form=form)
    names = _names_of_images(source, foreign, proposals)

    counts = _Counts()
    schema = table_schema(settings, Origin(proposals.name, not keep_all))
    output = link_target(output)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.unfinished")
    try:
        with (
            create_folder(output.parent),
            atomic_file(output, unfinished) as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
            progress_bar("image sizes", len(source), show=show_progress) as bar,
        ):
            rows: list[Row] = []
            for index, size in _sizes(source, workers or available_cores()):
                key, name = source.key(index), names.get(index)
                rows.append(_make_row(key, size, foreign, name, settings, keep_all, counts))
                bar.advance()
                if len(rows) == ROW_GROUP or index == len(source) - 1:
                    writer.write_table(rows_to_arrow(rows, schema))
                    rows = []
            _check_fit(counts, foreign.form, proposals)
    except OSError as error:
        raise InputError(
            f"{output}: cannot be written ({error.strerror}); give another output or free some space"
        ) from None
    if counts.others:
        notice(
            f"{proposals}: {len(counts.others):,} of {counts.sized:,} images do not have the size it gives (first: "
            f"{counts.others[0]}); their boxes were left out"
        )
    known = set(names.values())
    return ConversionSummary(
        output,
        len(source),
        counts.kept,
        tuple(counts.unreadable),
        len(source),
        time.monotonic() - start,
        counts.given,
        counts.outside,
        counts.without,
        len(counts.others),
        tuple(name for name in foreign.boxes if name not in known),
    )


class _Counts:
    def __init__(self) -> None:
        self.given = self.kept = self.outside = self.outside_in_other_form = self.without = self.sized = 0
        self.largest = 0.0
        self.unreadable: list[tuple[str, str]] = []
        self.others: list[str] = []


def _sizes(source: ImageSource, workers: int) -> Iterator[tuple[int, tuple[int, int] | str]]:
    """Width and height of each image, or why it cannot be read."""

    def size(index: int) -> tuple[int, int] | str:
        try:
            return size_of(source, index)
        except (InputError, OSError) as error:
            return str(error)

    return map_in_order(size, range(len(source)), workers, source.key)


def _make_row(
    key: str,
    size: tuple[int, int] | str,
    foreign: ForeignProposals,
    name: str | None,
    settings: ProposalSettings,
    keep_all: bool,
    counts: _Counts,
) -> Row:
    if isinstance(size, str):
        counts.unreadable.append((key, size))
        return Row(key, 0, 0, NONE, size)
    width, height = size
    given, form = NONE if name is None else foreign.boxes[name], foreign.form
    counts.given += len(given)
    counts.without += len(given) == 0
    counts.largest = max(counts.largest, float(given.max(initial=0)))
    said = None if name is None else foreign.sizes.get(name)
    if said is not None:
        counts.sized += 1
        if said != size:
            counts.others.append(f"{key} is {width}x{height}, not {said[0]:g}x{said[1]:g}")
            return Row(key, width, height, NONE)
    boxes = _corners(given, form)
    counts.outside += _outside(boxes, width, height)
    counts.outside_in_other_form += _outside(_corners(given, "xywh" if form == "xyxy" else "xyxy"), width, height)
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    if not keep_all:
        good = object_sized(boxes, width, height, settings)
        boxes = distinct(boxes[good], settings.max_overlap)
    counts.kept += len(boxes)
    return Row(key, width, height, boxes)


def _corners(boxes: NDArray[np.float32], form: BoxForm) -> NDArray[np.float32]:
    """Boxes (N, 4), given in a form, as xyxy."""
    if form == "xyxy":
        return boxes
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _outside(boxes: NDArray[np.float32], width: int, height: int) -> int:
    """How many of boxes (N, 4) xyxy are empty or reach outside the image."""
    x1, y1, x2, y2 = boxes.T
    inside = (x1 >= -SLACK) & (y1 >= -SLACK) & (x2 <= width + SLACK) & (y2 <= height + SLACK) & (x1 < x2) & (y1 < y2)
    return int((~inside).sum())


def _check_fit(counts: _Counts, form: BoxForm, path: Path) -> None:
    if len(counts.others) > counts.sized / 2:
        raise InputError(
            f"{path}: made for other images: {counts.others[0]}; give the images it was made from, at that size and "
            "upright, as their EXIF orientation says"
        )
    if counts.given and counts.largest <= 1:
        raise InputError(
            f"{path}: no number of its {counts.given} boxes is above 1, as if they were shares of their image; give "
            "pixels"
        )
    outside, other = counts.outside, counts.outside_in_other_form
    what = f"{path}: {outside} of {counts.given} boxes are empty or reach outside their image"
    if outside > MANY * counts.given and other < outside / 5:
        right = "xywh" if form == "xyxy" else "xyxy"
        raise InputError(f"{what} when read as {form}, and {other} as {right}; if they are {right}, give --box-form")
    if outside > MOST * counts.given:
        raise InputError(f"{what}; give the images they were made from, at that size, and --box-form if needed")


def _file_name(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _without_suffix(name: str) -> str:
    folders, slash, last = name.rpartition("/")
    return folders + slash + (last.rpartition(".")[0] or last)


def _as_is(name: str) -> str:
    return name


# How an image's key and a name in the file are compared, the strictest first.
_NAMINGS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_as_is, _as_is),
    (inner_path, inner_path),  # names in shards never lead out of them
    (lambda key: _without_suffix(inner_path(key)), inner_path),
    (_file_name, _as_is),
    (lambda key: _without_suffix(_file_name(key)), _as_is),
    (lambda key: _file_name(key).split(".")[0], _as_is),
    (_file_name, _file_name),
)


def _names_of_images(source: ImageSource, foreign: ForeignProposals, path: Path) -> dict[int, str]:
    """Each image's name in the file, by the naming that matches most of them one to one, or most of the file's names.

    If file names repeat in several folders, a naming without folders would match names of images that are not here.
    """
    best: dict[str, list[int]] = {}
    most = (0, 0)
    compared: Callable[[str], str] = _as_is
    for of_key, of_name in _NAMINGS:
        wanted = Counter(of_name(name) for name in foreign.boxes)
        images: dict[str, list[int]] = {}
        for index in range(len(source)):
            name = of_key(as_text(source.key(index)))
            if name in wanted:
                images.setdefault(name, []).append(index)
        pairs = sum(len(indices) == wanted[name] == 1 for name, indices in images.items())
        known = sum(wanted[name] for name in images)
        if (pairs, known) > most:
            best, most, compared = images, (pairs, known), of_name
        if known == len(foreign.boxes):
            break
    if not best:
        raise InputError(
            f"{path}: names none of the {len(source)} images in {source.location}, such as {source.key(0)}; its "
            f"first is {next(iter(foreign.boxes))}: give the images it was made from"
        )
    names: dict[int, str] = {}
    for name in foreign.boxes:
        indices = best.get(compared(name), [])
        if len(indices) > 1:
            first, second = (source.key(index) for index in indices[:2])
            raise InputError(f"{path}: {name} may be {first} or {second}; name images with their folder")
        if indices and indices[0] in names:
            raise InputError(f"{path}: {names[indices[0]]} and {name} are both {source.key(indices[0])}; keep one")
        names.update((index, name) for index in indices)
    return names
