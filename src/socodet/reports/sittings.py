"""When a run was at work, by the files of events that each call of the command began."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from socodet.training.log import BEGAN, EVENTS
from socodet.training.run_folder import RunFolder


@dataclass(frozen=True)
class Sitting:
    """One call of the command: from its start, or the resumption of the run, to its end or interruption."""

    began: float
    """Seconds since 1970, as all times here."""
    logged: Mapping[int, float]
    """Step → when it was logged; at least one."""

    @property
    def ended(self) -> float:
        """When it logged last."""
        return max(self.logged.values())


YEAR_9999 = 253_370_764_800
"""When it begins, in seconds; later times cannot be written as dates."""


def sittings(run: RunFolder) -> list[Sitting]:
    """In order of time. Files that are damaged, or not by a run, count as far as they can be read; none raises."""
    found = []
    for file in run.tensorboard.glob(f"{EVENTS}.*") if run.tensorboard.is_dir() else ():
        name, logged = BEGAN.match(file.name), dict(_logged(file))
        if name and logged and float(name[1]) < YEAR_9999:
            found.append(Sitting(min(float(name[1]), *logged.values()), logged))
    return sorted(found, key=lambda sitting: sitting.began)


def _logged(file: Path) -> Iterator[tuple[int, float]]:
    """Each step and when its line was written."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    try:
        for event in EventFileLoader(str(file)).Load():
            if event.HasField("summary") and 0 <= event.wall_time < YEAR_9999:  # others, and NaN, are damage
                yield event.step, event.wall_time
    except Exception:
        return
