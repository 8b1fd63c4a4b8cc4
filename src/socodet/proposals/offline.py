"""Proposals for every image of a source, into a table: in parallel, and going on where it was interrupted."""

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from socodet import __version__
from socodet.cores import available_cores
from socodet.errors import InputError
from socodet.images.decode import decode_image
from socodet.images.source import ImageSource, open_images
from socodet.progress import ProgressBar, progress_bar
from socodet.proposals.image_boxes import compile_kernels, propose_boxes
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Row, rows_to_arrow, table_schema

PART = 64
"""Images in a part file: what an interruption can lose."""
ROW_GROUP = 4096
"""Images in a row group of the table."""
TASK = 8
"""Images that a worker takes at a time."""


@dataclasses.dataclass(frozen=True)
class ProposalSummary:
    """What `propose` did."""

    table: Path
    images: int
    boxes: int
    unreadable: tuple[tuple[str, str], ...]
    """Key and reason of each image that could not be read; its row has no boxes."""
    seconds: float


def propose(
    images: str | Path | ImageSource,
    output: str | Path,
    *,
    settings: ProposalSettings = ProposalSettings(),  # noqa: B008
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> ProposalSummary:
    """Finds the boxes of every image below a folder, or of a source, and writes the proposal table `output`.

    `workers` images are under way at once; by default as many as there are cores. Finished images are kept
    beside the output, in a hidden folder of part files, until the table is whole: after an interruption of
    any kind the same call goes on from them; a call with other settings or images does not touch them. The
    table's bytes depend neither on the workers nor on interruptions.

    InputError when there are no images, when `output` exists and is not to be overwritten or cannot be written,
    or when `workers` is below 1.
    """
    start = time.monotonic()
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    source = open_images(images) if isinstance(images, (str, Path)) else images
    output = Path(output)
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give a file for the proposal table")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already; give another output, or ask to overwrite it")
    parts = output.with_name(f".{output.name}.{_job_digest(source, settings)}.parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); give another output") from None

    schema = table_schema(settings)
    paths = [parts / f"{first:010d}.parquet" for first in range(0, len(source), PART)]
    with progress_bar("proposals", len(source), show=show_progress) as bar:
        _make_parts(source, settings, schema, paths, workers or available_cores(), bar)
    merged = parts / "table"
    boxes, unreadable = _merge(paths, schema, merged)
    os.replace(merged, output)
    shutil.rmtree(parts)
    return ProposalSummary(output, len(source), boxes, tuple(unreadable), time.monotonic() - start)


def _job_digest(source: ImageSource, settings: ProposalSettings) -> str:
    """Names a job: part files are used again only for the same images, settings and version."""
    digest = hashlib.sha256(
        json.dumps([__version__, os.path.abspath(source.location), dataclasses.asdict(settings)]).encode()
    )
    for index in range(len(source)):
        digest.update(source.key(index).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:12]


def _make_parts(
    source: ImageSource,
    settings: ProposalSettings,
    schema: pa.Schema,
    paths: list[Path],
    workers: int,
    bar: ProgressBar,
) -> None:
    """Makes the part files that are not there yet."""
    missing: dict[Path, range] = {}
    for number, path in enumerate(paths):
        indices = range(number * PART, min((number + 1) * PART, len(source)))
        if _is_whole(path, len(indices)):
            bar.done_earlier(len(indices))
        else:
            missing[path] = indices
    if not missing:
        return
    compile_kernels(settings.method)
    tasks = (
        (path, indices[start : start + TASK])
        for path, indices in missing.items()
        for start in range(0, len(indices), TASK)
    )
    rows: list[Row] = []
    for path, made in _in_order(source, settings, tasks, workers):
        rows += made
        bar.advance(len(made))
        if len(rows) == len(missing[path]):
            _write_whole(rows_to_arrow(rows, schema), path)
            rows = []


def _in_order(
    source: ImageSource,
    settings: ProposalSettings,
    tasks: Iterator[tuple[Path, range]],
    workers: int,
) -> Iterator[tuple[Path, list[Row]]]:
    """The rows of each task, in the order of the tasks; so few are under way that memory stays bounded.

    Threads, since the kernels and the decoder let go of the interpreter: of the 5 ms an image takes, a thread
    holds it for less than 0.2, and they measured as fast as processes, which outlive a parent that is killed.
    """
    pool = ThreadPoolExecutor(workers)
    under_way: deque[tuple[Path, Future[list[Row]]]] = deque()
    try:
        for path, indices in tasks:
            under_way.append((path, pool.submit(_make_rows, source, indices, settings)))
            if len(under_way) > 4 * workers:
                first, future = under_way.popleft()
                yield first, future.result()
        for first, future in under_way:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _make_rows(source: ImageSource, indices: range, settings: ProposalSettings) -> list[Row]:
    return [_make_row(source, index, settings) for index in indices]


def _make_row(source: ImageSource, index: int, settings: ProposalSettings) -> Row:
    key = source.key(index)
    try:
        image = decode_image(source.read(index))
    except (InputError, OSError) as error:
        return Row(key, 0, 0, np.empty((0, 4), np.float32), str(error))
    height, width = image.shape[:2]
    return Row(key, width, height, propose_boxes(image, settings, _image_rng(settings.seed, key)))


def _image_rng(seed: int, key: str) -> np.random.Generator:
    """A generator of the image's own: its boxes do not depend on what else is in the folder."""
    return np.random.default_rng([seed, *hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()])


def _is_whole(path: Path, rows: int) -> bool:
    with suppress(pa.ArrowException, OSError):
        return bool(pq.read_metadata(path).num_rows == rows)
    return False


def _write_whole(table: pa.Table, path: Path) -> None:
    """A part file is there whole or not at all, whenever the process ends."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    pq.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, path)


def _merge(paths: list[Path], schema: pa.Schema, output: Path) -> tuple[int, list[tuple[str, str]]]:
    """Joins the part files; the number of boxes, and the images that could not be read."""
    boxes = 0
    unreadable: list[tuple[str, str]] = []
    together = ROW_GROUP // PART
    with pq.ParquetWriter(output, schema, compression="zstd") as writer:
        for first in range(0, len(paths), together):
            rows = pa.concat_tables([pq.ParquetFile(path).read() for path in paths[first : first + together]])
            writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)
            boxes += sum(len(lists.flatten()) for lists in rows.column("boxes").chunks)
            failed = rows.filter(rows.column("error").is_valid())
            unreadable += zip(failed.column("image").to_pylist(), failed.column("error").to_pylist(), strict=True)
    return boxes, unreadable
