"""What a report takes from pretraining runs beside their logs: their pictures, proposals, views and networks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError
from socodet.images.source import ImageSource, open_images
from socodet.pretraining.preparation import ONLINE, digest_names, some_images
from socodet.probing.pictures import LEAST_SIDE
from socodet.probing.run import levels_and_side
from socodet.proposals.image_boxes import image_rng, propose_boxes
from socodet.proposals.settings import ProposalSettings
from socodet.proposals.table import ProposalTable
from socodet.reports.runs import RunRecord
from socodet.reports.sections import Boxes
from socodet.training.run_folder import RunFolder
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings

PLAIN = PhotometricSettings(jitter_probability=0, grayscale_probability=0, blur_probability=0)
OTHER = PhotometricSettings(blur_probability=0, solarize_probability=0.2)
"""Colours of the two views that networks are asked about."""


def open_pictures(trained: Sequence[RunRecord], images: str | Path | None) -> tuple[ImageSource | None, str | None]:
    """The pictures of the first run; or why there are none."""
    first = trained[0].description
    location = first["location"] if images is None else images
    try:
        source = open_images(location)
    except InputError:
        if images is not None:
            raise
        return None, (
            f"The pictures are not at {location}, where {trained[0].name} had them, so every figure that needs them is "
            "left out; --images DIR says where they are"
        )
    count = first["images"]["count"]
    if count < len(source):
        some = some_images(source, count, first["recipe"]["training"]["seed"])
        source = some if digest_names(some) == first["images"]["names_sha256"] else source
    return source, None


def proposer(record: RunRecord, source: ImageSource) -> Callable[[str, NDArray[np.uint8]], Boxes]:
    """Proposals by a picture's name and pixels: the run's table where it is of these pictures, or made as it was."""
    path = _table(record)
    if path is not None and path.is_file() and _trained_on(record, source):
        table = ProposalTable.read(path)
        return lambda key, pixels: table.boxes(key)
    settings = RunFolder(record.path).settings(ProposalSettings, "proposals")
    return lambda key, pixels: propose_boxes(pixels, settings, image_rng(settings.seed, key))


def picture_notes(record: RunRecord, source: ImageSource) -> list[str]:
    """Where the pictures or boxes shown are not those that the run was trained with: a line, or none."""
    table, method = _table(record), record.description["recipe"]["proposals"]["method"]
    if not _trained_on(record, source):
        return [
            f"{record.name} was trained on other pictures than are shown; boxes are {method} proposals made for these"
        ]
    if table is not None and not table.is_file():
        return [f"{record.name}'s proposals are no longer at {table}; boxes are {method} proposals made anew"]
    return []


def _table(record: RunRecord) -> Path | None:
    """Where the proposals of a run are kept; None where they are made in the course of training."""
    given = record.description["proposals"]
    if given == ONLINE:
        return None
    return RunFolder(record.path).proposals if given is None else Path(given)


def _trained_on(record: RunRecord, source: ImageSource) -> bool:
    return digest_names(source) == str(record.description["images"]["names_sha256"])


def question(record: RunRecord) -> SampleSettings:
    """What a run's network is asked: the same windows, colours and objects as any other, at its own side and levels."""
    levels = levels_and_side(RunFolder(record.path))
    side = levels.views[0].size
    return dataclasses.replace(
        levels,
        views=(ViewSettings("whole", side, PLAIN, flip_probability=0), ViewSettings("crop", side, OTHER)),
        jitter_probability=0,
        min_box_side=LEAST_SIDE * side,
    )
