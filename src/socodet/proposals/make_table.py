"""Makes the proposal table of an image source: in parallel, and resumable."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from socodet.errors import InputError
from socodet.images.source import Images, ImageSource, read_pixels
from socodet.images.truncated import TRUNCATED
from socodet.proposals.image_boxes import compile_kernels, image_rng, propose_boxes
from socodet.proposals.part_files import Job
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import Row
from socodet.runtime.counted import counted
from socodet.runtime.folder_locks import releases_folder_locks
from socodet.runtime.limits import available_cores
from socodet.runtime.progress import ProgressBar, progress_bar
from socodet.runtime.shown import Shown
from socodet.runtime.threads import map_in_order

TASK = 8
"""Images per task of a worker."""


@dataclass(frozen=True)
class ProposalSummary(Shown):
    """What `propose` did."""

    table: Path
    images: int
    boxes: int
    unreadable: tuple[tuple[str, str], ...]
    """Key and reason of each image that could not be read; its row has no boxes."""
    made: int
    """Images that this call searched; the others were finished before it."""
    seconds: float

    def __str__(self) -> str:
        what = f"{counted(self.boxes, 'box', 'boxes')} of {counted(self.images, 'image')}"
        rate = f"{self.made / max(self.seconds, 1e-9):.1f} images/s"
        if self.made < self.images:
            rate = f"{self.made:,} of them now, {rate}" if self.made else "all finished before"
        return f"{self.table}: {what} in {self.seconds:.1f} s ({rate})"


@releases_folder_locks
def propose(
    images: Images,
    output: str | Path,
    *,
    settings: ProposalSettings = ProposalSettings(),
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> ProposalSummary:
    """Finds proposals in every image of a folder or source, and writes the proposal table `output`.

    `workers` images are processed at once, by default one per core. Finished images are kept in a hidden folder of part
    files beside the output until the table is complete: after an interruption the same call resumes from them; calls
    with other settings or images do not touch them. The table's bytes depend neither on the number of workers nor on
    interruptions. For several machines see `shares.py`.

    InputError if there are no images, if `output` cannot be written, or exists and `overwrite` is false, if another
    process makes the same table, or if `workers` is below 1.
    """
    start = time.monotonic()
    check_workers(workers)
    job = Job.of(images, output, settings, overwrite)
    job.hold(alone=True)
    missing = job.missing(range(job.count))
    made = job.images_in(missing)
    with progress_bar("proposals", len(job.source), show=show_progress) as bar:
        bar.done_earlier(len(job.source) - made)
        make_parts(job, missing, workers or available_cores(), bar)
    TRUNCATED.report()
    boxes, unreadable = job.merge()
    return ProposalSummary(job.output, len(job.source), boxes, tuple(unreadable), made, time.monotonic() - start)


def check_workers(workers: int | None) -> None:
    """InputError for fewer than one worker."""
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")


def make_parts(job: Job, missing: Sequence[int], workers: int, bar: ProgressBar) -> None:
    """Makes these parts."""
    if not missing:
        return
    compile_kernels(job.settings.method)
    sizes: dict[int, bytes] = {}

    def tasks() -> Iterator[tuple[int, range]]:
        for part in missing:
            sizes[part] = job.sizes(part)
            for start in range(0, len(job.indices(part)), TASK):
                yield part, job.indices(part)[start : start + TASK]

    rows: list[Row] = []
    for (part, _), made in map_in_order(
        lambda task: [_make_row(job.source, index, job.settings) for index in task[1]],
        tasks(),
        workers,
        lambda task: f"proposals of {job.source.key(task[1][0])} and the {len(task[1]) - 1} images after it",
    ):
        rows += made
        bar.advance(len(made))
        if len(rows) == len(job.indices(part)):
            job.write(part, rows, sizes.pop(part))
            rows = []


def _make_row(source: ImageSource, index: int, settings: ProposalSettings) -> Row:
    key = source.key(index)
    try:
        image = read_pixels(source, index)
    except (InputError, OSError) as error:
        return Row(key, 0, 0, np.empty((0, 4), np.float32), str(error))
    height, width = image.shape[:2]
    return Row(key, width, height, propose_boxes(image, settings, image_rng(settings.seed, key), key))
