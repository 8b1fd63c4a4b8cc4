"""`socodet pretrain`: from images and a recipe to a run."""

import dataclasses
import hashlib
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

import socodet
from socodet import recipes
from socodet.errors import InputError, UnreadableImageError
from socodet.images.decode import image_size
from socodet.images.source import ImageSelection, ImageSource, open_images
from socodet.models.encoders import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.proposals import ProposalTable, propose
from socodet.recipes import Recipe
from socodet.training.data import SampleDataset, SampleStream
from socodet.training.distributed import any_process, join
from socodet.training.loop import Trainer, choose_device, run_training
from socodet.training.run import RunFolder, first_difference
from socodet.training.settings import ExecutionSettings
from socodet.views import warm_up
from socodet.world import world_from_environment

CHECKED_SIZES = 16


@dataclasses.dataclass(frozen=True)
class PretrainResult:
    """What a call of `pretrain` did: the run's folder, how far it is, and the images that could not be read."""

    run: Path
    steps: int
    total_steps: int
    stopped_by: str | None
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    is_first: bool = True
    """Of several processes, whether this is the one that speaks."""

    @property
    def finished(self) -> bool:
        """Whether every step of the recipe is done."""
        return self.steps == self.total_steps


def build_soco(settings: ModelSettings, seed: int) -> SoCo:
    """Randomly initialised networks; the same for the same seed. The caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SoCo(build_encoder(settings), settings)


def pretrain(
    images: str | Path | ImageSource,
    recipe: Recipe | str,
    output: str | Path,
    *,
    proposals: str | Path | None = None,
    limit: int | None = None,
    execution: ExecutionSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
) -> PretrainResult:
    """Pretrains on a folder of images as the recipe says, into the run folder `output`.

    The same call again goes on with an unfinished run, from its last checkpoint; the result is the run that
    was never interrupted, bit for bit on a CPU. A finished run, or one of another recipe or other images, is
    refused unless `overwrite`; `resume` makes a finished run a success instead, for job scripts that start
    the same command again and again.

    `proposals` is a table made by `propose` for these images; without it the run makes its own first.
    `limit` takes so many of the images, picked by the recipe's seed. Started by torchrun or SLURM, all processes
    train one network, each on its share of every batch; the first makes the proposals and writes the folder.
    `InputError` says in one line what cannot be used and how to mend it.
    """
    began = time.monotonic()
    source = open_images(images) if isinstance(images, str | Path) else images
    chosen = recipes.recipe(recipe) if isinstance(recipe, str) else recipe
    execution = execution or ExecutionSettings()
    training = chosen.training
    if limit is not None:
        source = _some(source, limit, training.seed)
    run = RunFolder(Path(output))
    world = world_from_environment()
    if training.batch_size % world.size:
        raise InputError(
            f"batch_size {training.batch_size} cannot be shared by {world.size} processes; make it a multiple of that"
        )
    join(world, choose_device(execution.device, world))
    show_progress = show_progress and world.is_first
    failure: InputError | None = None
    if world.is_first:
        try:
            _prepare(run, source, chosen, proposals, resume=resume, overwrite=overwrite, show_progress=show_progress)
        except InputError as error:
            failure = error
    if any_process(world, failure is not None):
        raise failure or InputError(f"{run.path}: the first process could not prepare the run; see what it says")
    table = ProposalTable.read(run.proposals if proposals is None else proposals)
    readable, unreadable = _readable_images(source, table)
    trainer = Trainer(build_soco(chosen.model, training.seed), training, len(readable), execution, world)
    _check_steps(source, chosen, len(readable))
    state = run.load_checkpoint()
    if state is not None:
        trainer.load_state_dict(state)
        if show_progress and trainer.finished < trainer.total:
            print(f"resuming {run.path} at step {trainer.finished} of {trainer.total}", file=sys.stderr)
    if show_progress and training.batch_size > len(readable):
        times = training.batch_size / len(readable)
        print(
            f"note: a batch of {training.batch_size} shows each of {len(readable)} images {times:.1f} times; "
            "--batch-size makes it smaller",
            file=sys.stderr,
        )
    warm_up()
    dataset = SampleDataset(source, table, readable, chosen.sample, training.seed)
    stream = SampleStream(readable, training.batch_size, training.seed, world)
    result = run_training(trainer, dataset, stream, run, execution, show_progress=show_progress)
    why = "unreadable during training, or of another size than its proposals were made for"
    lost = [(source.key(index), why) for index in sorted(result.unreadable)]
    return PretrainResult(
        run=run.path,
        steps=trainer.finished,
        total_steps=trainer.total,
        stopped_by=result.stopped_by,
        unreadable=(*unreadable, *lost),
        seconds=time.monotonic() - began,
        is_first=world.is_first,
    )


def _some(source: ImageSource, limit: int, seed: int) -> ImageSource:
    if not 1 <= limit <= len(source):
        raise InputError(f"--limit must be between 1 and the {len(source)} images of {source.location}, not {limit}")
    picked = np.random.default_rng(seed).permutation(len(source))[:limit]
    return ImageSelection(source, np.sort(picked).tolist())


def _prepare(
    run: RunFolder,
    source: ImageSource,
    chosen: Recipe,
    proposals: str | Path | None,
    *,
    resume: bool,
    overwrite: bool,
    show_progress: bool,
) -> None:
    """Makes the folder ready: what is asked is noted in it, and a proposal table is at hand.

    Everything that can be refused is refused before an earlier run is cleared away.
    """
    _check_steps(source, chosen, len(source))
    if proposals is not None:
        _check_table(ProposalTable.read(proposals), source)
        chosen = dataclasses.replace(chosen, proposals=ProposalTable.read(proposals).settings)
    description = _describe(source, chosen, proposals)
    _check_folder(run, description, resume=resume, overwrite=overwrite)
    if overwrite:
        run.clear()
    if run.exists():
        _go_on(run, description)
    else:
        run.write_description(description)
    if proposals is None:
        if run.proposals.exists() and not run.checkpoints() and ProposalTable.read(run.proposals).unreadable:
            run.proposals.unlink()  # an image that could not be read may have been mended since
        if not run.proposals.exists():
            propose(source, run.proposals, settings=chosen.proposals, show_progress=show_progress)
        _check_table(ProposalTable.read(run.proposals), source)


def _go_on(run: RunFolder, description: dict[str, Any]) -> None:
    """Before the first checkpoint a run may still change its recipe; afterwards its description stands."""
    if not run.checkpoints():
        run.write_description(description)


def _describe(source: ImageSource, chosen: Recipe, proposals: str | Path | None) -> dict[str, Any]:
    return {
        "recipe": chosen.as_dict(),
        "images": {"count": len(source), "names_sha256": digest_names(source)},
        "table": None if proposals is None else {"sha256": _file_digest(Path(proposals))},
        "location": str(source.location),
        "proposals": None if proposals is None else str(proposals),
        "versions": {
            "socodet": socodet.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "python": platform.python_version(),
        },
    }


def digest_names(source: ImageSource) -> str:
    """Tells two sets of images apart wherever they lie: a hash of their names in order."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.key(index).encode() + b"\0")
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_folder(run: RunFolder, description: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """A run may start in a new folder, or go on in that of the same run; anything else would lose something."""
    if run.path.exists() and not run.path.is_dir():
        raise InputError(f"{run.path}: is a file; give a folder for --output")
    if not run.exists():
        if run.path.is_dir() and any(run.path.iterdir()):
            raise InputError(f"{run.path}: holds files that are not a run's; give another --output")
        return
    if overwrite:
        return
    there = run.describe()
    if run.checkpoints():
        for part in ("recipe", "images", "table"):
            _check_same(run, part, description[part], there.get(part))
    elif run.proposals.exists():  # a run that has not begun to learn has nothing to lose but these
        _check_same(run, "images", description["images"], there.get("images"))
        _check_same(run, "recipe.proposals", description["recipe"]["proposals"], there["recipe"].get("proposals"))
    state = run.load_checkpoint()
    if state is not None and "step" in state and state["step"] == state.get("total_steps") and not resume:
        raise InputError(f"{run.path}: holds a finished run; give another --output or pass --overwrite")


def _check_same(run: RunFolder, part: str, asked: Any, there: Any) -> None:
    difference = first_difference(asked, there)
    if difference:
        raise InputError(
            f"{run.path}: holds a run of other settings: {part} {difference}; "
            "give another --output, or pass --overwrite to lose that run"
        )


def _check_steps(source: ImageSource, chosen: Recipe, images: int) -> None:
    training = chosen.training
    if training.steps(training.epochs, images) == 0:
        raise InputError(
            f"{source.location}: {images} images give no step of batch size {training.batch_size} in "
            f"{training.epochs:g} epochs; lower --batch-size or raise --epochs"
        )


def _readable_images(source: ImageSource, table: ProposalTable) -> tuple[NDArray[np.int64], list[tuple[str, str]]]:
    """Indices of the images that could be read when the table was made, and key and reason of the others."""
    errors = table.unreadable
    if not errors:
        return np.arange(len(source)), []
    failed = [index for index in range(len(source)) if source.key(index) in errors]
    readable = np.setdiff1d(np.arange(len(source)), failed)
    return readable, [(source.key(index), errors[source.key(index)]) for index in failed]


def _check_table(table: ProposalTable, source: ImageSource) -> None:
    """InputError when the table is of other images, or none of them can be read.

    A table of other pictures under the same names shows in their sizes; a few are enough to tell.
    """
    table.check_images(source)
    readable, _ = _readable_images(source, table)
    if not len(readable):
        raise InputError(f"{source.location}: none of its {len(source)} images can be read; check the files")
    for index in readable[:CHECKED_SIZES]:
        key = source.key(int(index))
        try:
            size = image_size(source.read(int(index)))
        except (UnreadableImageError, OSError):
            continue
        if size != table.size(key):
            raise InputError(
                f"{table.path}: made for other images: {key} is {size[0]}x{size[1]}, the table has "
                f"{table.size(key)[0]}x{table.size(key)[1]}; make a new table with `socodet propose`"
            )
