"""The control groups of this process, by which containers and job schedulers limit what it may use."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def own_groups(controller: str) -> Iterator[Path]:
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
