"""Pretrained weights on disk: a run's folder or a file from any source, read under plain names."""

import argparse
import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError
from socodet.training.checkpoint_file import NOT_HELD, damage, is_archive, is_held
from socodet.training.run_folder import RunFolder
from socodet.weights.formats import MLPS, Format, in_words, module_of, recognize
from socodet.weights.transformers_folder import is_transformers_folder, read_transformers_folder, weights_file

STATE_DICTS = ("model", "state_dict", "teacher")
"""Names under which checkpoints keep the state dict; of DINO's two networks the teacher is the one to use."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights; of a run's folder its best checkpoint if it keeps one, else its newest; of a transformers
    model's folder its largest file.
    """

    path: Path
    transformers: Path | None = None
    """The folder of a transformers model that it belongs to."""

    @classmethod
    def find(cls, source: str | Path) -> "WeightsFile":
        """The file itself, or the best or newest whole checkpoint of a run's folder. InputError if there is none."""
        path = Path(source)
        if is_transformers_folder(path):
            return cls(weights_file(path), transformers=path)
        if path.is_dir():
            folder = RunFolder(path)
            folder.describe()
            checkpoints = folder.checkpoints()
            if not checkpoints:
                raise InputError(f"{path}: has no checkpoint yet; wait until that run has written one")
            whole = (one for one in reversed(checkpoints) if damage(one) is None)
            path = folder.best if folder.best.exists() else next(whole, checkpoints[-1])
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder; give a run's folder or a file of weights")
        return cls(path)

    def describe(self, given: str | Path) -> dict[str, str]:
        """What run.json records; `given` is the file or folder that the user named."""
        with self.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"from": str(Path(given).resolve()), "file": self.path.name, "sha256": sha256}

    def read(self) -> dict[str, Tensor]:
        """Its state dict: the whole file, or what the file calls `model`, `state_dict` or `teacher`.

        No code is unpickled: only tensors, plain types, and `argparse.Namespace`, in which the method's public code
        keeps its options. Of a transformers model, the model's. InputError if that is not enough, or if there is no
        state dict.
        """
        if self.transformers is not None:
            return read_transformers_folder(self.transformers)
        problem = damage(self.path) if is_archive(self.path) else None
        if problem is not None:
            raise InputError(f"{self.path}: {problem}; take another copy of it")
        try:
            if self.path.suffix == ".safetensors":
                return safetensors.torch.load_file(self.path)
            with torch.serialization.safe_globals([argparse.Namespace]):
                content: Any = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"{self.path}: not a file of weights that can be read safely ({_what_it_is(self.path, error)}); give a "
                "state dict as .pth, .pt or .safetensors"
            ) from error
        if isinstance(content, dict) and "detector" in content:
            raise InputError(
                f"{self.path}: a fine-tuned detector's checkpoint, not one of a pretraining run; give the run or file "
                "that it was fine-tuned from, or go on from the detector with socodet finetune --init"
            )
        for name in STATE_DICTS:
            if isinstance(content, dict) and isinstance(content.get(name), dict):
                content = content[name]
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise InputError(f"{self.path}: holds no state dict of tensors; give a file that does")
        if not is_held(content, self.path.stat().st_size):
            raise InputError(f"{self.path}: {NOT_HELD}; take another copy of it")
        return dict(content)


def _what_it_is(path: Path, error: Exception) -> str:
    """What lies there instead of weights, or what made them unreadable."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; git lfs pull gets the file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page, as a download that failed leaves it"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "it is a text file"
    return type(error).__name__


def start_path(start: dict[str, str] | None) -> str | None:
    """What identifies initial weights when a run is resumed: the path given, because the contents may have changed."""
    return None if start is None else start["from"]


@dataclass(frozen=True)
class Pretrained:
    """All tensors of a source of weights."""

    source: str
    format: Format
    tensors: dict[str, Tensor]
    """By plain name (`formats`)."""
    names: dict[str, str]
    """The source's name of each."""
    others: tuple[str, ...]
    """The source's names of tensors without a plain name, such as a target network's."""

    @property
    def modules(self) -> set[str]:
        """The modules that it has something of."""
        return set(map(module_of, self.tensors))

    def encoder_only(self) -> "Pretrained":
        """What is transferred: not the MLPs, the target network or anything else (section 4.2)."""
        tensors = {plain: tensor for plain, tensor in self.tensors.items() if module_of(plain) not in MLPS}
        return replace(self, tensors=tensors, others=())

    def left_over(self, taken: Collection[str]) -> dict[str, str]:
        """The source's names of tensors whose plain name is not among `taken`, and what they belong to in words."""
        known = {self.names[plain]: in_words(plain) for plain in self.tensors if plain not in taken}
        return known | {name: self._top(name) for name in self.others}

    def _top(self, name: str) -> str:
        first, second, *_ = f"{name.removeprefix(self.format.prefix).removeprefix('module.')}.".split(".")
        return f"{first}.{second}" if first in ("rpn", "roi_heads", "backbone") else first


def read_pretrained(source: str | Path, is_body: Callable[[str], bool]) -> Pretrained:
    """Reads a run's folder or a file and gives its tensors plain names; `is_body` as for `formats.recognize`.

    InputError if nothing can be read, if a tensor of a pretraining checkpoint's encoder is unknown, or if one holds NaN
    or infinity.
    """
    file = WeightsFile.find(source)
    # torch.compile puts this before the names of each module that it is called on
    weights = {name.replace("_orig_mod.", ""): tensor for name, tensor in file.read().items()}
    try:
        found = recognize(weights, is_body)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from None
    plain_names = {name: found.names.to_plain(name) for name in weights}
    names = {plain: name for name, plain in plain_names.items() if plain is not None}
    others = tuple(name for name, plain in plain_names.items() if plain is None)
    for name in others:
        if name.startswith(found.encoder):
            raise InputError(
                f"{file.path}: {name} is not part of the encoder that this version knows; pretrain again, or remove it"
            )
    for name in names.values():
        if not bool(weights[name].isfinite().all()):
            raise InputError(
                f"{file.path}: {name} holds NaN or infinity: its training diverged; use an earlier checkpoint"
            )
    return Pretrained(str(file.path), found, {plain: weights[name] for plain, name in names.items()}, names, others)
