"""A probe every few epochs of a pretraining run."""

import math
from collections.abc import Callable

import torch

from socodet.models.encoders import ObjectEncoder
from socodet.models.settings import ModelSettings
from socodet.probing.features import box_encoder
from socodet.probing.scores import probe_encoder
from socodet.probing.sets import ProbeSets
from socodet.probing.settings import ProbeSettings
from socodet.training.devices import default_workers
from socodet.training.settings import ExecutionSettings
from socodet.views.settings import SampleSettings


def probe_while_training(
    encoder: ObjectEncoder,
    model: ModelSettings,
    sample: SampleSettings,
    sets: ProbeSets,
    *,
    every: float,
    epochs: float,
    total: int,
    device: torch.device,
    is_first: bool,
    execution: ExecutionSettings,
) -> Callable[[int], dict[str, float] | None]:
    """A function for `run_loop` to call after each step: it probes after every `every` epochs and at the end.

    encoder: the online encoder in training, on `device`. epochs, total: epochs and steps of the whole run. The first
    process probes, and the others wait for it at the next step. It probes a copy of the encoder, so that neither the
    networks nor any random state change.
    """
    workers = default_workers(device) if execution.workers is None else execution.workers
    settings = ProbeSettings()

    def probes_due(step: int) -> int:
        """How many times `every` epochs have passed by that step."""
        return math.floor(step / total * epochs / every + 1e-9)

    def after_step(step: int) -> dict[str, float] | None:
        due = probes_due(step) > probes_due(step - 1) or step == total
        if not (due and is_first):
            return None
        probed = box_encoder(model, encoder.state_dict()).to(device)
        return probe_encoder(probed, sets, sample, settings, workers=workers).metrics()

    return after_step
