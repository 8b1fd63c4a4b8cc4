"""Runs an ablation: every row of one of the paper's tables, on the same images and proposals.

DIR/ablation.json               what was requested, so that only matching results get into the table
DIR/proposals-METHOD.parquet    the boxes that all rows share
DIR/ROW/seed-S/                 a row's run; seed-S.json beside it has its recall, or the step where it diverged
DIR/ROW/seed-S-transfer/        the detector fine-tuned from it; the .json beside it has its scores or where it diverged
DIR/FAMILY.csv .md .png .svg    the table and its figure
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.source import Images, ImageSource, as_source, digest_names, reading_of
from socodet.models.architectures import build_encoder, encoder_class
from socodet.models.soco import build_soco
from socodet.pretraining.data import SampleDataset
from socodet.pretraining.preparation import check_steps, file_digest, sample_images
from socodet.pretraining.recipes import Recipe
from socodet.probing.features import reestimate_on_views
from socodet.probing.retrieval import BATCH_SIZE, DRAWS, FIRST_DRAW, MEASURED, recall_at_1
from socodet.proposals.settings import BLIND
from socodet.proposals.table import ProposalTable
from socodet.runtime.differences import differences, refuse_different_study
from socodet.runtime.files import resolve_path
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.overwriting import refuse_to_delete
from socodet.runtime.serialization import to_json, values_with_defaults
from socodet.runtime.world import ALONE
from socodet.studies.ablation.budget import FAMILIES, PAPER, Budget, FamilyRow, family_rows
from socodet.studies.ablation.table import (
    FINETUNING,
    PRETRAINING,
    AblationRow,
    AblationTable,
    finetune_columns,
    read_row,
    row_settings,
)
from socodet.studies.finetuning_runs import DESCRIBED, FinetuningRuns
from socodet.studies.pretraining_runs import PretrainingRuns, proposal_tables, table_of
from socodet.studies.runner import Job, Label, Study, require_one_process
from socodet.training.devices import choose_device
from socodet.training.settings import ExecutionSettings
from socodet.views.batch import collate
from socodet.weights.pretrained_run import encoder_weights


@releases_folder_locks
def ablate(
    family: str,
    images: Images,
    output: str | Path,
    budget: Budget | None = None,
    *,
    proposals: str | Path | None = None,
    finetune: FinetuningRuns | None = None,
    execution: ExecutionSettings | None = None,
    retry_diverged: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> AblationTable:
    """Pretrains every row of one of the paper's tables at a budget, and writes the table of results.

    `proposals` is a proposal table of these images for the rows with selective search; by default one is made for all.
    `finetune` (from `row_detectors`) also fine-tunes a detector from every row. `execution.max_steps` applies to each
    run.

    Repeating the call resumes after an interruption: finished rows are not run again, and seeds or fine-tuning can be
    added. A row that diverges, in pretraining or fine-tuning, is recorded with the step, and is continued from its last
    good checkpoint only with `retry_diverged`. SIGINT and SIGTERM end the call after the current step; the table,
    returned and on disk, then has the results so far.

    InputError for an unknown family, a budget or images that cannot be used, or an output that holds something else.
    """
    require_one_process("ablate")
    budget = budget or Budget()
    rows = family_rows(family, budget)
    source = as_source(images)
    if budget.limit is not None:
        source = sample_images(source, budget.limit, 0)
    for row in rows:
        check_steps(source, row.recipe, len(source))
    usual: str = PAPER.proposals.method
    if overwrite:
        refuse_to_delete(output, {"--proposals": proposals})
    given = {} if proposals is None else {usual: _objects_of(source, proposals)}
    choose_device((execution or ExecutionSettings()).device, ALONE)  # InputError before anything is written
    if finetune is not None:
        finetune.check_fractions([finetune.settings.fraction or 1.0], budget.seeds)
    study = Study(resolve_path(output), "ablation", show_progress=show_progress)
    finetuned = _prepare(study, family, budget, source, proposals, finetune, overwrite=overwrite)
    wanted = {usual: PAPER.proposals}
    wanted |= {row.recipe.proposals.method: row.recipe.proposals for row in rows}
    tables = proposal_tables(study.folder, source, wanted, given, show_progress=show_progress)
    runs = PretrainingRuns(source, tables, execution or ExecutionSettings(), show_progress)
    jobs = [job for row in rows for seed in budget.seeds for job in _jobs(study, row, seed, runs, budget, finetune)]

    def table(stopped_by: str | None = None) -> AblationTable:
        lines: list[AblationRow] = []
        for row in rows:
            boxes = row.recipe.proposals.method
            settings = row_settings(row, len(runs.readable(boxes)), tables[boxes].settings.method)
            lines += read_row(row, settings | finetune_columns(finetuned), study, study.outcomes(jobs))
        return AblationTable(family, study.folder, tuple(lines), stopped_by)

    stopped_by = study.run(jobs, lambda: table().write(), retry_diverged=retry_diverged)
    if finetune is not None and finetune.unreadable:
        study.say(f"fine-tuning: {len(finetune.unreadable)} images could not be read and were left out")
    result = table(stopped_by)
    result.write()
    result.write_figure()
    return result


def row_detectors(
    train: str | Path,
    val: str | Path | None = None,
    *,
    settings: FinetuneSettings,
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    execution: ExecutionSettings | None = None,
    show_progress: bool = True,
) -> FinetuningRuns:
    """How the detector of every row of `ablate` is fine-tuned; modules that a row did not pretrain start fresh.

    `train` and `val` are datasets as in `open_detection_set`; of a folder, its training and validation splits.
    `settings` apply to every row, except the seed, which is the row's. images, reading, execution: as in `finetune`.
    InputError for datasets that cannot be used.
    """
    return FinetuningRuns.open(
        train,
        val,
        images=images,
        reading=reading,
        settings=settings,
        execution=execution or ExecutionSettings(),
        show_progress=show_progress,
        evaluations=1,
        val_flag="--finetune.val",
    )


def _objects_of(source: ImageSource, path: str | Path) -> ProposalTable:
    """The table for the rows with selective search. InputError if its boxes ignore the image."""
    table = table_of(source, path)
    if table.settings.method in BLIND:
        raise InputError(
            f"{path}: its boxes are {table.settings.method}; --proposals is for the rows with selective search: give "
            "a table of such boxes, or leave it out"
        )
    return table


def _jobs(
    study: Study, row: FamilyRow, seed: int, runs: PretrainingRuns, budget: Budget, finetune: FinetuningRuns | None
) -> list[Job]:
    """The jobs of a row and seed: pretraining, and fine-tuning if requested."""
    name = f"{row.name}/seed-{seed}"
    labels: dict[str, Label] = {"row": row.name, "seed": seed}
    pretraining = runs.job(
        name,
        row.recipe,
        {**labels, "stage": PRETRAINING},
        f"{row.name}, seed {seed}: {row.what}",
        lambda run: {"recall": object_recall(run, row.recipe, seed, budget, runs)},
        boxes=row.recipe.proposals.method,
    )
    if finetune is None:
        return [pretraining]
    about = f"{row.name}, seed {seed}: fine-tuning"
    stage: dict[str, Label] = {**labels, "stage": FINETUNING}
    return [pretraining, finetune.job(f"{name}-transfer", study.folder / name, stage, about, needs=(name,))]


def object_recall(run: Path, recipe: Recipe, seed: int, budget: Budget, runs: PretrainingRuns) -> dict[str, float]:
    """Recall@1 of objects from the first to the second view, by h (Eq. 1), before and after training; needs no labels.

    Images, views, boxes (from selective search) and random draws are the same for every row; only the pyramid levels
    are the row's own. Empty for whole-image networks, which have no features of objects.
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


def _prepare(
    study: Study,
    family: str,
    budget: Budget,
    source: ImageSource,
    proposals: str | Path | None,
    finetune: FinetuningRuns | None,
    *,
    overwrite: bool,
) -> dict[str, Any] | None:
    """Creates the folder, or finds the same ablation in it; returns how its rows are fine-tuned, or None.

    InputError when the folder holds something else, or results of a different fine-tuning.
    """
    cost = asdict(budget)
    del cost["seeds"]  # more may be added later
    requested = {
        "family": family,
        "budget": cost,
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "proposals": None if proposals is None else str(Path(proposals).resolve()),
    }
    inputs = {
        "table": None if proposals is None else {"sha256": file_digest(Path(proposals))},
        "reading": to_json(reading_of(source)),
    }
    begun = study.noted()
    if proposals is not None and not overwrite and begun.get("inputs", {}).get("table") == inputs["table"]:
        requested["proposals"] = begun["asked"]["proposals"]  # the same table, which may have moved
    there = study.find(requested, overwrite=overwrite)
    refuse_different_study(study.folder, inputs, there.get("inputs", inputs), "an ablation")
    noted: dict[str, Any] | None = there.get("finetune")
    finetuned = noted
    if finetune is not None:
        finetuned = {"names": [finetune.training.name, finetune.validation.name], **finetune.describe()}
        there_now = noted and {**noted, "names": finetuned["names"]}  # their contents are compared, not their names
        difference = there_now and differences(finetuned, values_with_defaults(DESCRIBED, there_now))
        if difference and any(study.folder.glob("*/seed-*-transfer*")):
            raise InputError(
                f"{study.folder}: its rows are fine-tuned differently: {difference}; give another --output, or remove "
                f"{study.folder}/*/seed-*-transfer* to lose those results and keep the pretrained rows"
            )
    lock_folder(study.folder)
    study.begin(
        requested,
        [*(f"{name}.*" for name in FAMILIES), "proposals*", ".proposals*"],
        overwrite=overwrite,
        finetune=finetuned,
        inputs=inputs,
    )
    return finetuned
