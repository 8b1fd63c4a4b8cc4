"""Proposals by several processes or machines: each makes a share of the part files, and one merges them.

The folder of part files beside the output must be visible to all; they exchange nothing else.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from socodet.errors import InputError
from socodet.images.source import Images
from socodet.images.truncated import TRUNCATED
from socodet.proposals.make_table import ProposalSummary, check_workers, make_parts
from socodet.proposals.part_files import Job
from socodet.proposals.settings import ProposalSettings
from socodet.runtime.folder_locks import releases_folder_locks
from socodet.runtime.limits import available_cores
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_note
from socodet.runtime.progress import progress_bar
from socodet.runtime.world import World

POLL_SECONDS = 1.0
"""Time between two checks for the parts of other processes."""
QUIET_SECONDS = 120.0
"""Whenever this time passes without a new part, a message names what is missing."""
LOST_SECONDS = 7200.0
"""After this time without a new part, the other processes count as lost. A part of large images may take an hour."""
NAMED = 8


@dataclass(frozen=True)
class Share:
    """Share `number`, from 1, of `total` shares: consecutive part files, because tar shards are read in order."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Parses `2/8`. InputError for anything else."""
        with suppress(ValueError):
            number, total = map(int, text.split("/"))
            if 1 <= number <= total:
                return cls(number, total)
        raise InputError(f"--shard: {text!r} is not a share; give i/n, such as 2/8 for the second of eight")

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def parts(self, count: int) -> range:
        """Which of `count` parts; the sizes of shares differ by at most one."""
        return range(count * (self.number - 1) // self.total, count * self.number // self.total)


@dataclass(frozen=True)
class ShareSummary:
    """What `propose_share` did; `merge_shares` makes the table from all shares."""

    share: Share
    images: int
    seconds: float


@releases_folder_locks
def propose_share(
    images: Images,
    output: str | Path,
    share: Share,
    *,
    settings: ProposalSettings = ProposalSettings(),
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> ShareSummary:
    """Makes the missing part files of one share of the table `output`; `merge_shares` merges all shares.

    Images, output and settings must be the same in every call. InputError as for `propose`.
    """
    start = time.monotonic()
    check_workers(workers)
    job = Job.of(images, output, settings, overwrite)
    job.hold(f"share-{share.number}-of-{share.total}")
    _record_share_count(job, share)
    parts = share.parts(job.count)
    _make_share(job, share, job.missing(parts), workers or available_cores(), show_progress)
    return ShareSummary(share, job.images_in(parts), time.monotonic() - start)


@releases_folder_locks
def merge_shares(
    images: Images,
    output: str | Path,
    *,
    settings: ProposalSettings = ProposalSettings(),
    overwrite: bool = False,
) -> ProposalSummary:
    """Merges the part files that `propose_share` made for the same images and settings into the table `output`.

    InputError as for `propose`, and when parts are missing, naming the shares they belong to.
    """
    start = time.monotonic()
    job = Job.of(images, output, settings, overwrite)
    job.hold(alone=True)
    missing = job.missing(range(job.count))
    if missing:
        total = _recorded_share_count(job)
        if total is None:
            raise InputError(
                f"{output}: none of its shards exist; make them with --shard, from the same images and settings"
            )
        raise InputError(
            f"{output}: {len(missing)} of {job.count} parts are missing, of {_owners(missing, job.count, total)}; "
            "make them with --shard, which resumes where it stopped"
        )
    boxes, unreadable = job.merge()
    return ProposalSummary(job.output, len(job.source), boxes, tuple(unreadable), 0, time.monotonic() - start)


@releases_folder_locks
def propose_together(
    images: Images,
    output: str | Path,
    world: World,
    *,
    settings: ProposalSettings = ProposalSettings(),
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> ProposalSummary | None:
    """`propose` by all processes of a world, with the same bytes. None in all but the first, which merges the parts.

    By default a machine's processes share its cores. InputError as for `propose`.
    """
    start = time.monotonic()
    check_workers(workers)
    if not world.is_first and not overwrite and Path(output).is_file():
        return None  # the first process reports it; or it has finished already, because all parts existed
    job = Job.of(images, output, settings, overwrite)
    share = Share(world.rank + 1, world.size)
    workers = workers or max(1, available_cores() // world.local_size)
    try:
        job.hold("first" if world.is_first else "", alone=world.size == 1)
        own = share.parts(job.count)
        missing = job.missing(range(job.count) if world.is_first else own)  # this checks the sizes of their images
        _make_share(job, share, [part for part in missing if part in own], workers, show_progress and world.is_first)
    except FileNotFoundError:
        if world.is_first or job.folder.exists():
            raise
        return None  # all parts existed, and the first process has merged and removed them meanwhile
    if not world.is_first:
        return None
    _wait_for_others(job, [part for part in missing if part not in own], world.size, show_progress)
    boxes, unreadable = job.merge()
    made = job.images_in(missing)
    return ProposalSummary(job.output, len(job.source), boxes, tuple(unreadable), made, time.monotonic() - start)


def _make_share(job: Job, share: Share, missing: Sequence[int], workers: int, show_progress: bool) -> None:
    images = job.images_in(share.parts(job.count))
    name = "proposals" if share.total == 1 else f"proposals, share {share}"
    with progress_bar(name, images, show=show_progress) as bar:
        bar.done_earlier(images - job.images_in(missing))
        make_parts(job, missing, workers, bar)
    TRUNCATED.report()


def _wait_for_others(job: Job, parts: Sequence[int], total: int, show_progress: bool) -> None:
    """Waits for the other processes' parts; the launcher may restart a process that died.

    InputError when no part has come for `LOST_SECONDS`.
    """
    missing = job.missing(parts)
    if not missing:
        return
    if show_progress:
        LOGGER.info(f"waiting for {_owners(missing, job.count, total)}")
    last_news, said = time.monotonic(), 0
    with progress_bar("other shares", job.images_in(missing), show=show_progress) as bar:
        while missing:
            time.sleep(POLL_SECONDS)
            still = job.missing(missing)
            if len(still) < len(missing):
                bar.advance(job.images_in(missing) - job.images_in(still))
                missing, last_news = still, time.monotonic()
                said = 0
            elif time.monotonic() - last_news > QUIET_SECONDS * (said + 1):
                quiet, said = time.monotonic() - last_news, said + 1
                what = (
                    f"no new part for {quiet:.0f} s; {len(missing)} of {job.count} are missing, of "
                    f"{_owners(missing, job.count, total)}"
                )
                if quiet > LOST_SECONDS:
                    raise InputError(f"{what}; the same command, started again everywhere, resumes from here")
                log_note(
                    f"{what}; still waiting. If a process has died, stop all and start the same command again: it "
                    "resumes from here"
                )


def _owners(missing: Iterable[int], count: int, total: int) -> str:
    """The shares that parts belong to, for messages: `shards 2/8 (3 parts), 5/8 (1 part)`."""
    owners = Counter(((part + 1) * total - 1) // count + 1 for part in missing)
    named = [
        f"{Share(number, total)} ({parts} part{'s' if parts > 1 else ''})" for number, parts in sorted(owners.items())
    ]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{'shards' if len(named) > 1 else 'shard'} {', '.join(named[:NAMED])}{more}"


def _record_share_count(job: Job, share: Share) -> None:
    """Records the number of shares, so that merging can name the missing ones."""
    (job.folder / f"shares.{share.total}").touch()


def _recorded_share_count(job: Job) -> int | None:
    marks = sorted(job.folder.glob("shares.*"), key=lambda mark: mark.stat().st_mtime)
    return int(marks[-1].name.removeprefix("shares.")) if marks else None
