"""The loop of a fine-tuning run: its training batches, precise batch norm, and evaluations along the way."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from socodet.detection.datasets.annotations import DetectionDataset
from socodet.detection.inference import bytes_together
from socodet.finetuning.best import METRIC, BestCheckpoint
from socodet.finetuning.evaluate import Evaluation, score
from socodet.finetuning.head_scale import match_head_scale
from socodet.finetuning.run import PREDICTIONS, SCORES
from socodet.finetuning.samples import DetectionBatch, TrainingImages, batch_bytes, image_stream
from socodet.finetuning.settings import EvaluationSettings
from socodet.finetuning.trainer import FineTuner
from socodet.runtime.counted import counted
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_note
from socodet.runtime.progress import duration
from socodet.runtime.world import World
from socodet.training.devices import workers_for
from socodet.training.distributed import agree_flags
from socodet.training.learner import StoppedEarlyError
from socodet.training.log import FINISHED, LogSink, Sinks
from socodet.training.loop import last_step, run_loop
from socodet.training.run_folder import RunFolder
from socodet.training.settings import PATIENCE, ExecutionSettings
from socodet.training.signals import stop_requests
from socodet.training.workers import make_batches
from socodet.weights.report import LoadReport

PRECISE_BN_SEED = 1
"""Added to the run's seed to draw the training batches for re-estimating batch norm statistics."""
SCALE_BATCHES = 4
"""Number of training batches on which the scale of a box head's output is measured."""
BOX_HEAD = "roi_heads.box_head"


@dataclass
class FinetuneLoop:
    """Trains a detector on a dataset and evaluates it along the way."""

    tuner: FineTuner
    shown: DetectionDataset
    """The training images, each with an object."""
    validation: DetectionDataset | None
    run: RunFolder
    evaluation: EvaluationSettings
    execution: ExecutionSettings
    show_progress: bool
    patience: int | None = None
    newest: Evaluation | None = None
    """The last evaluation of this call."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Images that could not be read: file → reason."""

    def __post_init__(self) -> None:
        settings, world = self.tuner.settings, self.tuner.world
        trained = batch_bytes(self.shown, self.tuner.detector, settings) / world.size
        # workers of an evaluation run while those of training keep the batches that they have made ahead
        scored = 0 if self.validation is None else bytes_together(self.validation)
        together = trained + max(scored, trained if settings.precise_bn else 0)
        show_note = self.show_progress and self.tuner.finished < self.tuner.total
        self.workers = workers_for(self.execution.workers, self.tuner.device, together, show_note=show_note)
        self.best = BestCheckpoint.of_run(self.run, self.patience, self.tuner.finished - self.tuner.pending)
        self._pace = _Pace(self.tuner.total)

    def match_head_scale(self, report: LoadReport) -> None:
        """If a box head was loaded, scales its output to match a fresh head's, measured on a few training batches."""
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
            LOGGER.info(
                f"box head: output multiplied by {factor:.3g} to match a fresh one's scale; --keep-head-scale skips it"
            )

    def train(self, sinks: Sequence[LogSink] = ()) -> str | None:
        """Trains to the end, or until this call stops; returns what stopped it (`LoopResult.stopped_by`)."""
        settings = self.tuner.settings
        start, stop = self.tuner.finished, last_step(self.tuner, self.execution)
        if not self.tuner.pending and self._has_enough():
            Sinks(sinks if self.tuner.world.is_first else ()).close(FINISHED)
            return PATIENCE
        result = run_loop(
            self.tuner,
            self._batches(start, stop, seed=self.tuner.seed),
            self.run,
            self.execution,
            description="finetune",
            epochs=settings.iterations * settings.batch_size / len(self.shown),
            show_progress=self.show_progress,
            after_step=self._after_step,
            enough=self._has_enough,
            sinks=sinks,
        )
        return result.stopped_by

    def _has_enough(self) -> bool:
        """Whether patience is exhausted, the same in every process."""
        return self.patience is not None and agree_flags(self.tuner.world, (self.best.exhausted,))[0]

    def _batches(self, start: int, stop: int, *, seed: int) -> Iterator[DetectionBatch]:
        settings = self.tuner.settings
        images = TrainingImages(self.shown, self.tuner.detector, settings, seed=seed)
        stream = image_stream(self.shown, settings, seed, self.tuner.world)
        made = make_batches(images.made, map(images.task, map(stream.batch, range(start, stop))), self.workers)
        with closing(made) as loaded:
            for batch in loaded:
                self.unreadable.update(batch.replaced)
                yield batch

    def _after_step(self, done: int) -> dict[str, Any] | None:
        """Evaluates the detector when an evaluation is due, and returns the scores for the log.

        StoppedEarlyError when a signal stops it. The network's buffers are then restored, as after any other error.
        """
        if self.show_progress:
            self._pace.step(done)
        due = done == self.tuner.total or (self.evaluation.every is not None and done % self.evaluation.every == 0)
        if not due:
            return None
        self.tuner.require_finite()
        began = time.monotonic()
        before = {name: buffer.clone() for name, buffer in self.tuner.scored.named_buffers()}
        try:
            with stop_requests() as requests:
                return self._evaluate(done, requests)
        except Exception:  # including StoppedEarlyError, after which a checkpoint is written
            for name, buffer in self.tuner.scored.named_buffers():
                buffer.copy_(before[name])
            raise
        finally:
            self._pace.leave_out(time.monotonic() - began)

    def _evaluate(self, done: int, requests: Sequence[str]) -> dict[str, Any] | None:
        """Re-estimates batch norm statistics (precise batch norm), then scores the detector."""
        if self.tuner.settings.precise_bn:
            seed = self.tuner.seed + PRECISE_BN_SEED
            batches = self._batches(0, self.tuner.settings.precise_bn, seed=seed)
            self.tuner.reestimate(_until_stopped(batches, requests, self.tuner.world))
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
            stop=requests,
        )
        ap = self.newest.scores.get(METRIC)
        if self.show_progress:
            LOGGER.info(f"step {done:,}: box AP {'-' if ap is None else f'{ap:.2f}'} of 100")
        for failure in self.newest.unwritten:
            log_note(f"{failure}: not written; training continues; free some disk space")
        self.unreadable = dict(self.newest.unreadable) | self.unreadable
        along_the_way = self.evaluation.every is not None or self.best.step is not None  # or in an earlier call
        if along_the_way and self.tuner.world.is_first:
            self.best.add(done, self.tuner.total, self.newest.scores, self.tuner.scored.state_dict)
        return self.newest.as_line()


def _until_stopped(
    batches: Iterator[DetectionBatch], requests: Sequence[str], world: World
) -> Iterator[DetectionBatch]:
    """Yields the batches; raises StoppedEarlyError in every process once one of them is asked to stop."""
    for batch in batches:
        if agree_flags(world, (bool(requests),))[0]:
            raise StoppedEarlyError
        yield batch


PACE_STEPS, PACE_SECONDS = 5, 20.0


class _Pace:
    """Logs once, after the first steps, how long the rest will take."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first: tuple[int, float] | None = None
        self._said = False

    def leave_out(self, seconds: float) -> None:
        """Excludes an evaluation that took this long."""
        if self._first is not None:
            self._first = self._first[0], self._first[1] + seconds

    def step(self, done: int) -> None:
        """Notes that step `done` is done. The first step is not timed, because it waits for the workers to start."""
        now = time.monotonic()
        if self._first is None:
            self._first = done, now
        steps, seconds = done - self._first[0], now - self._first[1]
        if self._said or not steps or (steps < PACE_STEPS and seconds < PACE_SECONDS):
            return
        self._said = True
        pace, left = seconds / steps, self._total - done
        if left:
            LOGGER.info(f"  time     about {duration(pace * left)} for {counted(left, 'step')}, and the evaluations")
