"""A probe every few epochs of a pretraining run."""

import math
from collections.abc import Callable

from socodet.detection.probing.features import box_encoder
from socodet.detection.probing.measure import ProbeSets, ProbeSettings, probe_encoder
from socodet.models.settings import ModelSettings
from socodet.training.devices import default_workers
from socodet.training.loop import Trainer
from socodet.training.settings import ExecutionSettings
from socodet.views.settings import SampleSettings


def probe_while_training(
    trainer: Trainer,
    model: ModelSettings,
    sample: SampleSettings,
    sets: ProbeSets,
    every: float,
    execution: ExecutionSettings,
) -> Callable[[int], dict[str, float] | None]:
    """What `run_loop` calls after each step: the probe's figures where `every` epochs are full, and at the end.

    The first of several processes probes, and the others wait for it at the next step. It probes a copy of the online
    encoder, so that neither the networks nor any random state feel it.
    """
    workers = default_workers(trainer.device) if execution.workers is None else execution.workers
    settings = ProbeSettings()

    def full(step: int) -> int:
        """How many times `every` epochs were full by that step."""
        return math.floor(step / trainer.total * trainer.settings.epochs / every + 1e-9)

    def after_step(step: int) -> dict[str, float] | None:
        due = full(step) > full(step - 1) or step == trainer.total
        if not (due and trainer.world.is_first):
            return None
        encoder = box_encoder(model, trainer.soco.online.encoder.state_dict()).to(trainer.device)
        return probe_encoder(encoder, sets, sample, settings, workers=workers).figures()

    return after_step
