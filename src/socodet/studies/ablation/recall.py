"""Does a row's network find an object again? The same question for every row, answered without labels."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from socodet.models.encoders import ObjectEncoder, build_encoder, encoder_class
from socodet.models.normalization import reestimate_batch_norm
from socodet.pretraining.data import SampleDataset
from socodet.pretraining.pretrain import build_soco
from socodet.pretraining.recipes import Recipe
from socodet.probing.retrieval import BATCH_SIZE, DRAWS, FIRST_DRAW, MEASURED, recall_at_1
from socodet.runtime.world import ALONE
from socodet.studies.ablation.budget import PAPER, Budget
from socodet.studies.pretraining_runs import PretrainingRuns
from socodet.training.devices import choose_device
from socodet.views.batch import Batch, collate
from socodet.weights.pretrained_run import encoder_weights


def object_recall(run: Path, recipe: Recipe, seed: int, budget: Budget, runs: PretrainingRuns) -> dict[str, float]:
    """Recall@1 of objects from the first to the second view, by h (Eq. 1), before and after training.

    Images, views, boxes (selective search's) and draws are the same for every row; the row gives only the pyramid
    levels. Empty for whole-image networks, which have no vector of an object.
    """
    if not encoder_class(recipe.model).encodes_boxes:
        return {}
    first_two = replace(PAPER.sample, views=PAPER.sample.views[:2], jitter=0.0)
    question = budget.scaled(replace(PAPER, sample=first_two)).sample
    settings = replace(question, level_rule=recipe.sample.level_rule, level_limits=recipe.sample.level_limits)
    boxes = PAPER.proposals.method
    readable = runs.readable(boxes)
    dataset = SampleDataset(runs.source, runs.tables[boxes], readable, settings, seed=0)
    chosen = np.random.default_rng(0).permutation(readable)[:MEASURED]
    parts = np.array_split(chosen, -(-len(chosen) // BATCH_SIZE))
    asked, for_statistics = (
        [[collate([dataset[epoch, int(index)] for index in part]) for part in parts] for epoch in epochs]
        for epochs in (range(FIRST_DRAW, FIRST_DRAW + DRAWS), range(FIRST_DRAW + DRAWS, FIRST_DRAW + 2 * DRAWS))
    )
    trained = build_encoder(recipe.model)
    trained.load_state_dict(encoder_weights(run))
    networks = {"recall": trained, "recall_untrained": build_soco(recipe.model, seed).online.encoder}
    return {
        name: _recall(encoder.to(choose_device(runs.execution.device, ALONE)), asked, for_statistics)
        for name, encoder in networks.items()
    }


def _recall(
    encoder: ObjectEncoder, asked: Sequence[Sequence[Batch]], for_statistics: Sequence[Sequence[Batch]]
) -> float:
    device = next(encoder.parameters()).device
    batches = (batch for draw in for_statistics for batch in draw)
    reestimate_batch_norm(encoder, (view for batch in batches for view in batch.to(device).views))
    return recall_at_1(encoder, asked)
