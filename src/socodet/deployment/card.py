"""The card beside an exported detector: its classes, sizes, scores, and how to load it."""

import json
from collections.abc import Iterator
from pathlib import Path

from socodet.detection.detectors.rt_detr import RTDETR
from socodet.detection.scores.outcomes import threshold_text
from socodet.exporting.card import file_and_loading_lines, reading_lines
from socodet.exporting.files import FrameworkFiles
from socodet.finetuning.detector import TrainedDetector
from socodet.finetuning.run import SCORES
from socodet.runtime.files import read_note
from socodet.runtime.markdown import in_markdown
from socodet.training.run_folder import RunFolder
from socodet.weights.hub import HUB


def detector_card(detector: TrainedDetector, files: FrameworkFiles, framework: str) -> str:
    """The card as Markdown."""
    recipe = detector.recipe
    train = in_markdown(RunFolder(detector.run).describe()["train"])
    what = f"{recipe.settings.detector} with {recipe.model.backbone}"
    lines = [
        f"# {what}, fine-tuned on {train}, for {framework}",
        "",
        *_facts(detector),
        "",
        "## Classes",
        "",
        *(f"- {label}: {in_markdown(name)}" for label, name in enumerate(detector.class_names, files.first_label)),
        "",
        *file_and_loading_lines(files, "The licence of the images and of any weights it started from"),
        "",
        "## Every field of the recipe",
        "",
        "```json",
        json.dumps(recipe.as_dict(), indent=2),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _facts(detector: TrainedDetector) -> Iterator[str]:
    recipe, run = detector.recipe, RunFolder(detector.run)
    description, inference = run.describe(), recipe.inference
    classes = len(detector.categories)
    yield f"- Detector: {recipe.settings.detector}, backbone {recipe.model.backbone}, {classes} classes"
    limits = f"score of at least {inference.score_threshold:g}, at most {inference.detections} in an image"
    if isinstance(detector.network, RTDETR):
        side = detector.network.side
        yield f"- Images are scaled to {side}x{side} pixels, whatever their aspect ratio"
        yield f"- Detections: {limits}, without non-maximum suppression"
    else:
        yield (
            f"- Images are scaled to a shorter side of {inference.short_side} pixels, the longer one of at most "
            f"{inference.max_side}"
        )
        yield f"- Detections: {limits}, after non-maximum suppression"
    yield "- Images are 8-bit RGB, upright as their EXIF orientation says, and white where they are transparent"
    yield from reading_lines(detector.pixel_reading)
    data = description["data"]
    train = in_markdown(description["train"])
    yield f"- Trained on {data['images']:,} images of {train}, sha256 of the objects `{data['sha256']}`"
    start = description.get("start")
    # Only the last part of a path, because where it was on somebody's disk is private.
    yield f"- Began from {in_markdown(_last_part(start['from'])) if start else 'scratch'}"
    yield f"- Weights after {detector.step:,} of {recipe.schedule.iterations:,} steps"
    scores, on = scores_of(detector, run)
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in scores.items())
    yield f"- Scores in percent: {listed}, on {in_markdown(on)}" if listed else "- Not scored"
    if detector.f1_limit is not None:
        limit = threshold_text(detector.f1_limit)
        yield f"- F1 on the same images is highest for detections with a score of at least {limit}"
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    yield f"- Versions: {in_markdown(versions)}"


def _last_part(place: str) -> str:
    return place if place.startswith(HUB) else Path(place).name


def scores_of(detector: TrainedDetector, run: RunFolder) -> tuple[dict[str, float], str]:
    """Scores of exactly these weights from the log, in percent, and the name of the dataset they were scored on."""
    found = {
        name: value
        for line in run.log_lines()
        if line["step"] == detector.step
        for name, value in line.items()
        if name.startswith(("box_", "mask_")) and isinstance(value, int | float)
    }
    return found, str((read_note(run.path / SCORES) or {}).get("data"))
