"""How much memory this process may still use."""

import math
from contextlib import suppress
from pathlib import Path

from socodet.runtime.control_groups import own_groups

MEMINFO = Path("/proc/meminfo")


def available_memory() -> float:
    """Bytes that are free or hold cached files, in the machine or within its container's limit; infinite if unknown."""
    return min([_of_machine(), *map(_left, own_groups("memory"))])


def _of_machine() -> float:
    with suppress(OSError, ValueError, KeyError):
        return 1024 * _numbers(MEMINFO)["MemAvailable:"]
    return math.inf


def _left(group: Path) -> float:
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
