"""Does a row's network find an object again? The same question for every row, answered without labels."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from socodet.images.source import ImageSource
from socodet.models.encoders import ObjectEncoder, build_encoder, encoder_class
from socodet.models.normalization import reestimate_batch_norm
from socodet.pretraining.data import SampleDataset
from socodet.pretraining.pretrain import build_soco
from socodet.pretraining.recipes import Recipe
from socodet.probing.retrieval import recall_at_1
from socodet.proposals.table import ProposalTable
from socodet.runtime.world import ALONE
from socodet.training.devices import choose_device
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import Batch, collate
from socodet.views.settings import SampleSettings
from socodet.weights.pretrained_run import encoder_weights

MEASURED = 48
"""Images looked at."""
DRAWS = 4
"""Draws of their views; as many again give the batch-norm statistics."""
AT_ONCE = 16
"""Images a batch."""
FIRST_EPOCH = 10**6
"""Draws of training's own kind, from epochs no run reaches."""


def measured_images(readable: NDArray[np.int64]) -> NDArray[np.int64]:
    """The images the question is asked of: up to `MEASURED`, the same for every row."""
    return np.random.default_rng(0).permutation(readable)[:MEASURED]


def object_recall(
    run: RunFolder,
    recipe: Recipe,
    question: SampleSettings,
    source: ImageSource,
    table: ProposalTable,
    readable: NDArray[np.int64],
    execution: ExecutionSettings,
) -> dict[str, float]:
    """Recall@1 of objects from the first to the second view of `question`, by h (Eq. 1), before and after training.

    Views, boxes and draws are the same for every row; the row gives only the pyramid levels. None of it for
    whole-image networks, which have no object's vector: an empty dict.
    """
    if not encoder_class(recipe.model).encodes_boxes:
        return {}
    settings = replace(question, level_rule=recipe.sample.level_rule, level_limits=recipe.sample.level_limits)
    dataset = SampleDataset(source, table, readable, settings, seed=0)
    chosen = measured_images(readable)
    parts = np.array_split(chosen, -(-len(chosen) // AT_ONCE))
    asked, for_statistics = (
        [[collate([dataset[epoch, int(index)] for index in part]) for part in parts] for epoch in epochs]
        for epochs in (range(FIRST_EPOCH, FIRST_EPOCH + DRAWS), range(FIRST_EPOCH + DRAWS, FIRST_EPOCH + 2 * DRAWS))
    )
    trained = build_encoder(recipe.model)
    trained.load_state_dict(encoder_weights(run.path))
    untrained = build_soco(recipe.model, recipe.training.seed).online.encoder
    return {
        "recall": _recall(trained, asked, for_statistics, execution),
        "recall_untrained": _recall(untrained, asked, for_statistics, execution),
    }


def _recall(
    encoder: ObjectEncoder,
    asked: Sequence[Sequence[Batch]],
    for_statistics: Sequence[Sequence[Batch]],
    execution: ExecutionSettings,
) -> float:
    device = choose_device(execution.device, ALONE)
    encoder.to(device)
    batches = (batch for draw in for_statistics for batch in draw)
    reestimate_batch_norm(encoder, (view for batch in batches for view in batch.to(device).views))
    return recall_at_1(encoder, asked)
