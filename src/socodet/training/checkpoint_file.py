"""A checkpoint on disk: torch's archive, whose parts carry checksums that are compared before it is used.

torch is imported where it is used, as in `run_folder`.
"""

import copy
import errno
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from socodet.runtime.files import whole_file

NOT_HELD = "damaged: a tensor declares more numbers than it holds"


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state, completely or not at all. OSError names the path."""
    import torch

    with whole_file(path) as file:
        torch.save(dict(state), file)


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file, on the CPU. Never unpickles code.

    ValueError when the file is damaged or holds something else; OSError when it cannot be read.
    """
    import torch

    problem = damage(path)
    if problem is not None:
        raise ValueError(problem)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise  # the file may be whole
    except Exception as error:
        raise ValueError(type(error).__name__) from error
    if not isinstance(state, dict):
        raise ValueError("no state")
    try:
        held = is_held(state, path.stat().st_size)
    except RecursionError:  # a list that holds itself
        held = False
    if not held:
        raise ValueError(NOT_HELD)
    return state


def is_held(state: Any, size: int) -> bool:
    """Whether each tensor of a state is a plain one whose numbers a file of `size` bytes can hold.

    One may declare any shape over a single number, and takes its memory as soon as it is used.
    """
    from torch import Tensor, strided

    if isinstance(state, Tensor):
        return state.layout is strided and state.device.type == "cpu" and state.nbytes <= size
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return all(is_held(value, size) for value in values)


def is_archive(path: Path) -> bool:
    """Whether a file begins as torch's archives do. OSError when it cannot be read."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def damage(path: Path) -> str | None:
    """What is wrong with an archive, by the CRC-32 of each of its parts; None when it is whole.

    torch writes these checksums and does not compare them when it reads. A file that has not changed since an earlier
    call is not read again. OSError when it cannot be read.
    """
    facts = path.stat()
    known = (str(path), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if known in _WHOLE:
        return None
    found = _damage(path)
    if found is None and time.time() - facts.st_mtime > SETTLED:
        _WHOLE.add(known)
    return found


_WHOLE: set[tuple[str | int, ...]] = set()
"""Files found whole, as they were then."""
SETTLED = 2.0
"""Seconds after which another change of a file shows in its time."""


def _damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                return "damaged: its parts declare more bytes than it has"  # they are not compressed
            changed = archive.testzip()
    except Exception as error:  # what a damaged directory of parts raises is of many types
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise  # the file may be whole
        cut = "not a zip file" in str(error) and is_archive(path)  # its directory of parts is at its end
        return "cut short" if cut else f"damaged: {' '.join(str(error).split()) or type(error).__name__}"
    return None if changed is None else f"damaged: {changed} is not what was written"


def copied(state: Any) -> Any:
    """The same state with copies of its tensors in CPU memory, which further steps do not change."""
    from torch import Tensor

    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        twin = copy.copy(state)  # of the same type, with what a module notes of its version
        twin.update((key, copied(value)) for key, value in state.items())
        return twin
    if isinstance(state, list | tuple):
        return type(state)(copied(value) for value in state)
    return state
