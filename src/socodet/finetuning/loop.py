"""The loop of a fine-tuning run: its training batches, precise batch norm, and evaluations along the way."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from socodet.detection.datasets import DetectionDataset
from socodet.finetuning.evaluate import Evaluation, score
from socodet.finetuning.head_scale import match_head_scale
from socodet.finetuning.run import PREDICTIONS, SCORES
from socodet.finetuning.samples import DetectionBatch, TrainingImages, image_stream, training_loader
from socodet.finetuning.settings import EvaluationSettings
from socodet.finetuning.trainer import FineTuner
from socodet.training.devices import default_workers
from socodet.training.log import LogSink
from socodet.training.loop import last_step, run_loop
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.workers import loader_batches
from socodet.weights.report import LoadReport

PRECISE_BN_SEED = 1
"""Added to the run's seed, for the training batches that batch norm's statistics are estimated from."""
SCALE_BATCHES = 4
"""Training batches on which the scale of a box head's output is measured."""
BOX_HEAD = "roi_heads.box_head"


@dataclass
class FinetuneLoop:
    """A detector's training on batches of a set, with its evaluations."""

    tuner: FineTuner
    shown: DetectionDataset
    """The training images, each with an object."""
    validation: DetectionDataset | None
    run: RunFolder
    evaluation: EvaluationSettings
    execution: ExecutionSettings
    show_progress: bool
    newest: Evaluation | None = None
    """The last evaluation of this call."""
    unreadable: set[str] = field(default_factory=set)
    """Images that could not be read, in words, why."""

    def __post_init__(self) -> None:
        workers = self.execution.workers
        self.workers = default_workers(self.tuner.device) if workers is None else workers

    def match_head_scale(self, report: LoadReport) -> None:
        """Where a box head was loaded, scales its output to match a fresh head's on the first training batches."""
        if BOX_HEAD not in report.loaded_modules:
            return
        batches = self._batches(0, min(SCALE_BATCHES, self.tuner.total), seed=self.tuner.seed + PRECISE_BN_SEED)
        factor = match_head_scale(
            self.tuner.network,
            lambda pair: self.tuner.losses(pair[1], draw=pair[0]),
            enumerate(batches),
            self.tuner.world,
        )
        if factor is not None and self.show_progress:
            print(
                f"box head: output times {factor:.3g}, the scale of a fresh head's; --keep-head-scale leaves it",
                file=sys.stderr,
            )

    def train(self, sinks: Sequence[LogSink] = ()) -> str | None:
        """Trains to the end, or to where this call stops; what stopped it (`LoopResult.stopped_by`)."""
        settings = self.tuner.settings
        start, stop = self.tuner.finished, last_step(self.tuner, self.execution)
        result = run_loop(
            self.tuner,
            self._batches(start, stop, seed=self.tuner.seed),
            self.run,
            self.execution,
            description="finetune",
            epochs=settings.iterations * settings.batch_size / len(self.shown),
            show_progress=self.show_progress,
            after_step=self._after_step,
            sinks=sinks,
        )
        return result.stopped_by

    def _batches(self, start: int, stop: int, *, seed: int) -> Iterator[DetectionBatch]:
        settings = self.tuner.settings
        images = TrainingImages(self.shown, self.tuner.detector, settings, seed=seed)
        stream = image_stream(self.shown, settings, seed, self.tuner.world)
        loader = training_loader(images, stream, start=start, stop=stop, workers=self.workers)
        with closing(loader_batches(loader)) as loaded:
            for batch in loaded:
                self.unreadable.update(batch.replaced)
                yield batch

    def _after_step(self, done: int) -> dict[str, Any] | None:
        """Evaluates the detector when it is due; the scores become a line of the log."""
        due = done == self.tuner.total or (self.evaluation.every is not None and done % self.evaluation.every == 0)
        if not due:
            return None
        if self.tuner.settings.precise_bn:
            seed = self.tuner.seed + PRECISE_BN_SEED
            self.tuner.reestimate(self._batches(0, self.tuner.settings.precise_bn, seed=seed))
        if self.validation is None:
            return None
        self.newest = score(
            self.tuner.scored,
            self.validation,
            masks=self.tuner.detector.has_masks,
            step=done,
            scores_file=self.run.path / SCORES,
            predictions_file=self.run.path / PREDICTIONS if self.evaluation.save_predictions else None,
            precision=self.tuner.precision,
            workers=self.workers,
            world=self.tuner.world,
            show_progress=self.show_progress,
        )
        self.unreadable.update(self.newest.unreadable)
        return dict(self.newest.scores)
