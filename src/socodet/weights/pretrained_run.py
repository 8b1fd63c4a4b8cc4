"""The pretrained modules in a run's newest checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from socodet.errors import InputError
from socodet.models.settings import ModelSettings
from socodet.training.run_folder import FINETUNED, RunFolder
from socodet.weights.transformers_folder import is_transformers_folder, transformers_model_settings

if TYPE_CHECKING:
    from torch import Tensor


def model_settings(run: str | Path) -> ModelSettings:
    """Model settings of a run, or of a transformers detector in a folder. InputError when it is neither."""
    if is_transformers_folder(run):
        return transformers_model_settings(Path(run))
    return RunFolder(Path(run)).settings(ModelSettings, "model")


def encoder_weights(run: str | Path) -> "dict[str, Tensor]":
    """The online encoder's state dict, which is all that is transferred: no projector or predictor (section 4.2)."""
    folder = RunFolder(Path(run))
    if folder.describe("pretrain")["recipe"].get("name") == FINETUNED:
        raise InputError(
            f"{folder.path}: is a fine-tuning run, not a pretraining run; give the run that it started from"
        )
    state = folder.load_checkpoint()
    if state is None:
        raise InputError(f"{folder.path}: has no checkpoint yet; let the run continue until it writes one")
    if "model" not in state:
        raise InputError(
            f"{folder.path}: its newest checkpoint is not a pretraining run's; give the folder that pretrain wrote"
        )
    prefix = "online.encoder."
    return {name.removeprefix(prefix): value for name, value in state["model"].items() if name.startswith(prefix)}
