"""`socodet demo`: propose, pretrain, export, load into a detector, fine-tune, and one page that shows the results."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from socodet._version import __version__
from socodet.detection.build import build_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.finetuning.finetune import finetune
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.photographs import objects_of_photographs, photographs
from socodet.images.source import ImageSource, digest_names, open_images
from socodet.pretraining.preparation import sample_images
from socodet.pretraining.pretrain import pretrain
from socodet.pretraining.recipes import Recipe
from socodet.pretraining.recipes.practical import tiny
from socodet.proposals.make_table import propose
from socodet.proposals.table import ProposalTable
from socodet.reports.demo_page import write_demo_page
from socodet.reports.page import Verdict
from socodet.runtime.files import read_note, refuse_foreign_folder, resolve_path, write_note
from socodet.runtime.folder_locks import lock_folder, releases_folder_locks
from socodet.runtime.shown import Shown, ShownTable
from socodet.training.run_folder import RunFolder
from socodet.weights.load import load_pretrained
from socodet.weights.report import LoadReport

STEPS = 40
MOST_IMAGES = 1500
"""Maximum number of images; more than the demo's steps see."""
FINETUNING = FinetuneSettings(
    "faster_rcnn_fpn", "coco_1x", iterations=30, batch_size=3, base_lr=0.06, size=160, precise_bn=3, rois_per_image=64
)
"""Long enough to memorise a few photographs, which is all that the page claims."""


@dataclass(frozen=True)
class DemoResult(Shown):
    """The demo's files and results."""

    output: Path
    table: Path
    run: Path
    weights: Path
    detector: Path | None
    """A fine-tuning run; None for the user's own images, which have no labels here."""
    report: Path
    seconds: float
    verdicts: tuple[Verdict, ...] = ()
    load_report: LoadReport | None = None
    stopped_by: str | None = None
    """The signal that stopped it; only what was finished before then exists."""

    def __str__(self) -> str:
        marks = {True: "ok ", False: "NOT", None: "   "}
        lines = [f"{marks[v.passed]} {v.name}: {v.figure}  (good: {v.good}; poor: {v.poor})" for v in self.verdicts]
        detector = [] if self.detector is None else [f"detector   {self.detector}"]
        return "\n".join(
            [
                *lines,
                str(self.load_report),
                f"proposals  {self.table}",
                f"run        {self.run}",
                f"weights    {self.weights}",
                *detector,
                f"report     {self.report}",
                f"took {self.seconds:.0f} s",
            ]
        )

    def headline(self) -> str:
        """The path of the page."""
        return f"{self.report}: open it in a browser"

    def shown(self) -> list[ShownTable]:
        """The verdicts with good and poor values, and the files."""
        marks = {True: "✓", False: "✗", None: ""}
        rows = [(v.name, v.figure, marks[v.passed], v.good, v.poor) for v in self.verdicts]
        files = {"proposals": self.table, "run": self.run, "weights": self.weights, "detector": self.detector}
        return [
            ShownTable(rows, ("figure", "this run", "", "good", "poor")),
            ShownTable([(name, str(file)) for name, file in files.items() if file is not None]),
        ]


@releases_folder_locks
def demo(
    images: str | Path | None = None, output: str | Path = "demo", *, overwrite: bool = False, seed: int = 0
) -> DemoResult:
    """Runs everything once, with 40 steps of the recipe `tiny`, on the shipped photographs or on up to 1,500 `images`.

    A detector is fine-tuned only on the shipped photographs, because only these have labels. An interrupted demo is
    resumed. Raises InputError for a folder that cannot be used, and when `output` holds a finished demo and `overwrite`
    is false.
    """
    began = time.monotonic()
    folder = resolve_path(output)
    source = open_images(photographs() if images is None else images)
    if len(source) > MOST_IMAGES:
        source = sample_images(source, MOST_IMAGES, seed=0)
    table_path, run, weights, report = (
        folder / name for name in ("proposals.parquet", "run", "weights.pth", "report.html")
    )
    detector = folder / "detector" if images is None else None

    def done(stopped_by: str | None = None, *, verdicts: tuple[Verdict, ...] = ()) -> DemoResult:
        seconds = time.monotonic() - began
        return DemoResult(
            folder, table_path, run, weights, detector, report, seconds, verdicts, load_report, stopped_by
        )

    load_report: LoadReport | None = None
    lock_folder(folder)
    _prepare(folder, source, seed, overwrite)
    if table_path.exists() and not RunFolder(run).checkpoints() and ProposalTable.read(table_path).unreadable:
        table_path.unlink()  # an unreadable image may have been repaired since
    if not table_path.exists():
        propose(source, table_path)
    table = ProposalTable.read(table_path)
    chosen = _shortened(tiny(), max(1, len(source) - len(table.unreadable)), seed)
    result = pretrain(source, chosen, run, proposals=table_path, resume=True)
    if not result.finished:
        return done(result.stopped_by)
    export_run(run, weights, overwrite=True)
    load_report = load_pretrained(build_detector(run, show_report=False), weights, show_report=False)
    if detector is not None:
        tuned = finetune(objects_of_photographs(), detector, FINETUNING, init=run, resume=True)
        if not tuned.finished:
            return done(tuned.stopped_by)
    verdicts = write_demo_page(report, source, table, chosen, result, load_report, detector)
    return done(verdicts=verdicts)


def _prepare(folder: Path, source: ImageSource, seed: int, overwrite: bool) -> None:
    """Prepares the folder: keeps an unfinished demo of the same images, and removes any other only if `overwrite`."""
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
        for name in ("run", "detector"):
            RunFolder(folder / name).clear()
    write_note(note, asked)


def _shortened(recipe: Recipe, images: int, seed: int) -> Recipe:
    """The recipe with the number of epochs that gives `STEPS` steps on this many images."""
    training = recipe.training
    epochs = (STEPS + 0.5) * training.batch_size / images
    warmup = training.warmup_epochs / training.epochs * epochs
    return dataclasses.replace(
        recipe, training=dataclasses.replace(training, epochs=epochs, warmup_epochs=warmup, seed=seed)
    )
