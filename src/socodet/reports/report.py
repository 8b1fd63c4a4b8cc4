"""`socodet report`: one page about a run, or about several side by side."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from socodet._version import __version__
from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.errors import InputError
from socodet.finetuning.run import count_images_trained_on, has_detector
from socodet.images.reading import read_images_like
from socodet.images.source import ImageSource
from socodet.probing.retrieval import MEASURED
from socodet.reports.images import notes_on_images, open_run_images, proposer_of, shown_images, trained_on
from socodet.reports.networks import UNTRAINED, networks_of
from socodet.reports.page import Gallery, Section, write_page
from socodet.reports.runs import RunRecord, read_records
from socodet.reports.sections.classes import class_sections
from socodet.reports.sections.colours import colour_section
from socodet.reports.sections.curves import curve_sections
from socodet.reports.sections.detections import detection_sections
from socodet.reports.sections.neighbours import neighbour_section
from socodet.reports.sections.recipe import lowest_loss, recipe_section
from socodet.reports.sections.retrieval import retrieval_section
from socodet.reports.sections.samples import proposal_gallery, sample_sections, view_galleries
from socodet.reports.sections.timeline import timeline_sections
from socodet.reports.verdicts import log_verdicts, recall_verdict
from socodet.runtime.counted import counted
from socodet.runtime.files import check_output_file
from socodet.runtime.progress import progress_bar
from socodet.runtime.shown import Shown
from socodet.runtime.world import ALONE
from socodet.training.devices import choose_device
from socodet.views.rendering import warm_up
from socodet.views.settings import SampleSettings
from socodet.weights.hub import reads_hub

SEARCHED = 160
"""Number of images in which neighbours are searched."""
PROPOSALS, VIEWS, MORE_VIEWS = 6, 3, 2
"""Number of images shown with proposals, with views, and with the views of every further run."""
HEADINGS = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}
SEED = 0

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class ReportResult(Shown):
    """The page's path, and notes in one line each on what it leaves out and why."""

    path: Path
    notes: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return "\n".join([*(f"note: {note}" for note in self.notes), f"{self.path}: written in {self.seconds:.0f} s"])


@reads_hub("runs")
def report(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    images: str | Path | None = None,
    data: str | Path | DetectionDataset | None = None,
    split: str = "val",
    reading: ReadingSettings | None = None,
    overwrite: bool = False,
    device: Device = "auto",
    show_progress: bool = True,
) -> ReportResult:
    """Writes one HTML page about pretraining and fine-tuning runs: settings, curves, and what the networks see.

    data: an annotated dataset, as `open_detection_set` takes it, on which fine-tuned detectors are run; the page then
    shows precision over recall, each class, and the images with the most errors. If `data` is a .json file, `images` is
    also the folder of its images. split: which split of a folder. reading: as in `open_detection_set`; with the
    `val_share` of fine-tuning, the images are those that it held out.

    Pretraining is shown on the images of the first pretraining run with a checkpoint, or on `images`; without them the
    page leaves out what needs them and says so. All networks see the same images. Raises InputError when a folder is
    not a run, when an input cannot be read, and when `output` exists and `overwrite` is false.
    """
    began = time.monotonic()
    path = _checked(output, overwrite)
    if data is None and split != "val":
        raise InputError(f"--split {split}: has no effect without --data; leave it out, or give both")
    if data is None and reading not in (None, ReadingSettings()):
        raise InputError("flags on how to read a dataset have no effect without --data; leave them out, or give it")
    records = read_records(runs)
    annotated = _annotated(records, data, split, images, reading)
    pretrained = [record for record in records if record.kind == "pretrain"]
    finetuned = [record for record in records if record.kind == "finetune"]
    trained = [record for record in pretrained if record.folder.checkpoints()]
    tuned = [record for record in finetuned if has_detector(record.folder)]
    left_out = {"pretrain": "only its settings and curves are shown", "finetune": "its detector is not shown"}
    notes = [
        f"{record.name}: has no checkpoint yet, so {left_out[record.kind]}"
        for record in (pretrained if annotated is None else [*pretrained, *finetuned])
        if not has_detector(record.folder)
    ]
    sections = []
    for group in (pretrained, finetuned):
        if group:
            heading = HEADINGS[group[0].kind]
            sections += [recipe_section(group, heading), *curve_sections(group, heading)]
    sections += timeline_sections(records)
    sections += class_sections(finetuned)
    if annotated is not None and tuned:
        sections += detection_sections(tuned, annotated, device, show_progress=show_progress)
        notes += _notes_on_images_trained_on(tuned, annotated)
    source = None
    if trained:
        source, problem = open_run_images(trained, images)
        notes += [problem] if problem else []
    verdicts = []
    if len(pretrained) == 1:
        only = pretrained[0]
        verdicts = log_verdicts(only.lines, only.embedding_size, lowest_loss(only), only.rank_bound)
    if source is not None:
        notes += notes_on_images(trained[0], source)
        notes += [f"{one.name} was trained on different images" for one in trained[1:] if not trained_on(one, source)]
        start = trained[0].folder.started_from()
        if start is not None:
            notes.append(
                f"{trained[0].name} started from {start}, and the untrained network has random weights, so the "
                "difference between the two includes what the run started with"
            )
        shown, recall, objects = _image_sections(trained, source, device, show_progress)
        sections += shown
        if len(pretrained) == 1:
            verdicts.append(recall_verdict(recall[trained[0].name][0], recall[UNTRAINED][0], objects))
    write_page(
        path,
        f"{len(records)} runs compared" if len(records) > 1 else f"{HEADINGS[records[0].kind]} run {records[0].name}",
        sections,
        _facts(records, source),
        lead=" ".join([_lead(records), *(f"{note}." for note in notes)]),
        verdicts=verdicts,
    )
    return ReportResult(path, tuple(notes), time.monotonic() - began)


def _checked(output: str | Path, overwrite: bool) -> Path:
    if Path(output).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{output}: does not end in .html; give a name such as report.html")
    return check_output_file(output, overwrite=overwrite)


def _lead(records: Sequence[RunRecord]) -> str:
    texts = []
    for record in records:
        recipe = record.description["recipe"]
        what = recipe["name"] if record.kind == "pretrain" else recipe["settings"]["detector"]
        texts.append(f"{record.name}: {what}, {_steps(record)}")
    return f"{'; '.join(texts)}."


def _steps(record: RunRecord) -> str:
    """How far a run got."""
    steps, total = record.last("step"), record.total_steps
    if steps is None:
        return "no step logged yet"
    return counted(steps, "step") if total is None or steps >= total else f"{steps:,.0f} of {counted(total, 'step')}"


def _image_sections(
    trained: Sequence[RunRecord], source: ImageSource, device: Device, show_progress: bool
) -> tuple[list[Section], dict[str, list[float]], int]:
    """The sections that need images, each network's recall, and the number of objects that recall is measured on."""
    with progress_bar("report", 5, unit="sections", show=show_progress) as progress:
        warm_up()
        images = shown_images(source, proposer_of(trained[0], source), SEARCHED)
        sections = _sample_sections(trained, source)
        progress.advance()
        measured = images[:MEASURED]
        networks = networks_of(trained, measured, choose_device(device, ALONE), SEED)
        recall = {network.name: network.recall_at_1(measured, SEED) for network in networks}
        progress.advance()
        text = (
            "V1 is the image in its own colours, V2 a window of half to all of it in other colours. The untrained "
            f"network is that of {trained[0].name} with random weights and batch norm statistics from these images. A "
            "good run is far above it."
        )
        sections.append(retrieval_section(networks, measured, recall, SEED, text))
        progress.advance()
        neighbours = neighbour_section(networks, images)
        sections += [] if neighbours is None else [neighbours]
        progress.advance()
        sections.append(colour_section(networks, images))
        progress.advance()
    return sections, recall, networks[0].objects(measured)


def _sample_sections(trained: Sequence[RunRecord], source: ImageSource) -> list[Section]:
    """Proposals and views; runs with the same settings share one section."""
    proposals: list[Gallery] = []
    views: list[Gallery] = []
    seen: list[tuple[Any, Any]] = []
    for record in trained:
        recipe = record.description["recipe"]
        if (recipe["proposals"], recipe["sample"]) in seen:
            continue
        title = record.name if len(trained) > 1 else ""
        images = shown_images(source, proposer_of(record, source), PROPOSALS)
        if recipe["proposals"] not in [earlier for earlier, _ in seen]:
            proposals.append(proposal_gallery(images, title))
        count = MORE_VIEWS if seen else VIEWS
        views += view_galleries(images[:count], record.settings(SampleSettings, "sample"), SEED, title)
        seen.append((recipe["proposals"], recipe["sample"]))
    return sample_sections(proposals, views)


def _annotated(
    records: Sequence[RunRecord],
    data: str | Path | DetectionDataset | None,
    split: str,
    images: str | Path | None,
    reading: ReadingSettings | None,
) -> DetectionDataset | None:
    if data is None or isinstance(data, DetectionDataset):
        return data
    first = next((record for record in records if record.kind == "finetune"), None)
    if first is None:
        raise InputError(f"--data {data}: is for fine-tuned detectors, but none of these runs is one; leave it out")
    folder = images if Path(data).suffix.lower() in (".json", ".xml", ".csv") else None
    with read_images_like(first.folder.pixel_reading()):
        return open_detection_set(data, split=split, images=folder, reading=reading)


def _notes_on_images_trained_on(tuned: Sequence[RunRecord], data: DetectionDataset) -> list[str]:
    seen = {record.name: count_images_trained_on(record.folder, data) for record in tuned}
    return [
        f"{name} was trained on {count:,} of the {len(data):,} images of {data.name}, and does better on them than on "
        "new ones"
        for name, count in seen.items()
        if count
    ]


def _facts(records: Sequence[RunRecord], source: ImageSource | None) -> dict[str, str]:
    facts = {f"Run {record.name}": str(record.path) for record in records}
    if source is not None:
        facts["Images"] = f"{len(source):,} from {source.location}"
    versions = dict.fromkeys(
        f"socodet {made['socodet']}, torch {made['torch']}" for made in (r.description["versions"] for r in records)
    )
    return {**facts, "Trained with": "; ".join(versions), "Page written by": f"socodet {__version__}"}
