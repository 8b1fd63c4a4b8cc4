"""A probe every few epochs of a pretraining run."""

import math
from collections.abc import Callable
from contextlib import suppress

from socodet.pretraining.recipes import Recipe
from socodet.pretraining.trainer import Trainer
from socodet.probing.datasets import ProbeDatasets
from socodet.probing.features import box_encoder
from socodet.probing.scores import probe_encoder
from socodet.probing.settings import ProbeSettings
from socodet.training.distributed import agree_flags
from socodet.training.learner import StoppedEarlyError
from socodet.training.settings import ExecutionSettings
from socodet.training.signals import stop_requests


def probe_while_training(
    trainer: Trainer, recipe: Recipe, sets: ProbeDatasets | None, every: float | None, execution: ExecutionSettings
) -> Callable[[int], dict[str, float] | None] | None:
    """A function for `run_loop` to call after each step: it probes after every `every` epochs and at the end.

    None if no probe was asked for. The first process probes, and the others wait for it. It probes a copy of the online
    encoder, so that neither the networks nor any random state change. The function raises StoppedEarlyError, in every
    process, when a signal stops the probe.
    """
    if sets is None or every is None:
        return None
    encoder, device = trainer.soco.online.encoder, trainer.device

    def probes_due(step: int) -> int:
        """How many times `every` epochs have passed by that step."""
        return math.floor(step / trainer.total * recipe.training.epochs / every + 1e-9)

    def after_step(step: int) -> dict[str, float] | None:
        due = probes_due(step) > probes_due(step - 1) or step == trainer.total
        if not due:
            return None
        trainer.require_finite()
        scores: dict[str, float] | None = None
        with stop_requests() as requests:
            if trainer.world.is_first:
                probed = box_encoder(recipe.model, encoder.state_dict()).to(device)
                with suppress(StoppedEarlyError):
                    probe = probe_encoder(
                        probed, sets, recipe.sample, ProbeSettings(), workers=execution.workers, stop=requests
                    )
                    scores = probe.metrics()
        if agree_flags(trainer.world, (trainer.world.is_first and scores is None,))[0]:
            raise StoppedEarlyError
        return scores

    return after_step
