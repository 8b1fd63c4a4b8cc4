"""Finds, describes and reads a file of weights, or a folder that has one.

torch is imported only where it is used, because that takes seconds and a missing file can be reported before.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from socodet.errors import InputError, is_out_of_memory
from socodet.runtime.files import LFS_POINTER
from socodet.training.checkpoint_file import NOT_HELD, SAFETENSORS, find_damage, fits_in_file, is_archive, network_of
from socodet.training.run_folder import RunFolder
from socodet.weights.hub import origin
from socodet.weights.transformers_folder import (
    is_transformers_folder,
    read_transformers_folder,
    refuse_other_strides,
    weights_file,
)

if TYPE_CHECKING:
    from torch import Tensor

CAFFE = re.compile(r"\bstyle\s*=\s*['\"]caffe['\"]")
"""In an OpenMMLab configuration: a ResNet with strides in the 1x1 convolutions, which takes BGR."""
VISSL = ("classy_state_dict", "base_model")
"""Keys, one inside the other, under which VISSL keeps its model."""
STATE_DICTS = (*VISSL, "state_dict_ema", "model_ema", "model", "state_dict", "teacher")
"""Keys under which checkpoints keep the state dict. A moving average of the weights is preferred to the weights, as in
timm, whose published scores are the average's; of DINO's two networks, the teacher is the one to use."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights. For a run's folder, its best checkpoint if it has one, otherwise its newest; for the folder of
    a transformers model, its largest file.
    """

    path: Path
    transformers: Path | None = None
    """The folder of the transformers model that the file belongs to."""

    @classmethod
    def find(cls, source: str | Path) -> WeightsFile:
        """The file itself, or the best or newest intact checkpoint of a run's folder. InputError if there is none."""
        path = Path(source)
        if is_transformers_folder(path):
            return cls(weights_file(path), transformers=path)
        if path.is_dir():
            folder = RunFolder(path)
            folder.describe()
            checkpoints = [folder.best] if folder.best.exists() else folder.checkpoints()
            if not checkpoints:
                raise InputError(f"{path}: has no checkpoint yet; wait until that run has written one")
            whole = (one for one in reversed(checkpoints) if find_damage(one) is None)
            path = next(whole, checkpoints[-1])
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder; give a run's folder or a file of weights")
        return cls(path)

    def describe(self, given: str | Path) -> dict[str, str]:
        """What run.json records; `given` is the file or folder that the user named."""
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"from": origin(given), "file": self.path.name, "sha256": sha256}

    def read(self, *, only_shapes: bool = False) -> dict[str, Tensor]:
        """The state dict: the whole file, or its entry under the first of `STATE_DICTS`; or a transformers model's.

        If that entry, or the file, holds a state dict for each part of a network, it is all of them, each name after
        its part's: `trunk.` and `heads.` in VISSL.

        only_shapes: for a look at the shapes. Most files' numbers are then not read, and damage to them goes unnoticed.

        No code is unpickled: only tensors, plain types, and `argparse.Namespace`, in which the method's public code
        keeps its options. NumPy's numbers and arrays, paths, and the log in MMEngine's checkpoints are ignored.
        InputError for files that hold other objects or no state dict.
        """
        import safetensors.torch
        import torch

        if self.transformers is not None:
            return read_transformers_folder(self.transformers)
        if is_transformers_folder(self.path.parent):
            refuse_other_strides(self.path.parent)
        archive = is_archive(self.path)
        problem = find_damage(self.path) if archive and not only_shapes else None
        if problem is not None:
            raise InputError(f"{self.path}: {problem}; take another copy of it")
        try:
            content: Any
            if self.path.suffix == SAFETENSORS:
                content = safetensors.torch.load_file(self.path)
                content = {"detector": content} if network_of(self.path) == "detector" else content
            else:
                with (
                    warnings.catch_warnings(),
                    torch.serialization.safe_globals(
                        [argparse.Namespace, *((_UnusedObject, name) for name in UNUSED_MODULES)]
                    ),
                ):
                    warnings.filterwarnings("ignore", ".*TorchScript")  # reported as an InputError below
                    content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=only_shapes and archive)
        except Exception as error:
            if is_out_of_memory(error):
                raise InputError(
                    f"{self.path}: needs more memory than is free; free some, or, if weights should need less, give "
                    "another copy of the file"
                ) from error
            raise InputError(
                f"{self.path}: not a file of weights that can be read safely ({_why_not_weights(self.path, error)}); "
                "give a state dict as .pth, .pt or .safetensors"
            ) from error
        state = state_dict_in(content, str(self.path))
        if not fits_in_file(state, self.path.stat().st_size):
            raise InputError(f"{self.path}: {NOT_HELD}; take another copy of it")
        return state


def state_dict_in(content: Any, place: str) -> dict[str, Tensor]:
    """The content itself, or the state dict in a checkpoint.

    InputError, which names `place`, if there is none, or if OpenMMLab's configuration beside it says that the weights
    would fit but compute something else here.
    """
    import torch

    meta = content.get("meta") if isinstance(content, Mapping) else None
    if isinstance(meta, Mapping) and any(CAFFE.search(str(meta.get(name, ""))) for name in ("cfg", "config")):
        raise InputError(
            f"{place}: its configuration is for Caffe's ResNet (style 'caffe'), which strides in 1x1 convolutions and "
            "takes BGR, ours in 3x3 convolutions and RGB; give weights of the style 'pytorch'"
        )
    if isinstance(content, Mapping) and "detector" in content:
        raise InputError(
            f"{place}: a fine-tuned detector's checkpoint, not one of a pretraining run; give the run or file "
            "that it was fine-tuned from, load the detector with socodet.load_detector, or train it further with "
            "socodet finetune --init"
        )
    for name in STATE_DICTS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if isinstance(content, Mapping) and all(isinstance(value, torch.Tensor) for value in content.values()):
        return dict(content)
    parts = {part: one for part, one in content.items() if _is_state_dict(one)} if isinstance(content, Mapping) else {}
    if not parts:
        raise InputError(f"{place}: holds no state dict of tensors; give one that does")
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _is_state_dict(value: Any) -> bool:
    from torch import Tensor

    named = isinstance(value, Mapping) and bool(value)
    return named and all(isinstance(name, str) and isinstance(one, Tensor) for name, one in value.items())


class _UnusedObject:
    """Replaces objects that are not needed here."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


UNUSED_MODULES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{make}" for core in ("core", "_core") for make in ("_reconstruct", "scalar")),
    *(f"{module}.{system}Path" for module in ("pathlib", "pathlib._local") for system in ("Posix", "Windows")),
)
"""Types that checkpoints may hold besides their weights."""


def _why_not_weights(path: Path, error: Exception) -> str:
    """What the file is instead of weights, or what made it unreadable."""
    if foreign := re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)", str(error)):
        return f"it also holds {foreign[1]}, which only code can make"
    if "TorchScript" in str(error):
        return "it is TorchScript, a program"
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty"
    if head.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS; git lfs pull gets the file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, probably from a failed download"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "it is a text file"
    return type(error).__name__


def start_path(start: dict[str, str] | None) -> str | None:
    """What identifies initial weights when a run is resumed: path or name, since the contents may have changed."""
    return None if start is None else start["from"]


def requested_start(start: dict[str, str] | None, recorded: dict[str, str] | None) -> str | None:
    """The same for the requested weights, for comparison with those that a run started from, `recorded`.

    If the weights have only been moved since then, with or without the run, this is their former path.
    """
    if start is not None and recorded is not None and start["from"] != recorded["from"]:
        with suppress(InputError, OSError):
            if WeightsFile.find(start["from"]).describe(start["from"])["sha256"] == recorded.get("sha256"):
                return recorded["from"]
    return start_path(start)
