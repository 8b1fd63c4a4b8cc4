"""The model card beside exported weights: facts from the run's records, or what is known about a file of weights."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from socodet.exporting.files import FrameworkFiles
from socodet.exporting.modules import PretrainedModules
from socodet.images.reading import PixelReading
from socodet.runtime.counted import rounded
from socodet.runtime.markdown import in_markdown
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile

LOGGED = {
    "loss": "loss",
    "embedding_std": "standard deviation of the embeddings",
    "effective_rank": "effective rank of the embeddings",
}
"""Logged figures that a card reports, and their names in words."""


def model_card(
    source: str | Path, modules: PretrainedModules, files: FrameworkFiles, framework: str
) -> tuple[str, str | None]:
    """A Markdown card that says what was trained, on which data and how far, and what is in the files and how to load
    them. Also returns how far an unfinished run got, such as `30 of 100 steps`.
    """
    unfinished = None
    if Path(source).is_dir():
        run = RunFolder(Path(source))
        state, recipe = run.load_checkpoint() or {}, run.describe()["recipe"]
        if "total_steps" in state and state["step"] < state["total_steps"]:
            unfinished = f"{state['step']} of {state['total_steps']} steps"
        how = "by SoCo" if modules.encoder.encodes_boxes else "on whole images"
        title = f"{recipe['model']['backbone']} pretrained {how},"
        origin = [_method(modules), *_training_lines(run, recipe, state)]
        appendix = ["", "## Every field of the recipe", "", "```json", json.dumps(recipe, indent=2), "```"]
    else:
        title, origin, appendix = Path(source).name, [*_file_lines(Path(source), modules)], []
    lines = [f"# {in_markdown(title)} for {framework}", "", *origin, "", *file_and_loading_lines(files), *appendix]
    return "\n".join(lines) + "\n", unfinished


def _file_lines(file: Path, modules: PretrainedModules) -> Iterator[str]:
    weights = WeightsFile.find(file).describe(file)
    yield "## Origin"
    yield ""
    yield f"- File: `{weights['file']}`, sha256 `{weights['sha256']}`, its names those of {modules.format}"
    yield f"- Architecture {modules.settings.architecture}, backbone {modules.settings.backbone}, by names and shapes"


def _method(modules: PretrainedModules) -> str:
    paper = "Aligning Pretraining for Detection via Object-Level Contrastive Learning, NeurIPS 2021"
    if modules.encoder.encodes_boxes:
        return f"Weights pretrained without labels by SoCo ({paper})."
    return f"Weights pretrained without labels on whole images, as the image-level baseline of SoCo ({paper})."


def _training_lines(folder: RunFolder, recipe: dict[str, Any], state: dict[str, Any]) -> Iterator[str]:
    description = folder.describe()
    model, training = recipe["model"], recipe["training"]
    yield ""
    yield "## Training"
    yield ""
    yield f"- Recipe: {in_markdown(recipe['name'])}; architecture {model['architecture']}, backbone {model['backbone']}"
    yield f"- Images: {_images(description)}"
    yield from reading_lines(folder.pixel_reading())
    if start := description.get("start"):
        yield f"- Began from `{start['file']}`, sha256 `{start['sha256']}`"
    yield f"- {_progress(state, training)}"
    for figure in _last_figures(folder):
        yield f"- {figure}"
    yield f"- Versions: {_versions(description)}"


def reading_lines(reading: PixelReading) -> Iterator[str]:
    """How images were converted to 8-bit RGB, where other programs may differ; nothing if they needed no conversion."""
    said = []
    if reading.bands is not None:
        are = "red, green and blue" if len(reading.bands) == 3 else "grey"
        said.append(f"bands {', '.join(map(str, reading.bands))} as {are}")
    if reading.white is not None:
        said.append(f"images of 9 to 16 bits from 0 (black) to {reading.white:g} (white)")
    if reading.floats is not None:
        black, white = reading.floats
        said.append(f"floating-point, signed and 32-bit images from {black:g} (black) to {white:g} (white)")
    if said:
        yield f"- Read as 8-bit RGB: {'; '.join(said)}. Elsewhere, convert images to 8-bit RGB in the same way"


def file_and_loading_lines(
    files: FrameworkFiles, licence: str = "The licence of the images (and of any weights it started from)"
) -> Iterator[str]:
    """What each file is and how to load it; `licence` is the subject of the sentence about the unknown licence."""
    yield "## Files"
    yield ""
    for path, content in files.weights.items():
        yield f"- `{path.name}`: {len(content)} bytes, sha256 `{hashlib.sha256(content).hexdigest()}`"
        if files.left_out[path]:
            yield f"  - pretrained, but not in it: {', '.join(map(in_markdown, files.left_out[path]))}"
    for path in files.configs:
        yield f"- `{path.parent.name}/{path.name}`: {files.configs_are}"
    yield ""
    yield "## Loading"
    yield ""
    yield f"```{files.language}"
    yield files.how_to_load
    yield "```"
    yield ""
    for note in files.notes:
        yield f"- {note}"
    yield ""
    yield "## Licence"
    yield ""
    yield f"{licence}, and what it allows, must be stated by whoever trained and shares these weights."


def _images(description: dict[str, Any]) -> str:
    images = description.get("images")
    if images is None:
        return "not recorded"
    return f"{images['count']:,}; sha256 of their names `{images['names_sha256']}`"


def _progress(state: dict[str, Any], training: dict[str, Any]) -> str:
    done, total = state["step"], state.get("total_steps")
    asked = f"{training['epochs']:g} epochs with batches of {training['batch_size']}"
    if total is None:
        return f"Steps done: {done}; the recipe asks for {asked}"
    finished = f"finished: all {total} steps" if done == total else f"UNFINISHED: {done} of {total} steps"
    epochs = training["epochs"] * done / total
    return f"Training {finished}, {rounded(epochs, 4)} epochs; the recipe asks for {asked}"


def _last_figures(folder: RunFolder) -> list[str]:
    lines = [line for line in folder.log_lines() if "loss" in line]
    if not lines:
        return []
    last = lines[-1]
    figures = ", ".join(f"{words} {last[name]:.4g}" for name, words in LOGGED.items() if name in last)
    return [f"At step {last['step']}, as logged: {figures}"] if figures else []


def _versions(description: dict[str, Any]) -> str:
    versions = description.get("versions", {})
    return ", ".join(in_markdown(f"{name} {version}") for name, version in versions.items()) or "not recorded"
