"""How long a step of a recipe takes here, measured on a few steps whose weights are thrown away."""

import statistics
import time

import numpy as np
import torch

from socodet.errors import InputError
from socodet.images.source import ImageSource, white_of
from socodet.models.encoders import build_encoder
from socodet.models.objective import build_objective
from socodet.models.soco import SoCo
from socodet.pretraining.data import SampleDataset
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.trainer import Trainer
from socodet.proposals.on_the_fly import OnlineProposals
from socodet.runtime.cores import available_cores
from socodet.training.settings import ExecutionSettings

FIRST, TIMED = 2, 3
"""Steps that warm up, and steps that are timed."""


def seconds_per_step(recipe: Recipe, source: ImageSource, execution: ExecutionSettings) -> float:
    """Median seconds of a step of `recipe` on images of `source`, with what its samples cost the data workers.

    On a CPU the workers share the cores with the step, so both are added; beside a GPU the slower of the two counts.
    Random state and threads are left as they were. InputError when no image can be read.
    """
    training = recipe.training
    dataset = SampleDataset(
        source,
        OnlineProposals(recipe.proposals, white_of(source)),
        np.arange(len(source)),
        recipe.sample,
        training.seed,
    )
    size = training.batch_size
    places = [(position // len(source), position % len(source)) for position in range(size)]
    dataset.__getitems__(places[:1])  # compiles the kernels
    try:
        batch = dataset.__getitems__(places)
    except OSError as error:
        raise InputError(f"{source.location}: {error}; check the files") from None
    with torch.random.fork_rng(devices=[]):
        soco = SoCo(build_encoder(recipe.model), recipe.model, build_objective(recipe.objective))
    trainer = Trainer(soco, training, len(source), execution)
    seconds = []
    for _ in range(FIRST + TIMED):
        before = time.monotonic()
        loss, _ = trainer.step(batch)
        float(loss)  # waits for the device
        seconds.append(time.monotonic() - before)
    step, data = statistics.median(seconds[FIRST:]), batch.cpu_seconds / available_cores()
    return step + data if trainer.device.type == "cpu" else max(step, data)
