"""Runs a study: a list of named jobs, each completed once, with a record of how it ended.

DIR/KIND.json     what was requested, and the jobs of this call and of earlier ones
DIR/JOB/          what a job writes, such as a run's folder
DIR/JOB.json      how the job ended: its results, or the step at which it diverged
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from socodet.errors import InputError
from socodet.runtime.differences import refuse_different_study
from socodet.runtime.files import read_note, refuse_foreign_folder, remove_folder, write_note
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_each_once
from socodet.runtime.progress import duration
from socodet.runtime.serialization import values_with_defaults
from socodet.runtime.world import ALONE, World, world_from_environment
from socodet.training.distributed import any_process
from socodet.training.learner import DivergedError
from socodet.training.run_folder import RunFolder
from socodet.training.signals import stop_requests

Label = str | int | float


@dataclass(frozen=True)
class JobResult:
    """How far a job got in one call."""

    results: Mapping[str, Any] | None
    """Results in plain JSON types; None while the job is unfinished."""
    stopped_by: str | None = None
    """The signal that stopped it, even if during its last step; `max_steps`; or None."""


@dataclass(frozen=True)
class Job:
    """One job of a study."""

    name: str
    """The folder it writes, relative to the study's: for example `soco/seed-0`, recorded in `soco/seed-0.json`."""
    labels: Mapping[str, Label]
    """What identifies its results in a table: `{"init": "soco", "seed": 0}`."""
    about: str
    """The line printed when it begins."""
    run: Callable[[Path], JobResult]
    """Does the job in this folder, resuming if an earlier call was interrupted. DivergedError when it diverges."""
    needs: tuple[str, ...] = ()
    """Names of the jobs that must finish first."""
    steps: int | None = None
    """Total number of training steps, to show the progress of an unfinished job."""
    kind: str = "run"
    """A name shared by all jobs that take about as long as this one."""
    tidy: Callable[[Path], None] | None = None
    """Called with the folder once the job is recorded as finished, after which it never runs again."""


@dataclass(frozen=True)
class Outcome:
    """The progress of a job, from its record or its newest checkpoint."""

    name: str
    labels: Mapping[str, Label]
    status: str
    """finished; diverged at step N; step N of M, or step N if M is unknown; not begun."""
    results: Mapping[str, Any] = field(default_factory=dict)
    """Results of a finished job."""

    @property
    def finished(self) -> bool:
        """Whether it is done."""
        return self.status == "finished"

    @property
    def diverged(self) -> bool:
        """Whether it ended in NaN or infinity."""
        return self.status.startswith("diverged")

    def figure(self, path: str) -> float | None:
        """A number of the results by its path, such as `scores.box_AP`; None if there is none."""
        value: Any = self.results
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)


@dataclass(frozen=True)
class Study:
    """A folder of jobs. Several processes run each job together; only the first writes and prints."""

    folder: Path
    kind: str
    """For example `comparison`; the note is then comparison.json."""
    world: World = ALONE
    show_progress: bool = True

    @property
    def note(self) -> Path:
        """The file that records what was requested."""
        return self.folder / f"{self.kind}.json"

    def noted(self) -> dict[str, Any]:
        """The note's content; empty if there is none yet."""
        return read_note(self.note) or {}

    def find(
        self, requested: Mapping[str, Any], settings: Mapping[str, type] | None = None, *, overwrite: bool = False
    ) -> dict[str, Any]:
        """The note of the same study from an earlier call; empty for a new study.

        `settings`: classes of the settings in `requested`, by name; fields that the note lacks count as their
        defaults. InputError when the folder holds something else, or (unless `overwrite`) a study with other settings.
        """
        a_study = f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"
        refuse_foreign_folder(self.folder, self.note, a_study)
        recorded = self.noted()
        if recorded and "asked" not in recorded:
            raise InputError(f"{self.folder}: holds {a_study} of an earlier version; give another --output")
        recorded = {} if overwrite else recorded
        if recorded:
            begun = values_with_defaults(settings or {}, recorded["asked"])
            refuse_different_study(self.folder, json.loads(json.dumps(requested)), begun, a_study)
        return recorded

    def begin(
        self, requested: Mapping[str, Any], files: Sequence[str], *, overwrite: bool = False, **more: Any
    ) -> None:
        """Writes the note: what is requested, and `more` under its names.

        `overwrite` first removes the study in the folder: only its jobs and what matches the patterns `files`.
        """
        jobs = self.noted().get("jobs", {})
        if overwrite:
            for name in jobs:
                self._forget(name)
            for path in (path for pattern in files for path in list(self.folder.glob(pattern))):
                remove_folder(path) if path.is_dir() else path.unlink()
        write_note(self.note, {"asked": requested, **more, "jobs": {} if overwrite else jobs})

    def _forget(self, name: str) -> None:
        """Removes what a job wrote, and folders that this leaves empty."""
        self._record(name).unlink(missing_ok=True)  # first, because the results that it records go next
        remove_folder(self.folder / name)
        for parent in (self.folder / name).parents:
            if parent == self.folder or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()

    @log_each_once()
    def run(self, jobs: Sequence[Job], write: Callable[[], object], *, retry_diverged: bool = False) -> str | None:
        """Runs every unfinished job, in order; returns the signal that stopped it, `max_steps`, or None.

        A job that diverges is recorded as such; unless `retry_diverged`, neither it nor the jobs that need it run
        again. After a job that stops at `max_steps`, the others still run, except those that need it. SIGINT and
        SIGTERM end the call after the current training step, or after whatever else is running. `write` is called after
        each job. Once this call has run a job from start to end, it prints how long the rest takes.
        """
        if self.world.is_first:
            noted = self.noted()
            listed = {job.name: _listed(job) for job in jobs}
            write_note(self.note, {**noted, "jobs": {**noted.get("jobs", {}), **listed}})
        out_of_steps = None
        time_left = TimeLeft()
        with stop_requests(self.show_progress and self.world.is_first) as requests:
            for number, job in enumerate(jobs, 1):
                status = self._status(job.name)
                if status == "finished" or (status == "diverged" and not retry_diverged):
                    continue
                if any(self._status(name) != "finished" for name in job.needs):
                    continue
                self.say(f"{number} of {len(jobs)}: {job.about}")
                is_new, began = self.outcome(job).status == "not begun", time.monotonic()
                stopped_by = self._run(job)
                if is_new and self._status(job.name) == "finished":
                    time_left.took(job.kind, time.monotonic() - began)
                if stopped_by is None and (line := time_left.line(self._remaining(jobs[number:]))) is not None:
                    self.say(line)
                if self.world.is_first:
                    write()
                if stopped_by == "max_steps":
                    out_of_steps, stopped_by = stopped_by, None
                if requests:  # also outside the training loop
                    stopped_by = requests[0]
                if any_process(self.world, stopped_by is not None):
                    return stopped_by or "another process"
        return out_of_steps

    def _remaining(self, jobs: Sequence[Job]) -> list[str]:
        """The kinds of the jobs that are still to run."""
        ended = {name: self._status(name) for job in jobs for name in (job.name, *job.needs)}
        waiting = (job for job in jobs if ended[job.name] is None)
        return [job.kind for job in waiting if "diverged" not in {ended[name] for name in job.needs}]

    def _run(self, job: Job) -> str | None:
        """Runs a job and records how it ended; returns what stopped it, or None."""
        record = self._record(job.name)
        if self.world.is_first:
            record.unlink(missing_ok=True)  # if the job diverged before
        try:
            ended = job.run(self.folder / job.name)
        except DivergedError as error:
            if self.world.is_first:
                write_note(record, {"status": "diverged", "step": error.step, "why": str(error)})
            self.say(f"{error}\n{job.about}: recorded as diverged; continuing with the others")
            return None
        if ended.results is not None and self.world.is_first:
            write_note(record, {"status": "finished", "results": ended.results})
            if job.tidy is not None:
                job.tidy(self.folder / job.name)
        return ended.stopped_by

    def outcomes(self, jobs: Sequence[Job] = ()) -> tuple[Outcome, ...]:
        """The progress of every job of this call and of earlier calls."""
        requested = {job.name: _listed(job) for job in jobs}
        every = [self._outcome(name, listed) for name, listed in {**self.noted().get("jobs", {}), **requested}.items()]
        return tuple(one for one in every if one.name in requested or one.status != "not begun")

    def outcome(self, job: Job) -> Outcome:
        """The progress of one job."""
        return self._outcome(job.name, _listed(job))

    def _outcome(self, name: str, listed: Mapping[str, Any]) -> Outcome:
        record = read_note(self._record(name))
        saved = RunFolder(self.folder / name).checkpoints()
        if record is not None and record["status"] == "finished":
            return Outcome(name, listed["labels"], "finished", record["results"])
        if record is not None:
            status = f"diverged at step {record['step']}"
        elif saved:
            length = "" if listed["steps"] is None else f" of {listed['steps']}"
            status = f"step {int(saved[-1].stem.removeprefix('step-'))}{length}"
        else:
            status = "not begun"
        return Outcome(name, listed["labels"], status)

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _status(self, name: str) -> str | None:
        """How a job ended: finished, diverged, or None if it has not."""
        record = read_note(self._record(name))
        return None if record is None else str(record["status"])

    def say(self, line: str) -> None:
        """Prints a line of progress on stderr."""
        if self.show_progress and self.world.is_first:
            LOGGER.info(line)


class TimeLeft:
    """Estimates how long the rest of a study takes, from jobs of each kind that this call ran from start to end."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def took(self, kind: str, seconds: float) -> None:
        """Notes how long a job of this kind took."""
        self._seconds[kind].append(seconds)

    def line(self, remaining: Sequence[str]) -> str | None:
        """The estimate when jobs of these kinds remain; None if nothing is known yet."""
        known = [kind for kind in remaining if kind in self._seconds]
        if not known:
            return None
        text = f"about {duration(sum(mean(self._seconds[kind]) for kind in known))} left for {_counted(known)}"
        others = [kind for kind in remaining if kind not in self._seconds]
        return text if not others else f"{text}; {_counted(others)} not counted"


def _counted(kinds: Sequence[str]) -> str:
    return " and ".join(f"{count:,} {kind}{'s' if count > 1 else ''}" for kind, count in Counter(kinds).items())


def _listed(job: Job) -> dict[str, Any]:
    """A job's entry in the note."""
    return {"labels": dict(job.labels), "steps": job.steps}


def require_one_process(command: str) -> None:
    """InputError when several processes were started."""
    if world_from_environment(rendezvous=False).size > 1:
        raise InputError(f"{command}: runs in one process; start it without torchrun or srun")
