"""What a pretraining run's folder says of its network, and the modules in its newest checkpoint."""

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from socodet.errors import InputError
from socodet.models.settings import WITH_PYRAMID, ModelSettings
from socodet.training.run_folder import AUTO, FINETUNED, RunFolder
from socodet.weights.transformers_folder import is_transformers_folder, transformers_model_settings

if TYPE_CHECKING:
    from torch import Tensor


PUBLISHED_STEPS = 20_000
"""Published runs on small datasets have at least as many steps."""


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


def is_short_run(source: str | Path) -> bool:
    """Whether it is a pretraining run from scratch of fewer than `PUBLISHED_STEPS` steps in which an FPN and its
    backbone learned.

    After such runs a detector that got the backbone alone was better than one that got all modules (docs/results.md).
    A run that started from other weights may have an FPN that had learned for long before; and if its backbone was
    frozen, the other modules are all that it learned.
    """
    run = RunFolder(Path(source))
    if not run.exists() or run.started_from() is not None:
        return False
    with suppress(KeyError, TypeError):  # a fine-tuning run's
        description = run.describe()
        recipe, images = description["recipe"], description["images"]["count"]
        training = recipe["training"]
        steps = math.floor(training["epochs"] * images / training["batch_size"] + 1e-9)
        learned = training.get("backbone_lr", 1.0) > 0
        return recipe["model"]["architecture"] in WITH_PYRAMID and learned and steps < PUBLISHED_STEPS
    return False


def only_its_backbone(source: str | Path) -> bool:
    """Whether a detector gets only the backbone by default: of a short run whose recipe was planned, not named."""
    return is_short_run(source) and RunFolder(Path(source)).describe()["recipe"].get("name") == AUTO
