"""A probe every few epochs of a pretraining run."""

import math
from collections.abc import Callable

import torch

from socodet.models.encoders import ObjectEncoder
from socodet.models.settings import ModelSettings
from socodet.probing.features import box_encoder
from socodet.probing.measure import ProbeSets, ProbeSettings, probe_encoder
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
    """What `run_loop` calls after each step: the probe's figures where `every` epochs are full, and at the end.

    encoder: the online encoder being trained, on `device`. epochs, total: of the whole run, and its steps.
    The first of several processes probes, and the others wait for it at the next step. It probes a copy of the online
    encoder, so that neither the networks nor any random state feel it.
    """
    workers = default_workers(device) if execution.workers is None else execution.workers
    settings = ProbeSettings()

    def full(step: int) -> int:
        """How many times `every` epochs were full by that step."""
        return math.floor(step / total * epochs / every + 1e-9)

    def after_step(step: int) -> dict[str, float] | None:
        due = full(step) > full(step - 1) or step == total
        if not (due and is_first):
            return None
        probed = box_encoder(model, encoder.state_dict()).to(device)
        return probe_encoder(probed, sets, sample, settings, workers=workers).figures()

    return after_step
