"""`socodet demo`: propose, pretrain, export, load into a detector, and one page that shows what happened."""

import dataclasses
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from socodet._version import __version__
from socodet.detection.build import build_detector
from socodet.errors import InputError
from socodet.export import export_run
from socodet.images.photographs import photographs
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.models.encoders import build_encoder
from socodet.pretraining.preparation import digest_names
from socodet.pretraining.pretrain import PretrainResult, build_soco, pretrain
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.recipes.practical import tiny
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.reports.curves import curve_pictures, level_pictures
from socodet.reports.page import Gallery, Section, Table, Verdict, write_page
from socodet.reports.sections import (
    MEASURED,
    SAMPLES,
    SHOWN,
    Network,
    proposal_pictures,
    readable_pictures,
    retrieval,
    retrieval_section,
    view_pictures,
)
from socodet.reports.verdicts import loss_verdict, recall_verdict, spread_verdict
from socodet.runtime.files import write_atomically
from socodet.training.run_folder import RunFolder
from socodet.weights.pretrained_run import encoder_weights
from socodet.weights.transfer import LoadReport, load_pretrained

STEPS = 120
MOST_IMAGES = 1500
"""More than the demo's steps can look at."""


@dataclass(frozen=True)
class DemoResult:
    """Where the demo put things, and what came out."""

    output: Path
    table: Path
    run: Path
    weights: Path
    report: Path
    verdicts: tuple[Verdict, ...]
    load_report: LoadReport
    seconds: float

    def __str__(self) -> str:
        lines = [f"{'ok ' if v.passed else 'NOT'} {v.name}: {v.figure}  ({v.explanation})" for v in self.verdicts]
        return "\n".join(
            [
                *lines,
                str(self.load_report),
                f"proposals  {self.table}",
                f"run        {self.run}",
                f"weights    {self.weights}",
                f"report     {self.report}",
                f"took {self.seconds:.0f} s",
            ]
        )


def demo(
    images: str | Path | None = None, output: str | Path = "demo", *, overwrite: bool = False, seed: int = 0
) -> DemoResult:
    """The whole main job with 120 steps of the recipe `tiny`, on our photographs or a folder (of a large one, some).

    Interrupted, it goes on where it was. InputError for a bad folder, or when `output` holds a finished demo and
    `overwrite` is false.
    """
    began = time.monotonic()
    folder = Path(output)
    source = open_images(photographs() if images is None else images)
    if len(source) > MOST_IMAGES:
        some = np.random.default_rng(0).permutation(len(source))[:MOST_IMAGES]
        source = ImageSelection(source, sorted(some.tolist()))
    table_path, run, weights, report = (
        folder / name for name in ("proposals.parquet", "run", "weights.pth", "report.html")
    )
    _prepare(folder, source, seed, overwrite)
    if not table_path.exists():
        propose(source, table_path)
    table = ProposalTable.read(table_path)
    chosen = _shortened(tiny(), max(1, len(source) - len(table.unreadable)), seed)
    result = pretrain(source, chosen, run, proposals=table_path, resume=True)
    if not result.finished:
        raise KeyboardInterrupt
    export_run(run, weights, overwrite=True)
    load_report = load_pretrained(build_detector(run, show_report=False), weights, show_report=False)
    verdicts = _write_report(report, source, table, chosen, result, load_report)
    return DemoResult(folder, table_path, run, weights, report, verdicts, load_report, time.monotonic() - began)


def _prepare(folder: Path, source: ImageSource, seed: int, overwrite: bool) -> None:
    """Makes the folder, or lets an unfinished demo of the same images go on; a finished one goes only if asked."""
    asked = {"version": __version__, "images": digest_names(source), "seed": seed}
    note = folder / "demo.json"
    if folder.is_file():
        raise InputError(f"{folder}: is a file; give a folder for --output")
    if folder.is_dir() and any(folder.iterdir()) and not note.exists():
        raise InputError(f"{folder}: holds files that are not a demo's; give another --output")
    if note.exists():
        unfinished = not (folder / "report.html").exists()
        if unfinished and json.loads(note.read_text()) == asked:
            return
        if not overwrite:
            state = "an unfinished demo of other images or seed" if unfinished else "a finished demo"
            raise InputError(f"{folder}: holds {state}; give another --output or pass --overwrite")
        for name in ("report.html", "weights.pth", "proposals.parquet"):
            (folder / name).unlink(missing_ok=True)
        RunFolder(folder / "run").clear()
    write_atomically(note, json.dumps(asked).encode())


def _shortened(recipe: Recipe, images: int, seed: int) -> Recipe:
    """The recipe with the epochs that make `STEPS` steps of a set of this size."""
    training = recipe.training
    epochs = (STEPS + 0.5) * training.batch_size / images
    warmup = training.warmup_epochs / training.epochs * epochs
    return dataclasses.replace(
        recipe, training=dataclasses.replace(training, epochs=epochs, warmup_epochs=warmup, seed=seed)
    )


def _write_report(
    path: Path,
    source: ImageSource,
    table: ProposalTable,
    recipe: Recipe,
    result: PretrainResult,
    load_report: LoadReport,
) -> tuple[Verdict, ...]:
    pictures = list(readable_pictures(source, lambda key, _: table.boxes(key), MEASURED))
    seed = recipe.training.seed
    trained = build_encoder(recipe.model)
    trained.load_state_dict(encoder_weights(result.run))
    networks = [
        Network("untrained", build_soco(recipe.model, seed).online.encoder, recipe.sample),
        Network("trained", trained, recipe.sample),
    ]
    for network in networks:
        network.take_statistics(pictures, seed)
    recall = retrieval(networks, pictures, seed)
    lines = list(RunFolder(result.run).log_lines())
    size = recipe.model.embedding_size
    verdicts = (
        loss_verdict(lines),
        spread_verdict(lines[-1]["embedding_std"], size),
        recall_verdict(recall["trained"][0], recall["untrained"][0]),
    )
    charts = [*curve_pictures({"demo": lines}, embedding_size=size), *level_pictures({"demo": lines})]
    sections = [
        Section(
            "Proposals",
            "Selective search finds these boxes without a label; pretraining draws its objects from them.",
            [proposal_pictures(pictures[:SHOWN])],
        ),
        Section(
            "Views",
            "Each object is seen in several views at other scales and places. An object has the same colour in "
            "every view; its pyramid level is written on its box.",
            view_pictures(pictures[:SAMPLES], recipe.sample, seed),
        ),
        Section("Training", "", [Gallery(charts, size="large")]),
        retrieval_section(
            networks,
            pictures,
            recall,
            seed,
            "Batch-norm statistics of both networks are those of these pictures.",
        ),
        Section(
            "The detector",
            "torchvision's Mask R-CNN after loading the exported weights.",
            [Table(("Module", "Tensors", "Weights"), _modules(load_report))],
        ),
    ]
    write_page(
        path,
        "A detector pretrained without labels",
        sections,
        {
            "Images": f"{len(source)} from {source.location}",
            "Recipe": f"{recipe.name}, {result.total_steps} steps of {recipe.training.batch_size} images",
            "Backbone": recipe.model.backbone,
            "Pretraining took": f"{result.seconds:.0f} s",
            "Device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})",
            "Versions": f"socodet {__version__}, torch {torch.__version__}",
        },
        lead="Proposals from selective search, SoCo pretraining, and the weights in a Mask R-CNN.",
        verdicts=verdicts,
    )
    return verdicts


def _modules(report: LoadReport) -> list[tuple[str, str, str]]:
    """A row a module of the detector: its name, its tensors, and where they come from."""
    rows = []
    for origin, modules in (("pretrained", report.loaded_modules), ("fresh", report.fresh_modules)):
        rows += [(name, str(tensors), origin) for name, tensors in modules.items()]
    return rows
