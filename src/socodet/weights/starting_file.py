"""The starting point of a pretraining run as it lies on disk: a file of weights, or another run's folder."""

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from socodet.errors import InputError
from socodet.training.run_folder import RunFolder


def start_path(start: dict[str, str] | None) -> str | None:
    """What tells two starts apart when a run goes on: the place named, for what lies there may have gone on or away."""
    return None if start is None else start["from"]


@dataclass(frozen=True)
class StartingFile:
    """Where a run's first weights come from; `sha256` is of the file, a checkpoint where a folder was given."""

    path: Path
    sha256: str

    @classmethod
    def find(cls, source: str | Path) -> "StartingFile":
        """The file itself, or the newest checkpoint of a run's folder. InputError when there is none."""
        path = Path(source)
        if path.is_dir():
            folder = RunFolder(path)
            folder.describe()
            checkpoints = folder.checkpoints()
            if not checkpoints:
                raise InputError(f"{path}: has no checkpoint yet to start from; let that run go on until it writes one")
            path = checkpoints[-1]
        if not path.is_file():
            raise InputError(f"{path}: no such file; give a state dict or a run's folder to start from")
        with path.open("rb") as file:
            return cls(path, hashlib.file_digest(file, "sha256").hexdigest())

    def describe(self, given: str | Path) -> dict[str, str]:
        """What run.json says of it; `given` is the file or folder that the user named."""
        return {"from": str(Path(given).resolve()), "file": self.path.name, "sha256": self.sha256}

    def read(self) -> dict[str, Tensor]:
        """The state dict in it, be it the whole file or what the file calls `model` or `state_dict`, on the CPU.

        Of code nothing is unpickled: besides tensors and plain types only `argparse.Namespace`, in which the method's
        public code keeps its options. InputError when that is not enough, or there is no state dict.
        """
        try:
            if self.path.suffix == ".safetensors":
                return safetensors.torch.load_file(self.path)
            with torch.serialization.safe_globals([argparse.Namespace]):
                content: Any = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"{self.path}: not a file of weights that can be read safely ({type(error).__name__}); "
                "give a state dict as .pth, .pt or .safetensors"
            ) from error
        for name in ("model", "state_dict"):
            if isinstance(content, dict) and isinstance(content.get(name), dict):
                content = content[name]
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise InputError(f"{self.path}: holds no state dict of tensors; give one to start from")
        return dict(content)
