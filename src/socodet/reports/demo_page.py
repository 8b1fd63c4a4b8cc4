"""The page of `socodet demo`: what went in, what was learned, what a detector finds, and what to do next."""

import platform
import shlex
from pathlib import Path

import torch

from socodet._version import __version__
from socodet.detection.datasets.layouts import open_detection_set
from socodet.finetuning.detector import load_detector
from socodet.images.photographs import objects_of_photographs
from socodet.images.source import ImageSource
from socodet.models.objective import build_objective
from socodet.pretraining.pretrain import PretrainResult
from socodet.pretraining.recipes import Recipe
from socodet.probing.features import box_encoder
from socodet.probing.retrieval import MEASURED
from socodet.proposals.table import ProposalTable
from socodet.reports.drawing import panel_image
from socodet.reports.images import ShownImage, shown_images
from socodet.reports.networks import UNTRAINED, Network
from socodet.reports.page import Commands, Gallery, Section, Table, Verdict, Verdicts, write_page
from socodet.reports.panels import labelled_panel
from socodet.reports.runs import rank_bound
from socodet.reports.sections.curves import TITLES, curve_charts, level_charts
from socodet.reports.sections.retrieval import retrieval_section
from socodet.reports.sections.samples import MOST_BOXES, proposal_gallery, view_galleries
from socodet.reports.theme import object_colour
from socodet.reports.verdicts import log_verdicts, recall_verdict
from socodet.training.run_folder import RunFolder
from socodet.weights.pretrained_run import encoder_weights
from socodet.weights.report import LoadReport

PROPOSALS, VIEWS = 6, 2
"""Number of images shown with proposals and with views."""
CURVES = ("loss", "embedding_std", "effective_rank")
"""The curves shown; `socodet report` has the others."""
DETECTIONS = ("hopper.jpg", "chelsea.jpg")
"""Photographs that are shown with detections."""


def write_demo_page(
    path: Path,
    source: ImageSource,
    table: ProposalTable,
    recipe: Recipe,
    result: PretrainResult,
    load_report: LoadReport,
    detector: Path | None,
) -> tuple[Verdict, ...]:
    """Writes the page and returns its verdicts; `detector` is a run fine-tuned on the shipped photographs, if any."""
    training = recipe.training
    images = shown_images(source, lambda key, _: table.boxes(key), MEASURED)
    learned, verdicts = _training_section(images, recipe, result)
    sections = [
        *_input_section(images, source, recipe),
        *learned,
        *([] if detector is None else [_detections(detector)]),
        _next_steps(source, result, load_report, given=detector is None),
    ]
    write_page(
        path,
        "A detector pretrained without labels",
        sections,
        {
            "Images": f"{len(source)} from {source.location}",
            "Recipe": f"{recipe.name}, {result.total_steps} steps of {training.batch_size} images",
            "Backbone": recipe.model.backbone,
            "Pretraining took": f"{RunFolder(result.run).training_seconds(training.batch_size):.0f} s",
            "Device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})",
            "Versions": f"socodet {__version__}, torch {torch.__version__}",
        },
        lead="Boxes found in unlabelled images, a network trained to recognise them in other views, and a detector "
        f"that starts from it. {result.total_steps} steps show that everything works here; they are far too few to "
        "make the detector better.",
    )
    return verdicts


def _input_section(images: list[ShownImage], source: ImageSource, recipe: Recipe) -> list[Section]:
    boxes = sum(len(image.boxes) for image in images)
    return [
        Section(
            "What went in",
            f"{len(source)} images without labels. Selective search, which knows no classes, found {boxes:,} boxes in "
            f"{'them' if len(images) == len(source) else f'{len(images)} of them'} that may hold an object. Good ones "
            f"frame things or parts of things. At most {MOST_BOXES} per image are drawn, from its largest to its "
            "smallest.",
            [proposal_gallery(images[:PROPOSALS])],
        ),
        Section(
            "What the network saw",
            "Each box is shown in several views, in other colours and at other scales and positions, and two networks "
            "learn to give it the same features in all of them. A box has one colour in all views; P2 to P5 are levels "
            "of the feature pyramid.",
            view_galleries(images[:VIEWS], recipe.sample, recipe.training.seed),
        ),
    ]


def _training_section(
    images: list[ShownImage], recipe: Recipe, result: PretrainResult
) -> tuple[list[Section], tuple[Verdict, ...]]:
    seed, size = recipe.training.seed, recipe.model.embedding_size
    networks = [
        Network(UNTRAINED, box_encoder(recipe.model, None, seed), recipe.sample),
        Network("trained", box_encoder(recipe.model, encoder_weights(result.run)), recipe.sample),
    ]
    for network in networks:
        network.reestimate_statistics(images, seed)
    recall = {network.name: network.recall_at_1(images, seed) for network in networks}
    lines = list(RunFolder(result.run).log_lines())
    lowest = build_objective(recipe.objective).lowest(len(recipe.sample.views))
    bound = rank_bound(recipe.model.architecture, size, recipe.sample, recipe.training.batch_size)
    verdicts = (
        *log_verdicts(lines, size, lowest, bound),
        recall_verdict(recall["trained"][0], recall[UNTRAINED][0], networks[0].objects(images)),
    )
    logs, titles = {"demo": lines}, {name: TITLES[name] for name in CURVES}
    bounds = {} if bound is None else {"demo": bound}
    charts = [*curve_charts(logs, titles, embedding_size=size, rank_bounds=bounds), *level_charts(logs)]
    text = "A tick or a cross appears only where there is a reason for a threshold, which is given."
    return [
        Section("What was learned", text, [Verdicts(verdicts), Gallery(charts, size="large")]),
        retrieval_section(networks, images, recall, seed, "Both networks have batch norm statistics of these images."),
    ], verdicts


def _detections(run: Path) -> Section:
    detector = load_detector(run, device="cpu")
    data = open_detection_set(objects_of_photographs())
    panels = []
    for index, image in enumerate(data.images):
        if image.file.name not in DETECTIONS:
            continue
        pixels, names = data.pixels(index), [data.categories[label - 1].name for label in image.labels]
        (found,) = detector.predict([pixels], max_detections=1)
        scored = [f"{name} {score:.2f}" for name, score in zip(found.labels, found.scores, strict=True)]
        for title, boxes, k, labels in (
            (f"{image.file.name} · annotated by hand", image.boxes, 0, names),
            ("detected, with its score", found.boxes, 1, scored),
        ):
            panels.append(labelled_panel(title, pixels, boxes, [object_colour(k)] * len(boxes), labels))
    steps = detector.recipe.schedule.iterations
    return Section(
        "Detections",
        f"A Faster R-CNN that started from the pretrained backbone, FPN and box head, after {steps} steps of "
        f"fine-tuning on {len(data)} of the photographs, whose objects were annotated by hand: "
        f"{_listed(detector.class_names)}. These are its highest-scoring detections in two photographs that it "
        "was fine-tuned on. They show that every step works. They say nothing about new images or about whether "
        "pretraining helped.",
        [Gallery([panel_image(panel, 240, 1.4) for panel in panels], size="small")],
    )


def _next_steps(source: ImageSource, result: PretrainResult, load_report: LoadReport, *, given: bool) -> Section:
    images = shlex.quote(str(source.location)) if given else "images/"
    return Section(
        "What to do next",
        "On your own images, with settings chosen for them and for this machine.",
        [
            Commands(
                [
                    (
                        f"socodet pretrain {images} --output runs/first",
                        "Pretrain, without labels. It first shows its plan.",
                    ),
                    (
                        "socodet finetune labelled/ --init runs/first --output runs/detector",
                        "Fine-tune on the images that have labels: COCO, VOC, YOLO and most other formats.",
                    ),
                    (
                        "socodet predict runs/detector new_images/ --output found --draw",
                        "Find objects in new images.",
                    ),
                    (
                        "socodet finetune labelled/ --init runs/first --init scratch --seeds 0 1 2 --output compared",
                        "Did pretraining help? The same fine-tuning from scratch, three seeds each.",
                    ),
                    (
                        f"socodet report {shlex.quote(str(result.run))} --output run.html",
                        "All figures of the run on this page.",
                    ),
                ]
            ),
            Table(
                ("Module", "Tensors", "Weights"),
                _modules(load_report),
                folded="Modules of torchvision's Mask R-CNN, and where their weights come from",
            ),
        ],
    )


def _modules(report: LoadReport) -> list[tuple[str, str, str]]:
    """One row per module of the detector: its name, its number of tensors, and where they come from."""
    rows = []
    for origin, modules in (("pretrained", report.loaded_modules), ("fresh", report.fresh_modules)):
        rows += [(name, str(tensors), origin) for name, tensors in modules.items()]
    return rows


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"
