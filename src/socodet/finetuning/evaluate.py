"""Scores of a fine-tuned detector: on the validation set during training, and afterwards on any set."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from socodet.detection.datasets import DetectionDataset, open_detection_set
from socodet.detection.datasets.classes import with_classes_of
from socodet.detection.detectors import detector_named
from socodet.detection.inference import detect
from socodet.detection.scores import evaluate, write_detections
from socodet.finetuning.detector import load_detector
from socodet.finetuning.labelled_sets import report_problems
from socodet.finetuning.run import trained_categories, write_scores
from socodet.runtime.files import check_output_file
from socodet.runtime.world import ALONE, World
from socodet.training.devices import default_workers
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings


@dataclass(frozen=True)
class Evaluation:
    """Scores in percent by name, None where the set has nothing to score, and images that could not be read."""

    scores: dict[str, float | None]
    unreadable: tuple[str, ...]

    def as_table(self) -> str:
        """Scores in percent: a row for boxes and one for masks, a column for each score."""
        rows: dict[str, dict[str, float | None]] = {}
        for name, value in self.scores.items():
            boxes_or_masks, metric = name.split("_", 1)
            rows.setdefault(boxes_or_masks, {})[metric] = value
        columns = list(dict.fromkeys(metric for row in rows.values() for metric in row))
        lines = ["      " + "".join(f"{column:>7}" for column in columns)]
        for boxes_or_masks, row in rows.items():
            cells = ("-" if row.get(column) is None else f"{row[column]:.2f}" for column in columns)
            lines.append(f"{boxes_or_masks:<6}" + "".join(f"{cell:>7}" for cell in cells))
        return "\n".join(lines)


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
) -> Evaluation:
    """Detects and scores; the first process writes the scores of this `step`, and the detections, to their files.

    masks: whether the network predicts them; without, boxes alone are scored.
    """
    found, unreadable = detect(
        network, data, precision=precision, workers=workers, world=world, show_progress=show_progress
    )
    if not world.is_first:
        return Evaluation({}, tuple(unreadable))
    if predictions_file is not None:
        write_detections(data, found, predictions_file)
    judged = evaluate(data if masks else replace(data, has_masks=False), found)
    scores = {name: None if math.isnan(value) else value for name, value in judged.items()}
    if scores_file is not None:
        write_scores(scores_file, data, step, scores)
    return Evaluation(scores, tuple(unreadable))


def evaluate_run(
    run: str | Path,
    data: str | Path | DetectionDataset,
    *,
    split: str = "val",
    images: str | Path | None = None,
    output: str | Path | None = None,
    save_predictions: str | Path | None = None,
    execution: ExecutionSettings | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Evaluation:
    """The scores of a fine-tuning run's detector, from its newest checkpoint, on a set with classes of the same names.

    split: which one of a folder. images: folder of the images of a .json file. output: file for the scores.
    save_predictions: file for the detections, in COCO's result format. An existing file is an InputError unless
    `overwrite`; so is a run that is not a fine-tuning run or has no checkpoint yet, and
    a set without a class of the same name.
    """
    scores_file, predictions_file = (
        None if path is None else check_output_file(path, overwrite=overwrite) for path in (output, save_predictions)
    )
    execution = execution or ExecutionSettings()
    trained = load_detector(run, device=execution.device, precision=execution.precision)
    categories = trained_categories(RunFolder(Path(run)))
    if not isinstance(data, DetectionDataset):
        data = open_detection_set(data, split=split, images=images)
        if show_progress:
            report_problems(data)
    data = with_classes_of(categories, data)
    detector = detector_named(trained.recipe.settings.detector)
    if execution.compile:
        detector.compile(trained.network)
    device = next(trained.parameters()).device
    return score(
        trained.network,
        data,
        masks=detector.has_masks,
        step=trained.step,
        scores_file=scores_file,
        predictions_file=predictions_file,
        precision=trained.precision,
        workers=default_workers(device) if execution.workers is None else execution.workers,
        show_progress=show_progress,
    )
