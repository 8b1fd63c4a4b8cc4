"""`socodet report`: one page that shows what happened in one run, or compares several."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from socodet._version import __version__
from socodet.errors import InputError
from socodet.images.source import ImageSource
from socodet.probing.features import box_encoder
from socodet.reports.curves import FINETUNE_TITLES, PROBE_TITLES, SCORE_TITLES, TITLES, curve_pictures, level_pictures
from socodet.reports.inputs import open_pictures, picture_notes, proposer, question
from socodet.reports.page import Figure, Gallery, Section, Verdict, write_page
from socodet.reports.runs import RunRecord, names_of, outcome_table, settings_tables
from socodet.reports.sections import (
    MEASURED,
    SAMPLES,
    Network,
    ShownPicture,
    colour_section,
    neighbour_section,
    proposal_pictures,
    readable_pictures,
    retrieval,
    retrieval_section,
    view_pictures,
)
from socodet.reports.verdicts import loss_verdict, recall_verdict, spread_verdict
from socodet.runtime.progress import progress_bar
from socodet.runtime.world import ALONE
from socodet.training.devices import choose_device
from socodet.training.run_folder import RunFolder
from socodet.views import warm_up
from socodet.views.settings import SampleSettings
from socodet.weights.pretrained_run import encoder_weights, model_settings

SEARCHED = 160
"""Pictures that neighbours are looked for in."""
FEWER = 6
"""Pictures shown with proposals."""
KINDS = {"pretrain": "Pretraining", "finetune": "Fine-tuning"}
UNTRAINED = "untrained"
SEED = 0


@dataclass(frozen=True)
class ReportResult:
    """Where the page is, and what it lacks: a line each."""

    path: Path
    notes: tuple[str, ...]
    seconds: float


def report(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    images: str | Path | None = None,
    overwrite: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    show_progress: bool = True,
) -> ReportResult:
    """Writes one HTML page about pretraining and fine-tuning runs: settings, curves, and what networks see in pictures.

    The pictures are those that the first pretraining run with a checkpoint was trained on, where its run.json says
    they are, or `images`; where they are not, the page does without and says so. All networks look at the same
    pictures. InputError for what is no run, pictures given that cannot be read, or when `output` exists and `overwrite`
    is false.
    """
    began = time.monotonic()
    path = _checked(output, overwrite)
    records = _read(runs)
    pretrained = [record for record in records if record.kind == "pretrain"]
    finetuned = [record for record in records if record.kind == "finetune"]
    trained = [record for record in pretrained if RunFolder(record.path).checkpoints()]
    notes = [
        f"{record.name}: has no checkpoint yet, so only its settings and curves are shown"
        for record in pretrained
        if record not in trained
    ]
    sections = [section for group in (pretrained, finetuned) if group for section in _log_sections(group)]
    source = None
    verdicts: list[Verdict] = []
    if trained:
        source, problem = open_pictures(trained, images)
        notes += [problem] if problem else []
    if len(pretrained) == 1:
        verdicts = _log_verdicts(pretrained[0])
    if source is not None:
        notes += picture_notes(trained[0], source)
        shown, recall = _picture_sections(trained, source, device, show_progress)
        sections += shown
        if len(pretrained) == 1:
            verdicts.append(recall_verdict(recall[trained[0].name][0], recall[UNTRAINED][0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(
        path,
        f"{len(records)} runs compared" if len(records) > 1 else f"{KINDS[records[0].kind]} run {records[0].name}",
        sections,
        _facts(records, source),
        lead=" ".join([_lead(records), *(f"{note}." for note in notes)]),
        verdicts=verdicts,
    )
    return ReportResult(path, tuple(notes), time.monotonic() - began)


def _checked(output: str | Path, overwrite: bool) -> Path:
    path = Path(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path}: does not end in .html; name the output report.html")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists; give another --output or pass --overwrite")
    return path


def _read(runs: Sequence[str | Path]) -> list[RunRecord]:
    paths = [Path(run) for run in runs]
    if not paths:
        raise InputError("report: names no run; give the folder of one or more")
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise InputError(f"{path}: is given twice; name each run once")
    for path in paths:
        within = None if (path / "run.json").exists() else next(path.glob("**/run.json"), None)
        if within is not None:
            raise InputError(f"{path}: is no run, but holds some; name one or more of them, such as {within.parent}")
    folders = [RunFolder(path) for path in paths]
    return [
        RunRecord(name, folder.path, folder.describe(), list(folder.log_lines()))
        for name, folder in zip(names_of(paths), folders, strict=True)
    ]


def _lead(records: Sequence[RunRecord]) -> str:
    words = []
    for record in records:
        recipe = record.description["recipe"]
        what = recipe["name"] if record.kind == "pretrain" else recipe["settings"]["detector"]
        steps = record.last("step")
        words.append(f"{record.name}: {what}, {'no step logged yet' if steps is None else f'{steps:,.0f} steps'}")
    return f"{'; '.join(words)}."


def _log_sections(records: Sequence[RunRecord]) -> list[Section]:
    """What the descriptions and logs of runs of one kind show."""
    pretraining = records[0].kind == "pretrain"
    lines = {record.name: record.lines for record in records}
    sizes = {record.embedding_size for record in records} if pretraining else set()
    kind = KINDS[records[0].kind]
    text = "Settings in colour differ between the runs." if len(records) > 1 else ""
    sections = [Section(f"{kind}: the recipe", text, [outcome_table(records), *settings_tables(records)])]
    charts = curve_pictures(
        lines, TITLES if pretraining else FINETUNE_TITLES, embedding_size=sizes.pop() if len(sizes) == 1 else None
    )
    charts += level_pictures(lines)
    if charts:
        sections.append(Section(f"{kind}: the curves", "", [Gallery(charts, size="large")]))
    probes = curve_pictures(lines, PROBE_TITLES)
    if probes:
        words = "What the network knows of annotated objects in the course of pretraining, without fine-tuning."
        sections.append(Section("Probe", words, [Gallery(probes, size="large")]))
    scores = curve_pictures(lines, SCORE_TITLES)
    if scores:
        words = "Each evaluation in the course of fine-tuning. A better start shows early, and with few labels."
        sections.append(Section("Average precision", words, [Gallery(scores, size="large")]))
    return sections


def _log_verdicts(record: RunRecord) -> list[Verdict]:
    verdicts = []
    if record.last("loss") is not None:
        verdicts.append(loss_verdict(record.lines))
    spread = record.last("embedding_std")
    if spread is not None:
        verdicts.append(spread_verdict(spread, record.embedding_size))
    return verdicts


def _picture_sections(
    trained: Sequence[RunRecord], source: ImageSource, device: Literal["auto", "cpu", "cuda"], show_progress: bool
) -> tuple[list[Section], dict[str, list[float]]]:
    """Everything that needs pictures, and each network's recall."""
    with progress_bar("report", 5, unit="sections", show=show_progress) as progress:
        warm_up()
        pictures = list(readable_pictures(source, proposer(trained[0], source), SEARCHED))
        if not pictures:
            raise InputError(f"{source.location}: none of its images can be read; check the files")
        sections = _sample_sections(trained, source, len(pictures))
        progress.advance()
        measured = pictures[:MEASURED]
        networks = _networks(trained, measured, choose_device(device, ALONE))
        recall = retrieval(networks, measured, SEED)
        progress.advance()
        text = (
            "V1 is the picture in its own colours, V2 a window of half to all of it in others. The untrained network "
            f"is that of {trained[0].name} drawn at random, with batch-norm statistics of these pictures. A good run "
            "is far above it."
        )
        sections.append(retrieval_section(networks, measured, recall, SEED, text))
        progress.advance()
        sections.append(neighbour_section(networks, pictures))
        progress.advance()
        sections.append(colour_section(networks, pictures))
        progress.advance()
    return sections, recall


def _networks(trained: Sequence[RunRecord], measured: Sequence[ShownPicture], device: torch.device) -> list[Network]:
    """The first run's network drawn at random by its seed, and every run's as it is."""
    first = trained[0]
    seed = first.description["recipe"]["training"]["seed"]
    fresh = Network(UNTRAINED, box_encoder(model_settings(first.path), None, seed).to(device), question(first))
    fresh.take_statistics(measured, SEED)
    networks = [fresh]
    for record in trained:
        encoder = box_encoder(model_settings(record.path), encoder_weights(record.path))
        networks.append(Network(record.name, encoder.to(device), question(record)))
    return networks


def _sample_sections(trained: Sequence[RunRecord], source: ImageSource, pictures: int) -> list[Section]:
    """Proposals and views; of runs whose settings of them are the same, once."""
    proposals: list[Figure] = []
    views: list[Figure] = []
    shown: list[Any] = []
    for record in trained:
        recipe = record.description["recipe"]
        if (recipe["proposals"], recipe["sample"]) in shown:
            continue
        name = record.name if len(trained) > 1 else ""
        some = list(readable_pictures(source, proposer(record, source), min(FEWER, pictures)))
        if recipe["proposals"] not in [earlier for earlier, _ in shown]:
            proposals.append(dataclasses.replace(proposal_pictures(some), title=name))
        rows = view_pictures(
            some[: 2 if shown else SAMPLES], RunFolder(record.path).settings(SampleSettings, "sample"), SEED
        )
        views += [dataclasses.replace(row, title=name if place == 0 else "") for place, row in enumerate(rows)]
        shown.append((recipe["proposals"], recipe["sample"]))
    return [
        Section(
            "Proposals",
            "The objects that pretraining draws from, found without a label. Good ones frame things or parts of them.",
            proposals,
        ),
        Section(
            "Views",
            "Each object is seen in several views at other scales and places. An object has the same colour in "
            "every view; its pyramid level is written on its box.",
            views,
        ),
    ]


def _facts(records: Sequence[RunRecord], source: ImageSource | None) -> dict[str, str]:
    facts = {f"Run {record.name}": str(record.path) for record in records}
    if source is not None:
        facts["Pictures"] = f"{len(source):,} from {source.location}"
    versions = dict.fromkeys(
        f"socodet {made['socodet']}, torch {made['torch']}" for made in (r.description["versions"] for r in records)
    )
    return {**facts, "Trained with": "; ".join(versions), "Page written by": f"socodet {__version__}"}
