"""Before a run begins: its images, its proposals, and whether its folder may be used."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from socodet.errors import InputError, UnreadableImageError, none_readable
from socodet.images.reading import PLAIN, PixelReading, requested_reading
from socodet.images.source import (
    ImageSelection,
    ImageSource,
    digest_names,
    full_location,
    open_images,
    read_pixels,
    reading_of,
    size_of,
)
from socodet.pretraining.recipes.recipe import Recipe
from socodet.proposals.image_boxes import OnlineProposals
from socodet.proposals.make_table import propose
from socodet.proposals.settings import BLIND, ONLINE
from socodet.proposals.table import ProposalTable, as_text
from socodet.runtime.counted import counted
from socodet.runtime.notices import log_if_slow, log_note, notice
from socodet.runtime.serialization import from_json, to_json, with_defaults
from socodet.training.run_folder import RunFolder
from socodet.weights.file import WeightsFile, requested_start, start_path

CHECKED_SIZES = 16
MANY, NEARLY_ALL = 20, 0.95
"""A run is refused if at least this many images, and more than this share of all, have no proposal."""


def sample_images(source: ImageSource, limit: int, seed: int) -> ImageSource:
    """At most `limit` of the images, chosen by the seed; a note says when there are no more. InputError below 1."""
    if limit < 1:
        raise InputError(f"--limit must be at least 1, not {limit}")
    if limit > len(source):
        notice(f"{source.location}: has {counted(len(source), 'image')}, fewer than --limit {limit:,}; all are used")
        return source
    chosen = np.random.default_rng(seed).permutation(len(source))[:limit]
    return ImageSelection(source, np.sort(chosen).tolist())


def check_before_planning(
    run: RunFolder, start_from: str | Path | None, proposals: str | Path | None, *, overwrite: bool
) -> None:
    """InputError for a folder, weights or table that cannot be used, before planning, which takes a while."""
    run.refuse_foreign()
    if start_from is not None and (overwrite or not run.checkpoints()):
        WeightsFile.find(start_from).read()
    if proposals is not None and proposals != ONLINE:
        ProposalTable.read(proposals)


def prepare(
    run: RunFolder,
    source: ImageSource,
    chosen: Recipe,
    proposals: str | Path | None,
    start: dict[str, str] | None,
    *,
    overwrite: bool,
    show_progress: bool,
) -> None:
    """Prepares the run's folder: writes run.json, and makes a proposal table unless one is given.

    InputError for anything unusable; an earlier run is still there, unless only the new proposals revealed it.
    """
    check_steps(source, chosen, len(source))
    if proposals == ONLINE:
        _check_readable(source)
    elif proposals is not None:
        table = ProposalTable.read(proposals)
        _check_method(table, chosen)
        _check_table(table, source)
        note_no_proposals(table, source, chosen)
        chosen = dataclasses.replace(chosen, proposals=table.settings)
    description = _describe(source, chosen, proposals, start)
    _check_folder(run, description, overwrite=overwrite)
    if overwrite:
        run.clear()
    if not run.checkpoints():  # once there is one, the recipe may no longer change
        run.write_description(description)
    if proposals is None:
        if run.proposals.exists() and not run.checkpoints() and ProposalTable.read(run.proposals).unreadable:
            run.proposals.unlink()  # an unreadable image may have been repaired since
        made = not run.proposals.exists()
        if made:
            propose(source, run.proposals, settings=chosen.proposals, show_progress=show_progress)
        table = ProposalTable.read(run.proposals)
        _check_table(table, source)
        note_no_proposals(table, source, chosen, noted=made)


def _describe(
    source: ImageSource, chosen: Recipe, proposals: str | Path | None, start: dict[str, str] | None
) -> dict[str, Any]:
    return {
        "recipe": to_json(chosen),
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "table": proposals if proposals in (None, ONLINE) else {"sha256": file_digest(Path(proposals))},
        "start": start,
        "reading": None if reading_of(source) == PLAIN else to_json(reading_of(source)),
        "location": absolute_location(source.location),
        "proposals": proposals if proposals in (None, ONLINE) else absolute_location(str(proposals)),
    }


def absolute_location(path: str) -> str:
    """The absolute path; `..` is kept only where a symbolic link makes it lead elsewhere."""
    whole = str(Path(path).absolute())
    short = os.path.normpath(whole)
    return short if os.path.realpath(short) == os.path.realpath(whole) else whole


def reopen_images(description: Mapping[str, Any]) -> ImageSource:
    """The images that a run.json names, decoded as that run did unless `read_images_as` says otherwise.

    InputError when they are no longer there.
    """
    noted, location = description.get("reading"), full_location(description["location"])
    if noted is None:
        return open_images(location)
    reading = from_json(PixelReading, noted, "run.json: reading")
    return open_images(location, reading.with_settings(requested_reading().settings))


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file, log_if_slow(f"{path}: computing its SHA-256"):
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_folder(run: RunFolder, description: dict[str, Any], *, overwrite: bool) -> None:
    """InputError unless the folder is new or holds the same run; anything else would be lost."""
    run.refuse_foreign()
    if overwrite or not run.exists():
        return
    recorded = run.describe()
    recorded["recipe"] = with_defaults(Recipe, recorded["recipe"])
    if not run.checkpoints() and recorded["recipe"] != description["recipe"]:
        log_note(f"{run.path}: a run with other settings was begun here and has no checkpoint; this one replaces it")
    if run.checkpoints():
        _refuse_more_epochs(run, description["recipe"], recorded["recipe"])
        start = requested_start(description.get("start"), recorded.get("start"))
        run.refuse_other(_identifying(description, start), _identifying(recorded, start_path(recorded.get("start"))))
    elif run.proposals.exists():  # without a checkpoint, only the proposals could be lost
        both = (description, recorded)
        run.refuse_other(
            *(
                {
                    "proposals": one["recipe"].get("proposals"),
                    **{part: one.get(part) for part in ("images", "reading")},
                }
                for one in both
            )
        )


def _identifying(description: Mapping[str, Any], start: str | None) -> dict[str, Any]:
    """The parts of run.json that are equal in all calls of one run."""
    return {"start_from": start, **{part: description.get(part) for part in ("recipe", "images", "table", "reading")}}


def _refuse_more_epochs(run: RunFolder, requested: dict[str, Any], recorded: dict[str, Any]) -> None:
    """InputError, with advice, if only the epochs differ: the run's schedules depend on them."""
    epochs, before = (recipe.get("training", {}).get("epochs") for recipe in (requested, recorded))
    if requested == {**recorded, "training": {**recorded["training"], "epochs": epochs}}:
        refuse_other_length(run, epochs, before)


def refuse_other_length(run: RunFolder, epochs: float, before: float) -> None:
    """InputError, with advice, unless both numbers of epochs are the same."""
    if epochs != before:
        raise InputError(
            f"{run.path}: is a run of {counted(before, 'epoch')}, not {epochs:g}, and its learning rate depends on "
            "its length; resume it with the flags it was started with, or, to train its networks further, start a new "
            f"run from it: --start-from {run.path} --output another folder"
        )


def note_no_proposals(table: ProposalTable, source: ImageSource, chosen: Recipe, *, noted: bool = False) -> None:
    """Notes how many images have no proposal, unless that was `noted` when the table was made.

    InputError if nearly all have none. Image-level pretraining uses no proposals, so nothing is checked.
    """
    without = table.without_boxes
    if not without or chosen.model.architecture == "image":
        return
    keys = [key for key in map(source.key, range(len(source))) if as_text(key) in without]
    if not keys:
        return
    what = f"{source.location}: {len(keys):,} of {len(source):,} images have no proposal (first: {keys[0]})"
    if len(keys) >= MANY and len(keys) > NEARLY_ALL * len(source):
        raise InputError(
            f"{what}; they may be almost uniform, dark or very small: look at them with socodet inspect "
            "proposals, set --value-range, or use --proposals.method grid"
        )
    if not noted:
        notice(f"{what}; their only box is the region that all views show")


def check_steps(source: ImageSource, chosen: Recipe, images: int) -> None:
    """InputError if this many images are too few for a single step of the recipe."""
    training = chosen.training
    if training.steps(training.epochs, images) == 0:
        raise InputError(
            f"{source.location}: {images} images give {chosen.name} no step of batch size {training.batch_size} in "
            f"{training.epochs:g} epochs; lower --batch-size or raise --epochs"
        )


def usable_images(
    run: RunFolder, source: ImageSource, recipe: Recipe, proposals: str | Path | None
) -> tuple[ProposalTable | OnlineProposals, NDArray[np.int64], list[tuple[str, str]]]:
    """The proposals prepared by `prepare` (same `proposals`), and `readable_images`; without a table, all images."""
    if proposals == ONLINE:
        return OnlineProposals(recipe.proposals, reading_of(source)), np.arange(len(source)), []
    table = ProposalTable.read(run.proposals if proposals is None else proposals)
    return table, *readable_images(source, table)


def readable_images(source: ImageSource, table: ProposalTable) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Indices of the images that could be read when the table was made; key and reason of the others."""
    errors = table.unreadable
    if not errors:
        return np.arange(len(source)), []
    failed = [index for index in range(len(source)) if as_text(source.key(index)) in errors]
    readable = np.setdiff1d(np.arange(len(source)), failed)
    return readable, [(source.key(index), errors[as_text(source.key(index))]) for index in failed]


def _check_readable(source: ImageSource) -> None:
    """InputError when none of the first images can be read; without a table nothing has read them yet."""
    unreadable: list[tuple[str, str]] = []
    for index in range(min(CHECKED_SIZES, len(source))):
        try:
            read_pixels(source, index)
            return
        except (UnreadableImageError, OSError) as error:
            unreadable.append((source.key(index), str(error)))
    raise none_readable(f"{source.location}: none of its first {len(unreadable)} images", unreadable[0])


def _check_method(table: ProposalTable, chosen: Recipe) -> None:
    """InputError if the recipe needs boxes that ignore the image, as Table 5(c)'s random ones do, and these do not."""
    own, given = chosen.proposals.method, table.settings.method
    if own in BLIND and given != own and table.origin is None:  # the method of imported boxes is unknown
        raise InputError(
            f"{table.path}: its boxes are made by {given}, but {chosen.name} needs {own}; leave out --proposals"
        )


def _check_table(table: ProposalTable, source: ImageSource) -> None:
    """InputError when the table was made for other images, or none of them can be read.

    Different images under the same names are recognised by their sizes; a few are checked. If only some images were
    replaced or deleted since, a note says so and the run continues without them.
    """
    table.check_images(source)
    chosen = isinstance(source, ImageSelection) and source.is_part
    if len(table) > len(source) and not chosen:
        gone, first = table.without_image(source)
        if gone:
            notice(
                f"{source.location}: lacks {gone:,} of the {len(table):,} images of {table.path} (first: {first}); "
                "training without them"
            )
    readable, unreadable = readable_images(source, table)
    if not len(readable):
        raise none_readable(f"{source.location}: none of its {len(source)} images", unreadable[0])
    others: list[str] = []
    checked = 0
    for index in readable[:CHECKED_SIZES]:
        key = source.key(int(index))
        try:
            size = size_of(source, int(index))
        except (UnreadableImageError, OSError):
            continue
        checked += 1
        if size != table.size(key):
            width, height = table.size(key)
            others.append(f"{key} is {size[0]}x{size[1]}, the table has {width}x{height}")
    new = "make a new table with `socodet propose`"
    if len(others) > checked / 2:
        raise InputError(f"{table.path}: made for other images: {others[0]}; {new}")
    if others:
        notice(
            f"{table.path}: {len(others)} of {checked} images are not of the size that it was made for: {others[0]}; "
            f"training without such images, or {new}"
        )
