"""`socodet demo`: propose, pretrain, export, load into a detector, and one page that shows what happened."""

import dataclasses
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import socodet
from socodet.detection.build import build_detector
from socodet.detection.retrieval import recall_at_1, similarity_map
from socodet.detection.transfer import LoadReport, load_pretrained
from socodet.errors import InputError, UnreadableImageError
from socodet.export import export_run
from socodet.images.decode import decode_image
from socodet.images.photographs import photographs
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.models.encoders import ObjectEncoder, build_encoder
from socodet.models.normalization import reestimate_batch_norm
from socodet.preparation import digest_names
from socodet.pretraining import PretrainResult, build_soco, pretrain
from socodet.proposals import ProposalTable, propose
from socodet.recipes import Recipe
from socodet.recipes.practical import tiny
from socodet.reports.curves import curve_pictures
from socodet.reports.drawing import Panel, proposal_panel, sample_panels
from socodet.reports.inspect import panel_picture, proposal_gallery, sample_gallery
from socodet.reports.page import Gallery, Section, Table, Verdict, write_page
from socodet.reports.similarity import similarity_panels
from socodet.reports.verdicts import loss_verdict, recall_verdict, spread_verdict
from socodet.training.run import RunFolder, write_atomically
from socodet.training.weights import encoder_weights
from socodet.views import Sample, make_sample, sample_rng
from socodet.views.batch import Batch, collate

STEPS = 120
MOST_IMAGES = 1500
"""More than the demo's steps can look at."""
SHOWN = 12
MEASURED = 48
DRAWS = 8
MAPS = 3


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
    asked = {"version": socodet.__version__, "images": digest_names(source), "seed": seed}
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


@dataclass(frozen=True)
class _Picture:
    index: int
    key: str
    pixels: NDArray[np.uint8]


def _readable(source: ImageSource, table: ProposalTable, limit: int) -> Iterator[_Picture]:
    """The first `limit` images of a fixed shuffle that can be read."""
    found = 0
    for index in np.random.default_rng(0).permutation(len(source)).tolist():
        try:
            pixels = decode_image(source.read(index))
        except (UnreadableImageError, OSError):
            continue
        yield _Picture(index, source.key(index), pixels)
        found += 1
        if found == limit:
            return


def _draw(pictures: Sequence[_Picture], table: ProposalTable, recipe: Recipe, epoch: int) -> list[Sample]:
    """One draw of every picture's views. Seeds are of training's own kind, from epochs no run reaches."""
    return [
        make_sample(p.pixels, table.boxes(p.key), recipe.sample, sample_rng(recipe.training.seed, epoch, p.index))
        for p in pictures
    ]


def _batch(samples: Sequence[Sample]) -> Batch:
    return collate(list(enumerate(samples)))


def _write_report(
    path: Path,
    source: ImageSource,
    table: ProposalTable,
    recipe: Recipe,
    result: PretrainResult,
    load_report: LoadReport,
) -> tuple[Verdict, ...]:
    pictures = list(_readable(source, table, MEASURED))
    draws = [_batch(_draw(pictures, table, recipe, 10**6 + draw)) for draw in range(DRAWS)]
    untrained = build_soco(recipe.model, recipe.training.seed).online.encoder
    trained = build_encoder(recipe.model)
    trained.load_state_dict(encoder_weights(result.run))
    for encoder in (untrained, trained):
        views = [view for draw in range(DRAWS) for view in _batch(_draw(pictures, table, recipe, draw)).views]
        reestimate_batch_norm(encoder, views)

    recall = {
        (name, gallery): recall_at_1(encoder, [[draw] for draw in draws], 0, gallery)
        for name, encoder in (("untrained", untrained), ("trained", trained))
        for gallery in range(1, len(recipe.sample.views))
    }
    lines = list(RunFolder(result.run).log_lines())
    size = recipe.model.embedding_size
    verdicts = (
        loss_verdict(lines),
        spread_verdict(lines[-1]["embedding_std"], size),
        recall_verdict(recall["trained", 1], recall["untrained", 1]),
    )
    shown = pictures[:SHOWN]
    samples = _draw(shown[:4], table, recipe, 0)
    sections = [
        Section(
            "Proposals",
            "Selective search finds these boxes without a label; pretraining draws its objects from them.",
            [proposal_gallery([proposal_panel(p.key, p.pixels, table.boxes(p.key)) for p in shown])],
        ),
        Section(
            "Views",
            "Each object is seen in several views at other scales and places. An object has the same colour in "
            "every view; its pyramid level is written on its box.",
            [sample_gallery(sample_panels(p.key, p.pixels, s)) for p, s in zip(shown, samples, strict=False)],
        ),
        Section("Training", "", [Gallery(curve_pictures({"demo": lines}, embedding_size=size), size="large")]),
        Section(
            "The same object in another view",
            f"Each of the {draws[0].indices.numel() * recipe.sample.boxes_per_image} objects of V1 searches all "
            f"boxes of the other view, over {DRAWS} draws of the views. Batch-norm statistics of both networks are "
            "those of these pictures.\n\n"
            "The maps: an object in V1, and beside it V2 under the cosine of the object's vector h with that of a box "
            "of its size at every place, for the untrained and the trained network, each in a colour range of its own "
            "that is printed on it. The box marks where the object is in V2, the cross the most similar place.",
            [
                Table(
                    ("Network", *(f"V1 → V{g + 1}" for g in range(1, len(recipe.sample.views)))),
                    [
                        (name, *(f"{recall[name, g]:.1%}" for g in range(1, len(recipe.sample.views))))
                        for name in ("untrained", "trained")
                    ],
                    caption="Recall@1",
                ),
                *_similarity(untrained, trained, draws[0]),
            ],
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
            "Versions": f"socodet {socodet.__version__}, torch {torch.__version__}",
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


def _similarity(untrained: ObjectEncoder, trained: ObjectEncoder, draw: Batch) -> list[Gallery]:
    """Of a few objects: where in V2 is the place most like it, before and after."""
    galleries = []
    for image in range(min(MAPS, len(draw.indices))):
        query, view = (draw.views[v].pixels[image].permute(1, 2, 0).contiguous().numpy() for v in (0, 1))
        boxes = [draw.views[v].boxes[image, 0].numpy() for v in (0, 1)]
        maps = {
            name: similarity_map(encoder, draw, image, 0).numpy()
            for name, encoder in (("untrained", untrained), ("trained", trained))
        }
        pictures: list[Panel] = []
        for name, cosine in maps.items():
            asked, found = similarity_panels(query, boxes[0], view, boxes[1], cosine, title=name)
            pictures += [asked, found] if not pictures else [found]
        galleries.append(Gallery([panel_picture(p) for p in pictures], size="medium"))
    return galleries
