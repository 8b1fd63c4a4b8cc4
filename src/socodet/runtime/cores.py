"""How many processor cores this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path

from socodet.runtime.control_groups import own_groups


def available_cores() -> int:
    """Processor cores that this process may use: those it may run on, or fewer if its container's time is limited."""
    return max(1, math.ceil(min(_cores(), _cores_of_time())))


def limit_threads() -> None:
    """If a container's time is limited to fewer cores than it has, makes torch start only that many threads.

    To be called before torch is imported. Threads that get no time hold up those that wait for them.
    """
    if available_cores() < _cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores_of_time() -> float:
    """The lowest limit, in cores, of this process's control groups, as set by `docker run --cpus`; infinite without."""
    return min([math.inf, *map(_limit, own_groups("cpu"))])


def _limit(group: Path) -> float:
    """The limit of a control group, of version 1 or 2, in cores."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return math.inf if int(quota) <= 0 else int(quota) / int(period)
    return math.inf
