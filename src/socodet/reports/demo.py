"""`socodet demo`: propose, pretrain, export, load into a detector, and one page that shows the results."""

import dataclasses
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from socodet._version import __version__
from socodet.detection.build import build_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.images.photographs import photographs
from socodet.images.source import ImageSource, open_images
from socodet.pretraining.preparation import digest_names, some_images
from socodet.pretraining.pretrain import PretrainResult, pretrain
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.recipes.practical import tiny
from socodet.probing.features import box_encoder
from socodet.probing.retrieval import MEASURED
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.reports.images import shown_images
from socodet.reports.networks import UNTRAINED, Network
from socodet.reports.page import Gallery, Section, Table, Verdict, write_page
from socodet.reports.sections.curves import training_charts
from socodet.reports.sections.retrieval import retrieval_section
from socodet.reports.sections.samples import proposal_gallery, sample_sections, view_galleries
from socodet.reports.verdicts import log_verdicts, recall_verdict
from socodet.runtime.files import read_note, refuse_foreign_folder, settled, write_note
from socodet.runtime.shown import Shown
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained
from socodet.weights.pretrained_run import encoder_weights
from socodet.weights.report import LoadReport

STEPS = 70
MOST_IMAGES = 1500
"""More than the demo's steps see."""
PROPOSALS, VIEWS = 12, 3
"""Images shown with proposals and with views."""


@dataclass(frozen=True)
class DemoResult(Shown):
    """Where the demo put its files, and its results."""

    output: Path
    table: Path
    run: Path
    weights: Path
    report: Path
    seconds: float
    verdicts: tuple[Verdict, ...] = ()
    load_report: LoadReport | None = None
    stopped_by: str | None = None
    """The signal that stopped the pretraining; then only the table and an unfinished run are there."""

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
    """Runs everything once, with 70 steps of the recipe `tiny`, on the shipped photographs or on up to 1,500 `images`.

    An interrupted demo is resumed. Raises InputError for a folder that cannot be used, and when `output` holds a
    finished demo and `overwrite` is false.
    """
    began = time.monotonic()
    folder = settled(output)
    source = open_images(photographs() if images is None else images)
    if len(source) > MOST_IMAGES:
        source = some_images(source, MOST_IMAGES, seed=0)
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
        return DemoResult(
            folder, table_path, run, weights, report, time.monotonic() - began, stopped_by=result.stopped_by
        )
    export_run(run, weights, overwrite=True)
    load_report = load_pretrained(build_detector(run, show_report=False), weights, show_report=False)
    verdicts = _write_report(report, source, table, chosen, result, load_report)
    return DemoResult(folder, table_path, run, weights, report, time.monotonic() - began, verdicts, load_report)


def _prepare(folder: Path, source: ImageSource, seed: int, overwrite: bool) -> None:
    """Prepares the folder: an unfinished demo of the same images stays, any other is removed only if `overwrite`."""
    asked = {"version": __version__, "images": digest_names(source), "seed": seed}
    note = folder / "demo.json"
    refuse_foreign_folder(folder, note, "a demo")
    noted = read_note(note)
    if noted is not None:
        unfinished = not (folder / "report.html").exists()
        if unfinished and noted == asked:
            return
        if not overwrite:
            state = "an unfinished demo of other images or seed" if unfinished else "a finished demo"
            raise InputError(f"{folder}: holds {state}; give another --output or pass --overwrite")
        for name in ("report.html", "weights.pth", "proposals.parquet"):
            (folder / name).unlink(missing_ok=True)
        RunFolder(folder / "run").clear()
    write_note(note, asked)


def _shortened(recipe: Recipe, images: int, seed: int) -> Recipe:
    """The recipe with as many epochs as make `STEPS` steps on this many images."""
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
    images = shown_images(source, lambda key, _: table.boxes(key), MEASURED)
    seed, size = recipe.training.seed, recipe.model.embedding_size
    networks = [
        Network(UNTRAINED, box_encoder(recipe.model, None, seed), recipe.sample),
        Network("trained", box_encoder(recipe.model, encoder_weights(result.run)), recipe.sample),
    ]
    for network in networks:
        network.take_statistics(images, seed)
    recall = {network.name: network.recall_at_1(images, seed) for network in networks}
    lines = list(RunFolder(result.run).log_lines())
    verdicts = (*log_verdicts(lines, size), recall_verdict(recall["trained"][0], recall[UNTRAINED][0]))
    sections = [
        *sample_sections([proposal_gallery(images[:PROPOSALS])], view_galleries(images[:VIEWS], recipe.sample, seed)),
        Section("Training", "", [Gallery(training_charts({"demo": lines}, size), size="large")]),
        retrieval_section(networks, images, recall, seed, "Both networks have batch-norm statistics of these images."),
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
    """One row per module of the detector: its name, its number of tensors, and where they come from."""
    rows = []
    for origin, modules in (("pretrained", report.loaded_modules), ("fresh", report.fresh_modules)):
        rows += [(name, str(tensors), origin) for name, tensors in modules.items()]
    return rows
