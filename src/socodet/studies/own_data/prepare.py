"""Checks what is requested of the study, and creates its folder if nothing is refused."""

import json
import os
import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from socodet._version import __version__
from socodet.detection.datasets.annotations import DetectionDataset
from socodet.errors import InputError
from socodet.finetuning.data_record import contents
from socodet.images.folder import ImageFolder
from socodet.images.names import Names
from socodet.images.reading import read_images_like
from socodet.images.source import (
    Images,
    ImageSelection,
    ImageSource,
    as_source,
    digest_names,
    reading_of,
    with_reading,
)
from socodet.models.soco import build_soco
from socodet.pretraining.recipes import Recipe
from socodet.proposals.table import ProposalTable
from socodet.runtime.differences import refuse_different_study
from socodet.runtime.files import read_user_file, write_atomically
from socodet.runtime.folder_locks import lock_folder
from socodet.runtime.serialization import from_json, to_json, values_with_defaults
from socodet.studies.detector_table import FIGURES
from socodet.studies.finetuning_runs import FinetuningRuns
from socodet.studies.own_data.protocol import OF_TRAINING, OwnDataSettings, Start
from socodet.studies.own_data.results import TABLES
from socodet.studies.runner import Study
from socodet.weights.file import WeightsFile
from socodet.weights.load import load_starting_point

IMAGES = "images.txt"


@dataclass(frozen=True)
class MovedImages(ImageFolder):
    """Image files under the names that they had before they were moved, by which proposals and runs know them."""

    places: Sequence[str] = ()
    """Their absolute paths now."""

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        return Path(self.places[index])


def open_source(images: Images | None, train: DetectionDataset, listed_in: Path, *, begun: bool = False) -> ImageSource:
    """The images to pretrain on: those given, or the training split's, which the file `listed_in` will list.

    begun: whether that file is of an earlier call. If its images have been moved as a whole since, they keep their
    names.
    """
    if images is not None:
        with read_images_like(train.pixel_reading, widened=True):
            return as_source(images)
    stored = [image.stored for image in train.images if image.stored]
    if stored:  # they are not files
        return with_reading(ImageSelection(stored[0][0], [index for _, index in stored]), train.pixel_reading)
    names = Names([posixpath.normpath(str(image.file)) for image in train.images])
    source = ImageFolder(listed_in.parent, names, listed_in)
    if begun and listed_in.is_file():
        before = os.fsdecode(read_user_file(listed_in)).split("\n")[:-1]
        if before != list(names) and _within_their_folder(before) == _within_their_folder(names):
            source = MovedImages(listed_in.parent, Names(before), listed_in, places=names)
    return with_reading(source, train.pixel_reading)


def _within_their_folder(paths: Sequence[str]) -> list[str] | None:
    """Absolute paths relative to the folder that holds all of them; None for others."""
    if not paths or not all(map(posixpath.isabs, paths)):
        return None
    folder = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    return [posixpath.relpath(path, folder) for path in paths]


def check_images(proposals: Path, source: ImageSource) -> None:
    """InputError if the proposals of an earlier call are of other images."""
    if proposals.exists():
        table = ProposalTable.read(proposals)
        try:
            table.check_images(source)
        except InputError as error:
            raise InputError(f"{proposals.parent}: was begun with other images; give another --output") from error


def request_record(
    settings: OwnDataSettings,
    name: str,
    detectors: FinetuningRuns,
    source: ImageSource | None,
    noted: Mapping[str, Any],
) -> dict[str, Any]:
    """The request as recorded in the study's note. source: the images to pretrain on, if they are given.

    noted: the request of an earlier call; its names are kept, because contents are compared, not names.
    """
    train, val, detector = detectors.training, detectors.validation, detectors.settings.detector
    shown = {"count": len(train), "names_sha256": OF_TRAINING}
    if source is not None:
        shown = {"count": len(source), "names_sha256": digest_names(source)}
    names = {part: noted.get(part, {}).get("name", one.name) for part, one in (("train", train), ("val", val))}
    return {
        "set": noted.get("set", name),
        "settings": to_json(settings),
        "train": {"name": names["train"], "images": len(train), **contents(train, detector)},
        "val": {"name": names["val"], "images": len(val), **contents(val, detector)},
        "images": shown,
        "socodet": __version__,
    }


def reading_record(detectors: FinetuningRuns, source: ImageSource) -> dict[str, Any]:
    """How the images to pretrain on and those of the datasets are read."""
    of_sets = {"train": detectors.training.pixel_reading, "val": detectors.validation.pixel_reading}
    return {
        "reading": to_json(reading_of(source)),
        **{part: {"reading": to_json(one)} for part, one in of_sets.items()},
    }


def begin(
    study: Study,
    requested: Mapping[str, Any],
    there: Mapping[str, Any],
    every: Sequence[Start],
    wanted: Sequence[Start],
    source: ImageSource,
    reading: Mapping[str, Any],
    *,
    overwrite: bool,
) -> dict[str, str]:
    """Writes the note and the list of images; returns a description of each start, including those of earlier calls.

    `there` is the note of an earlier call; `wanted` are the starts to run, out of `every` start; `reading` is how
    images are read (`reading_record`). Before anything is written or removed, InputError if images were read
    differently, if a start has begun with another recipe or other weights, or if weights do not fit.
    """
    lock_folder(study.folder)
    refuse_different_study(study.folder, reading, there.get("reading", reading), "an own_data")
    begun = set() if overwrite else starts_in_use(study)
    noted = {name: one for name, one in there.get("starts", {}).items() if name in begun}
    starts = starts_to_record(study.folder, every, noted)
    check_weights(every, wanted, begun)
    files = [*TABLES, *FIGURES, IMAGES, "proposals-*", ".proposals-*", "length", "pretrain"]
    study.begin(requested, files, overwrite=overwrite, starts=starts, reading=dict(reading))
    if source.location == str(study.folder / IMAGES):
        keys = "".join(f"{source.key(k)}\n" for k in range(len(source)))
        write_atomically(study.folder / IMAGES, keys.encode(errors="surrogateescape"))
    return {name: one["what"] for name, one in starts.items()}


def starts_in_use(study: Study) -> set[str]:
    """Names of the starts from which something has been pretrained or fine-tuned."""
    return {str(run.labels.get("start", run.labels.get("init"))) for run in study.outcomes()}


def with_begun_recipes(study: Study, every: Sequence[Start], there: Mapping[str, Any]) -> tuple[Start, ...]:
    """The starts with the recipes in `there`, the note of an earlier call, if that call has pretrained one of them.

    `auto` plans for the machine, and another version may plan otherwise: a study goes on with its first plan.
    """
    noted, begun = there.get("starts", {}), starts_in_use(study)
    if not any(start.recipe is not None and start.name in begun for start in every):
        return tuple(every)
    recipes = {name: one["recipe"] for name, one in noted.items() if one["recipe"] is not None}
    where = str(study.folder)
    return tuple(
        replace(start, recipe=from_json(Recipe, recipes[start.name], where)) if start.name in recipes else start
        for start in every
    )


def starts_to_record(folder: Path, every: Sequence[Start], begun: Mapping[str, Any]) -> dict[str, Any]:
    """The starts to record in the note, including those that have `begun`, as they are recorded there.

    InputError if a start has begun with something else.
    """
    noted = {name: values_with_defaults({"recipe": Recipe}, one) for name, one in begun.items()}
    files = {file for start in every if (file := start.weights or start.start_from) is not None}
    digests = {file: WeightsFile.find(file).describe(file)["sha256"] for file in files}
    described: dict[str, Any] = {}
    for start in every:
        file = start.weights or start.start_from
        described[start.name] = {
            "what": start.what,
            "recipe": None if start.recipe is None else to_json(start.recipe),
            "weights": None if file is None else digests[file],
        }
    described = json.loads(json.dumps(described))
    changed = [name for name, one in described.items() if {**noted.get(name, one), "what": one["what"]} != one]
    if changed:
        raise InputError(
            f"{folder}: {changed[0]} began with other weights, or with another recipe; give another --output"
        )
    return {**noted, **described}


def check_weights(every: Sequence[Start], wanted: Sequence[Start], begun: Collection[str]) -> None:
    """InputError if the given weights do not fit the network that pretraining begins with.

    This builds two networks, unless nothing in `wanted` starts from the weights, or something has already started.
    """
    from_weights = {start.name for start in every if start.weights or start.start_from}
    if from_weights.isdisjoint(begun) and any(start.name in from_weights for start in wanted):
        start = next(one for one in every if one.start_from is not None)
        assert start.start_from is not None
        assert start.recipe is not None
        load_starting_point(build_soco(start.recipe.model, 0), start.start_from)
