"""How many processor cores and how much memory this process may use, also in containers and under job schedulers."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


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
    return min([math.inf, *map(_core_limit, _own_groups("cpu"))])


def _core_limit(group: Path) -> float:
    """The limit of a control group, of version 1 or 2, in cores."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return math.inf if int(quota) <= 0 else int(quota) / int(period)
    return math.inf


def available_memory() -> float:
    """Bytes that are free or hold cached files, in the machine or within its container's limit; infinite if unknown."""
    return min([_memory_of_machine(), *map(_memory_left, _own_groups("memory"))])


def _memory_of_machine() -> float:
    with suppress(OSError, ValueError, KeyError):
        return 1024 * _numbers(MEMINFO)["MemAvailable:"]
    return math.inf


def _memory_left(group: Path) -> float:
    """What the limit of a control group, of version 1 or 2, leaves."""
    for limit, used, whole in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),  # with the groups below it, as in version 2
    ):
        with suppress(OSError, ValueError, KeyError):
            most, now = ((group / name).read_text().strip() for name in (limit, used))
            if most == "max":
                return math.inf
            cached = _numbers(group / "memory.stat")
            files = sum(cached[f"{whole}{state}_file"] for state in ("active", "inactive"))
            return max(0, int(most) - int(now) + files)
    return math.inf


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line by its name."""
    return {name: int(number) for name, number, *_ in map(str.split, file.read_text().splitlines())}


def _own_groups(controller: str) -> Iterator[Path]:
    """Folders of this process's groups of a controller (`cpu`, `memory`), of version 1 or 2, and of those around them.

    Not all of them need exist.
    """
    with suppress(OSError, ValueError):
        for line in OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            # A container may see its own group as the root, under whatever path the host has for it.
            for root in [CGROUPS / controllers, CGROUPS / controller] if controllers else [CGROUPS]:
                group = root / path.lstrip("/")
                yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))
