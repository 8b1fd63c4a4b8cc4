"""Recall@1 of a row's network: the same question for every row, answered without labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from socodet.models.encoders import build_encoder, encoder_class
from socodet.models.soco import build_soco
from socodet.pretraining.data import SampleDataset
from socodet.pretraining.recipes import Recipe
from socodet.probing.features import reestimate_on_views
from socodet.probing.retrieval import BATCH_SIZE, DRAWS, FIRST_DRAW, MEASURED, recall_at_1
from socodet.runtime.world import ALONE
from socodet.studies.ablation.budget import PAPER, Budget
from socodet.studies.pretraining_runs import PretrainingRuns
from socodet.training.devices import choose_device
from socodet.views.batch import collate
from socodet.weights.pretrained_run import encoder_weights


def object_recall(run: Path, recipe: Recipe, seed: int, budget: Budget, runs: PretrainingRuns) -> dict[str, float]:
    """Recall@1 of objects from the first to the second view, by h (Eq. 1), before and after training.

    Images, views, boxes (selective search's) and draws are the same for every row; only the pyramid levels are the
    row's. Empty for whole-image networks, which have no features of an object.
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
    draws = [
        [collate([dataset[epoch, int(index)] for index in part]) for part in parts]
        for epoch in range(FIRST_DRAW, FIRST_DRAW + 2 * DRAWS)
    ]
    trained = build_encoder(recipe.model)
    trained.load_state_dict(encoder_weights(run))
    networks = {"recall": trained, "recall_untrained": build_soco(recipe.model, seed).online.encoder}
    for encoder in networks.values():
        encoder.to(choose_device(runs.execution.device, ALONE))
        reestimate_on_views(encoder, (view for draw in draws[DRAWS:] for batch in draw for view in batch.views))
    return {name: recall_at_1(encoder, draws[:DRAWS]) for name, encoder in networks.items()}
