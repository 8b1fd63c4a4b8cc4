"""A checkpoint on disk: torch's archive, whose parts carry checksums that are verified before it is used.

To share weights alone, they are written as a safetensors file, whose metadata names the network and the step.

torch is imported only where it is used, as in `run_folder`.
"""

import copy
import errno
import io
import json
import time
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from socodet.runtime.files import atomic_file

NOT_HELD = "damaged: a tensor declares more numbers than it holds"


SAFETENSORS = ".safetensors"
NETWORKS = ("model", "detector")
"""Keys of a network's weights in a state: one for pretraining, one for fine-tuning."""
_ABOUT = "socodet"
"""The metadata entry of a safetensors file that says what its tensors are."""


def weights_alone(state: Mapping[str, Any]) -> bytes:
    """The weights and step numbers of a state as a safetensors file, which `read_state` reads."""
    import safetensors.torch
    import torch

    (network,) = (name for name in NETWORKS if name in state)
    about = {"network": network, "step": state["step"], "total_steps": state["total_steps"]}
    tensors = {name: one.detach().clone(memory_format=torch.contiguous_format) for name, one in state[network].items()}
    return safetensors.torch.save(tensors, {"format": "pt", _ABOUT: json.dumps(about)})


def network_of(path: Path) -> str | None:
    """Which network's weights a file from `weights_alone` holds; None for any other safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
    network = about.get("network") if isinstance(about, dict) else None
    return network if network in NETWORKS else None


def _read_weights_alone(path: Path) -> dict[str, Any]:
    """ValueError for a safetensors file that `weights_alone` did not make."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
        if not isinstance(about, dict) or about.get("network") not in NETWORKS:
            raise ValueError("not weights that socodet push wrote")
        steps = {name: about.get(name) for name in ("step", "total_steps")}
        if not all(type(one) is int and 0 <= one < 2**53 for one in steps.values()):
            raise ValueError("does not say which step it is from")
        return {**steps, about["network"]: {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state, completely or not at all. OSError names the path."""
    import torch

    with atomic_file(path) as file:
        torch.save(dict(state), file)


def read_state(path: Path) -> dict[str, Any]:
    """The state in a file, on the CPU. Never unpickles code.

    ValueError when the file is damaged or holds something else; OSError when it cannot be read.
    """
    import torch

    problem = find_damage(path)
    if problem is not None:
        raise ValueError(problem)
    try:
        if path.suffix == SAFETENSORS:
            return _read_weights_alone(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise  # the file may be whole
    except Exception as error:
        raise ValueError(str(error) if type(error) is ValueError else type(error).__name__) from error
    if not isinstance(state, dict):
        raise ValueError("no state")
    try:
        held = fits_in_file(state, path.stat().st_size)
    except RecursionError:  # a list that holds itself
        held = False
    if not held:
        raise ValueError(NOT_HELD)
    return state


def unsupported_value(state: Any, path: str = "") -> str | None:
    """The first thing in a state that `write_state` cannot write or `read_state` refuses: its place and type, or None.

    NumPy's numbers, for example: unpickling them runs code.
    """
    import torch

    if isinstance(state, torch.Tensor):
        return (
            None if state.layout is torch.strided and not state.is_meta else f"{path}, a sparse tensor or one on meta"
        )
    if type(state) in _PLAIN:
        return None
    if type(state) in (dict, OrderedDict):
        inner = state.items()
    elif type(state) in (list, tuple):
        inner = enumerate(state)
    else:
        written = io.BytesIO()
        try:
            torch.save(state, written)
            written.seek(0)
            torch.load(written, weights_only=True)
        except Exception:  # its class depends on the type
            return f"{path}, a {type(state).__name__}"
        return None
    within = (unsupported_value(value, f"{path}.{name}" if path else str(name)) for name, value in inner)
    return next((found for found in within if found), None)


_PLAIN = (str, bytes, bool, int, float, type(None))


def fits_in_file(state: Any, size: int) -> bool:
    """Whether each tensor of a state is a plain one whose numbers a file of `size` bytes can hold.

    A tensor may declare any shape over a single number, and takes up that much memory once it is used.
    """
    from torch import Tensor, strided

    if isinstance(state, Tensor):
        return state.layout is strided and state.device.type == "cpu" and state.nbytes <= size
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return all(fits_in_file(value, size) for value in values)


def is_archive(path: Path) -> bool:
    """Whether a file begins as torch's archives do. OSError when it cannot be read."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def find_damage(path: Path) -> str | None:
    """What is wrong with an archive, by the CRC-32 of each of its parts; None when it is intact.

    torch writes these checksums but does not verify them when reading. A file that has not changed since an earlier
    call is not read again. OSError when it cannot be read.
    """
    facts = path.stat()
    known = (str(path), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if known in _WHOLE:
        return None
    found = _find_damage(path)
    if found is None and time.time() - facts.st_mtime > SETTLED:
        _WHOLE.add(known)
    return found


_WHOLE: set[tuple[str | int, ...]] = set()
"""Files found intact, by path, inode, size and modification time."""
SETTLED = 2.0
"""Seconds after which a further change of a file shows in its modification time."""


def _find_damage(path: Path) -> str | None:
    if path.suffix == SAFETENSORS:
        return _damage_of_safetensors(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                return "damaged: its parts declare more bytes than it has"  # they are not compressed
            changed = archive.testzip()
    except Exception as error:  # a damaged directory of parts raises many types
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise  # the file may be whole
        cut = "not a zip file" in str(error) and is_archive(path)  # its directory of parts is at its end
        return "cut short" if cut else f"damaged: {' '.join(str(error).split()) or type(error).__name__}"
    return None if changed is None else f"damaged: {changed} is not what was written"


def _damage_of_safetensors(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):  # compares what the header declares with the file's size
            return None
    except SafetensorError as error:
        return f"damaged: {' '.join(str(error).split())}"


def copy_to_cpu(state: Any) -> Any:
    """A copy of the state with its tensors in CPU memory, which further steps do not change."""
    from torch import Tensor

    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        twin = copy.copy(state)  # of the same type, with what a module notes of its version
        twin.update((key, copy_to_cpu(value)) for key, value in state.items())
        return twin
    if isinstance(state, list | tuple):
        return type(state)(copy_to_cpu(value) for value in state)
    return state
