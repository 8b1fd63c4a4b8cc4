"""Pretraining: the optimiser step with its schedules, its log line, and its data."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from socodet.models.objective import DecorrelatedDimensions
from socodet.models.soco import SoCo
from socodet.pretraining.data import SampleDataset, replaced_images
from socodet.pretraining.lars import LARS, parameter_groups
from socodet.pretraining.settings import TrainingSettings
from socodet.pretraining.watch import CollapseWatch, DataCost, LogWindow
from socodet.runtime.log import LOGGER
from socodet.runtime.world import ALONE, World
from socodet.training.devices import deterministic_algorithms, keep_freed_memory, workers_for
from socodet.training.distributed import agree, gather_rows
from socodet.training.learner import NetworkLearner
from socodet.training.log import LogSink
from socodet.training.loop import last_step, run_loop
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.streams import Place, Stream
from socodet.training.workers import make_batches
from socodet.views.batch import Batch


def learning_rate(step: int, *, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up to `peak`, then half a cosine to 0 (section 4.1; Loshchilov & Hutter 2016).

    Step k of `total`, counted from 0: peak · (k+1)/warmup while k < warmup, then
    peak · (1 + cos(π (k - warmup)/(total - warmup))) / 2.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def target_momentum(step: int, *, total: int, base: float, final: float = 1.0) -> float:
    """τ = τ₁ - (τ₁ - τ₀)(cos(πk/K) + 1)/2 at step k of K, counted from 0: from τ₀ (base) towards τ₁ (BYOL: 1)."""
    return final - (final - base) * (math.cos(math.pi * step / total) + 1) / 2


class Trainer(NetworkLearner[Batch]):
    """The networks, their optimiser and the current step: everything a checkpoint holds."""

    saved_as = "model"
    when_diverged = "lower --base-lr or lengthen --warmup-epochs"
    when_too_large = "lower --batch-size or raise --accumulate"

    def __init__(
        self,
        soco: SoCo,
        settings: TrainingSettings,
        images: int,
        execution: ExecutionSettings | None = None,
        world: World | None = None,
        *,
        compiler: str = "inductor",
    ) -> None:
        execution = execution or ExecutionSettings()
        super().__init__(soco, execution, world or ALONE, norms_over=settings.norm_group)
        self.soco = soco
        self.settings = settings
        if self.device.type == "cpu":
            keep_freed_memory()  # affects the whole process
        rates = _rates(soco, settings)
        _freeze(soco, [name for name, rate in rates.items() if rate == 0])
        if execution.compile:
            _compile(self.soco, compiler)
        optimizer = LARS(
            parameter_groups(
                soco,
                settings.weight_decay,
                adapt=settings.optimizer == "lars",
                norm_factor=settings.norm_lr,
                factors={name: rate for name, rate in rates.items() if rate > 0},
            ),
            momentum=settings.momentum,
            trust_coefficient=settings.trust_coefficient,
            clip=settings.trust_clip,
        )
        self._begin(optimizer, execution, find_unused_parameters=True)  # FPN levels that no process has a box on
        self.total = settings.steps(settings.epochs, images)
        self.warmup = settings.steps(settings.warmup_epochs, images)
        self.data = DataCost()
        self._window = LogWindow()
        self._watch = CollapseWatch(
            speaks=self.world.is_first,
            has_variance_term=isinstance(soco.objective, DecorrelatedDimensions)
            and soco.objective.settings.variance_weight > 0,
        )

    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return learning_rate(step, total=self.total, warmup=self.warmup, peak=self.settings.lr)

    def momentum(self, step: int) -> float:
        """τ of the target update after that step."""
        base, final = self.settings.target_momentum, self.settings.final_target_momentum
        return target_momentum(step, total=self.total, base=base, final=final)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One optimiser step and target update; returns the loss, and the target's embeddings of the first view.

        Both stay on the device: nothing here waits for it, except as `OptimizerStep` does. The batch may already be on
        the device unless it is split into micro-batches.
        """
        with _fastest_convolutions(), self._seeded(self.settings.seed, self.finished):  # for networks with dropout
            return self._step(batch)

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        number = self.finished
        self.finished += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(number) * group["lr_factor"]
        self._update.begin()
        losses, embeddings, found = [], [], []
        parts = batch.split(self.settings.accumulate)
        for part in parts:
            with self._exchange(last=part is parts[-1]):
                with self._autocast():
                    output = self._forward(part.to(self.device).views)
                self._update.backward(output.loss / len(parts))
            losses.append(output.loss.detach())
            embeddings.append(output.embeddings)
            found += [] if output.rpn_loss is None else [output.rpn_loss.detach()]
        loss = torch.stack(losses).mean()
        learned = self._update.finish(loss)
        if learned:
            self.soco.update_target(self.momentum(number))
        self.data.add(batch)
        self._window.add(batch, skipped=not learned)
        if learned or not self._skip:  # the loss of a skipped step is not logged
            self._window.losses.append(loss)
            self._window.rpn_losses += [torch.stack(found).mean()] if found else []
            self._window.embeddings = torch.cat(embeddings)
        return loss, torch.cat(embeddings)

    def _exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over all processes once per step, with the last micro-batch."""
        if isinstance(self._forward, DistributedDataParallel) and not last:
            return self._forward.no_sync()  # type: ignore[no-untyped-call,no-any-return]
        return nullcontext()

    def metrics(self, seconds: float, waited: float) -> dict[str, Any]:
        """The log line for the steps since the last one."""
        window, last = self._window, self.finished - 1
        line: dict[str, Any] = {}
        if window.losses:
            line["loss"] = self.mean_loss()
            if window.rpn_losses:
                line["rpn_loss"] = self._mean(window.rpn_losses)
            line |= self._watch.figures(gather_rows(self.world, window.embeddings), self.finished)
            self._summary = f"loss {line['loss']:.3f}  lr {self.lr(last):.3g}"
        line |= {"lr": self.lr(last), "momentum": self.momentum(last)}
        if self._update.can_skip:
            line["skipped"] = window.skipped
        if self._update.scaler.is_enabled():
            line["loss_scale"] = self._update.scaler.get_scale()
        line["level_share"] = window.level_share
        line["worker_cores_needed"] = window.data.cores_needed(seconds - waited) * self.world.size
        self._window = LogWindow()
        return line

    def mean_loss(self) -> float:
        """The mean loss over all processes since the last log line; 0 if no step counted."""
        return self._mean(self._window.losses) if self._window.losses else 0.0

    def images(self, batch: Batch) -> int:
        """Number of images in this process's batch."""
        return len(batch.indices)

    def agree(self, batch: Batch, flags: tuple[bool, ...]) -> tuple[Batch, tuple[bool, ...]]:
        """Agrees on the flags, and on which pyramid levels are computed."""
        return agree(self.world, batch, flags)


@contextmanager
def _fastest_convolutions() -> Iterator[None]:
    """CuDNN times its algorithms at the first step and keeps the fastest; all steps have the same shapes.

    Not with --deterministic, as another run may choose another algorithm.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _rates(soco: SoCo, settings: TrainingSettings) -> dict[str, float]:
    """Learning-rate factors other than 1, by prefix of the parameters' names."""
    backbone = ["backbone.body.", "box_head."] if soco.online.encoder.head_is_fifth_block else ["backbone.body."]
    rates = {
        "predictor.": settings.predictor_lr,
        **{f"online.encoder.{name}": settings.backbone_lr for name in backbone},
    }
    return {name: rate for name, rate in rates.items() if rate != 1}


def _freeze(soco: SoCo, prefixes: Sequence[str]) -> None:
    """Freezes the parameters with these name prefixes; batch norm still uses each batch's statistics."""
    for name, parameter in soco.named_parameters():
        if name.startswith(tuple(prefixes)):
            parameter.requires_grad_(False)


def _compile(soco: SoCo, backend: str) -> None:
    """Compiles backbones in place, under their own names, and C4's head, a whole stage.

    RoIAlign depends on the number of boxes on a level, and would be recompiled at every batch; an FPN's head is called
    layer by layer (`over_views`).
    """
    for name, module in soco.named_modules():
        if name.endswith(".backbone.body") or (
            name.endswith(".encoder.box_head") and not isinstance(module, FastRCNNConvFCHead)
        ):
            module.compile(backend=backend, dynamic=False)


def run_training(
    trainer: Trainer,
    dataset: SampleDataset,
    stream: Stream,
    run: RunFolder,
    execution: ExecutionSettings,
    *,
    show_progress: bool = True,
    after_step: Callable[[int], Mapping[str, Any] | None] | None = None,
    sinks: Sequence[LogSink] = (),
) -> tuple[str | None, set[int]]:
    """Pretrains from the trainer's current step to the end, to `max_steps`, or until asked to stop (`run_loop`).

    Returns what stopped it, and the indices of the images that could not be read.
    """
    start, stop = trainer.finished, last_step(trainer, execution)
    batch_bytes = dataset.sample_bytes * stream.batch_size // trainer.world.size
    show_note = show_progress and trainer.world.is_first and start < stop
    workers = workers_for(execution.workers, trainer.device, batch_bytes, show_note=show_note)
    pin_on = trainer.device if trainer.device.type == "cuda" else None
    asked: deque[list[Place]] = deque()

    def places() -> Iterator[list[Place]]:
        """The places of each step. Another thread may iterate over them, and `Stream` is not thread-safe."""
        for step in range(start, stop):
            of_step = stream.batch(step)
            asked.append(of_step)
            yield of_step

    made = make_batches(dataset.batch, places(), workers, pin_on=pin_on)
    unreadable: set[int] = set()

    def batches() -> Iterator[Batch]:
        with closing(made) as loaded:
            for batch in loaded:
                unreadable.update(replaced_images(batch, asked.popleft()))
                yield batch

    with deterministic_algorithms(execution.deterministic):
        result = run_loop(
            trainer,
            batches(),
            run,
            execution,
            description="pretrain",
            epochs=trainer.settings.epochs,
            show_progress=show_progress,
            after_step=after_step,
            sinks=sinks,
        )
    note = trainer.data.note(result, workers, trainer.world.size)
    if note is not None and show_progress and trainer.world.is_first:
        LOGGER.info(str(note))
    return result.stopped_by, unreadable
