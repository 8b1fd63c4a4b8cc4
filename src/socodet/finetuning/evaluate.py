"""Scores of a fine-tuned detector: on the validation set during training, and afterwards on any dataset."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from socodet.detection import scores as detection_scores
from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.datasets.classes import match_classes
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.reading import ReadingSettings
from socodet.detection.detectors.by_name import detector_named
from socodet.detection.inference import bytes_together, detect
from socodet.detection.scores import Detections, Scores, write_detections
from socodet.detection.scores.outcomes import outcome, precision_recall, threshold_text
from socodet.finetuning.data_record import contents
from socodet.finetuning.detector import load_detector
from socodet.finetuning.inputs import check_evaluation_arguments
from socodet.finetuning.labelled_sets import report_problems
from socodet.finetuning.run import F1_LIMIT, count_images_trained_on, trained_categories, write_scores
from socodet.images.reading import read_images_like
from socodet.images.truncated import TRUNCATED
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_if_slow, printable
from socodet.runtime.shown import Shown, ShownTable
from socodet.runtime.world import ALONE, World, world_from_environment
from socodet.training.devices import choose_device, workers_for
from socodet.training.distributed import in_every_process, join, require_same
from socodet.training.run_folder import Checkpoint, RunFolder
from socodet.training.settings import DeviceSettings
from socodet.weights.hub import reads_hub

NAMED = 5
"""Maximum number of classes that a message names."""
NOTHING_OF = {
    "APs": "that is small, below 32x32 pixels",
    "APm": "that is medium-sized, 32x32 to 96x96 pixels",
    "APl": "that is large, above 96x96 pixels",
    "APr": "of a rare class",
    "APc": "of a common class",
    "APf": "of a frequent class",
}
"""Score → the objects that the dataset lacks when this score is undefined."""


@dataclass(frozen=True)
class Evaluation(Shown):
    """Scores in percent by name (None if the dataset has no such objects), and images that could not be used."""

    scores: dict[str, float | None]
    unreadable: tuple[tuple[str, str], ...]
    """File and reason."""
    of_classes: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """By class name: `objects`, the number of ground-truth objects that count, and AP and AP50 of boxes and masks."""
    unwritten: tuple[str, ...] = ()
    """Files that could not be written, and why."""
    about: str = ""
    """Which weights and images the scores are of, for a title."""
    best_f1: tuple[float, float] | None = None
    """The score threshold with the highest F1, and that F1 in percent; None if nothing was detected."""

    @classmethod
    def of(cls, scores: Scores, unreadable: Sequence[tuple[str, str]], **more: Any) -> "Evaluation":
        """Converts scores to the form that is printed and written; `more` sets further fields."""
        return cls(
            _none_for_nan(scores),
            tuple(unreadable),
            {name: _none_for_nan(of_class) for name, of_class in scores.of_classes.items()},
            **more,
        )

    def as_line(self) -> dict[str, float | None]:
        """The entries for the log."""
        limit = {} if self.best_f1 is None else dict(zip((F1_LIMIT, "best_f1"), self.best_f1, strict=True))
        return {**self.scores, **limit}

    def as_table(self) -> str:
        """Scores in percent: a row for boxes and one for masks, a column for each score."""
        rows: dict[str, dict[str, float | None]] = {}
        for name, value in self.scores.items():
            boxes_or_masks, metric = name.split("_", 1)
            rows.setdefault(boxes_or_masks, {})[metric] = value
        columns = list(dict.fromkeys(metric for row in rows.values() for metric in row))
        lines = ["      " + "".join(f"{column:>7}" for column in columns)]
        for boxes_or_masks, row in rows.items():
            lines.append(f"{boxes_or_masks:<6}" + "".join(f"{_cell(row.get(column)):>7}" for column in columns))
        return "\n".join(lines)

    def shown(self) -> list[ShownTable]:
        """A table of the scores and one of the classes."""
        total = ShownTable([(name.replace("_", " "), _cell(value)) for name, value in self.scores.items()])
        columns = list(dict.fromkeys(column for row in self.of_classes.values() for column in row))
        header = ("class", *(column.replace("_", " ").removeprefix("box ") for column in columns))
        rows = [(name, *(_cell(row.get(column)) for column in columns)) for name, row in self.of_classes.items()]
        notes = "; ".join(filter(None, (self._best_cut(), self.why_missing())))
        return [total, ShownTable(rows, header, notes)] if rows else [total]

    def headline(self) -> str:
        """Which weights and images the scores are of."""
        return self.about or "scores in percent"

    def why_missing(self) -> str | None:
        """Explains in one line why some scores in the tables are `-`; None if none is."""
        without = [printable(name) for name, row in self.of_classes.items() if not row.get("objects")]
        kinds = {name.split("_", 1)[1] for name, value in self.scores.items() if value is None}
        why = []
        if without:
            more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
            why.append(f"of {len(without):,} class{'es' if without[1:] else ''} ({', '.join(without[:NAMED])}{more})")
        if len(without) < len(self.of_classes):
            why += [what for name, what in NOTHING_OF.items() if name in kinds]
        if not why:
            return None
        return (
            f"-: the dataset has no object {', none '.join(why)}; "
            "crowd regions and objects marked difficult do not count"
        )

    def classes_as_table(self) -> str:
        """A row for each class: number of ground-truth objects, and scores in percent."""
        rows = self.of_classes
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        shown = {name: printable(name) for name in rows}
        width = max(map(len, ["class", *shown.values()]))
        titles = [column.replace("_", " ").removeprefix("box ") for column in columns]
        lines = [f"{'class':<{width}}" + "".join(f"{title:>11}" for title in titles)]
        for name, row in rows.items():
            values = (row.get(column) for column in columns)
            lines.append(f"{shown[name]:<{width}}" + "".join(f"{_cell(value):>11}" for value in values))
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join([*([f"{self.about}:"] if self.about else []), self.classes_as_table(), *self.summary()])

    def summary(self) -> list[str]:
        """The table over all classes, followed by what is missing and the best score threshold."""
        return [line for line in (self.as_table(), self.why_missing(), self._best_cut()) if line]

    def _best_cut(self) -> str | None:
        if self.best_f1 is None:
            return None
        limit, f1 = self.best_f1
        return f"F1 is highest ({f1:.1f}) for detections with a score of at least {threshold_text(limit)}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value}" if isinstance(value, int) else f"{value:.2f}"


def _none_for_nan(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def score(
    network: nn.Module,
    data: DetectionDataset,
    *,
    masks: bool,
    step: int,
    scores_file: Path | None,
    predictions_file: Path | None = None,
    precision: torch.dtype = torch.float32,
    workers: int = 0,
    world: World = ALONE,
    show_progress: bool = False,
    stop: Sequence[str] = (),
) -> Evaluation:
    """Runs the detector and scores it; the first process writes the scores after `step` and the detections to files.

    A file that cannot be written is named in the result's `unwritten`.

    masks: whether the network predicts masks; if not, only boxes are scored. stop: as in `detect`.
    """
    found, unreadable = detect(
        network, data, precision=precision, workers=workers, world=world, show_progress=show_progress, stop=stop
    )
    if not world.is_first:
        return Evaluation({}, tuple(unreadable))
    unwritten: list[OSError] = []
    if predictions_file is not None:
        _write_or_note(unwritten, write_detections, data, found, predictions_file)
    with log_if_slow(f"{data.name}: scoring {sum(map(len, found.values())):,} detections", show=show_progress):
        judged = detection_scores.evaluate(data if masks else replace(data, has_masks=False), found)
        in_order = [found.get(image.image_id, Detections.none()) for image in data.images]
        best = precision_recall(
            data.images, in_order, map(partial(outcome, style=data.style), data.images, in_order)
        ).best
    evaluation = Evaluation.of(
        judged,
        unreadable,
        about=f"scores after step {step:,} on {data.name} ({len(data):,} images), in percent",
        best_f1=None if best is None else (best[0], 100 * best[1]),
    )
    if scores_file is not None:
        _write_or_note(unwritten, write_scores, scores_file, data, step, evaluation.scores, evaluation.of_classes)
    return replace(evaluation, unwritten=tuple(map(str, unwritten)))


def _note_images_trained_on(run: str | Path, data: DetectionDataset) -> None:
    seen = count_images_trained_on(RunFolder(Path(run)), data)
    if seen:
        LOGGER.warning(
            f"note: {data.name}: the detector was trained on {seen:,} of its {len(data):,} images and does better on "
            "them than on new ones; score it on others, such as a validation split"
        )


def _write_or_note(failures: list[OSError], write: Callable[..., None], *arguments: Any) -> None:
    """Writes a file; if that fails, for example on a full disk, the scores must not be lost."""
    try:
        write(*arguments)
    except OSError as error:
        failures.append(error)


@reads_hub("run")
def evaluate(
    run: str | Path,
    data: str | Path | DetectionDataset,
    *,
    split: str = "val",
    images: str | Path | None = None,
    reading: ReadingSettings | None = None,
    checkpoint: Checkpoint = "best",
    output: str | Path | None = None,
    save_predictions: str | Path | None = None,
    execution: DeviceSettings | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Evaluation:
    """Scores a fine-tuning run's detector on a dataset; classes are matched by name.

    split: the split of a folder to score. images: folder of the images, if they are elsewhere. checkpoint: `best` or
    `last`, as in `load_detector`. output: file for the scores, including those of each class. save_predictions: file
    for the detections, in COCO's result format.

    InputError if a file exists (unless `overwrite`), if both files have the same name, if `run` is not a fine-tuning
    run or has no checkpoint yet, or if no class name is shared. Started by torchrun or SLURM, each process takes its
    share of the images; only the first process gets the scores.
    """
    scores_file, predictions_file = check_evaluation_arguments(run, data, output, save_predictions, overwrite=overwrite)
    execution = execution or DeviceSettings()
    world = world_from_environment()
    show_progress = show_progress and world.is_first
    trained = load_detector(run, checkpoint=checkpoint, device=execution.device, precision=execution.precision)
    categories = trained_categories(RunFolder(Path(run)))
    device = choose_device(execution.device, world)
    join(world, device)
    with in_every_process(world, "another process could not open the annotated dataset; see its message"):
        if not isinstance(data, DetectionDataset):
            with read_images_like(trained.pixel_reading):
                data = open_detection_set(data, split=split, images=images, reading=reading)
            if show_progress:
                report_problems(data)
        if show_progress:
            _note_images_trained_on(run, data)
        data = match_classes(replace(categories, name=str(run)), data)
    if world.size > 1:  # a run still in progress may have written a checkpoint meanwhile
        require_same(world, annotations=contents(data, trained.recipe.settings.detector), checkpoints=trained.step)
    detector = detector_named(trained.recipe.settings.detector)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    found = score(
        trained.network,
        data,
        masks=detector.has_masks,
        step=trained.step,
        scores_file=scores_file,
        predictions_file=predictions_file,
        precision=trained.precision,
        workers=workers_for(execution.workers, device, bytes_together(data), show_note=show_progress),
        world=world,
        show_progress=show_progress,
    )
    TRUNCATED.report()
    return found
