"""Runs to export: a folder with one checkpoint in which all tensors differ."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from socodet.models import backbones
from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder


@dataclass(frozen=True)
class ExportableRun:
    """A run, and the modules transferred from it."""

    path: Path
    settings: ModelSettings
    encoder: torch.nn.Module

    @property
    def tensors(self):
        return self.encoder.state_dict()

    def digests(self):
        return sorted(self.digest(value.numpy()) for value in self.tensors.values())

    @staticmethod
    def digest(array):
        """A digest that is equal for equal shapes, types and values."""
        return hashlib.sha256(f"{array.shape} {array.dtype}".encode() + array.tobytes()).hexdigest()


@pytest.fixture(scope="session")
def exportable_run(tmp_path_factory):
    """`exportable_run(architecture=…, backbone=…)` → ExportableRun, cached by its arguments."""
    made = {}

    def make(**fields):
        settings = ModelSettings(hidden_size=8, embedding_size=4, **fields)
        key = settings, backbones.ResNet  # some test modules make networks narrow
        if key in made:
            return made[key]
        torch.manual_seed(len(made))
        encoder = build_encoder(settings).eval()
        with torch.no_grad():
            for index, (name, tensor) in enumerate(encoder.state_dict().items()):
                if not tensor.is_floating_point():
                    tensor.fill_(1000 + index)
                elif name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
                    tensor.uniform_(0.5, 1.5)
                elif tensor.dim() == 1:
                    tensor.normal_(0, 0.1)
        run = RunFolder(tmp_path_factory.mktemp("shared_run"))
        run.write_description(
            {
                "recipe": to_json(Recipe("custom", model=settings)),
                "images": {"count": 1234, "names_sha256": "ab" * 32},
                "versions": {"socodet": "0.1.0", "torch": "2.11.0"},
            }
        )
        state = {f"online.encoder.{name}": value for name, value in encoder.state_dict().items()}
        run.save_checkpoint(30, {"step": 30, "total_steps": 100, "model": state})
        run.log.write_text('{"step": 20, "loss": -1.5}\n{"step": 30, "loss": -2.25, "effective_rank": 17.5}\n')
        made[key] = ExportableRun(run.path, settings, encoder)
        return made[key]

    return make
