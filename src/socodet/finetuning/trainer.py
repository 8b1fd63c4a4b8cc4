"""The fine-tuning step: a detector's losses, its optimizer, and everything that a checkpoint holds."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models._utils import IntermediateLayerGetter

from socodet.detection.detectors.by_name import DETECTORS
from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.errors import InputError
from socodet.finetuning.samples import DetectionBatch
from socodet.runtime.counted import counted
from socodet.runtime.world import ALONE, World
from socodet.training.learner import NetworkLearner
from socodet.training.precise_bn import reestimate_statistics
from socodet.training.settings import ExecutionSettings

ONE_VALUE = "more than 1 value per channel"
"""Part of torch's error message when the images are so few and small that batch norm has nothing to normalise."""
MultiAverage = Callable[[Any, Any, Tensor | int], None]
"""The form that `AveragedModel` takes: averages, weights and the number of steps averaged so far."""


class FineTuner(NetworkLearner[DetectionBatch]):
    """Trains a detector's network under its schedule.

    Batch norm is synchronised over all processes in every layer (section 4.2). Everything that a step samples at
    random, such as anchors and RoIs for the losses, is a function of (seed, step, process), so a resumed run equals an
    uninterrupted one. With another number of processes, results differ in three ways: images are padded to a different
    largest image; an R-CNN samples other RoIs and averages mask losses over them, as in Detectron2; RT-DETR draws other
    sizes and noise. Detectors made of torchvision's parts wait for the device within a step, where they select boxes.
    """

    saved_as = "detector"
    when_diverged = "lower --base-lr"
    when_too_large = "lower --batch-size or --size"

    def __init__(
        self,
        network: nn.Module,
        detector: Detector,
        settings: ScheduleSettings,
        execution: ExecutionSettings | None = None,
        world: World = ALONE,
        *,
        seed: int = 0,
        compiler: str = "inductor",
    ) -> None:
        execution = execution or ExecutionSettings()
        super().__init__(network, execution, world)
        self.detector = detector
        self.settings = settings
        self.seed = seed
        self.total = settings.iterations
        self.scored: nn.Module = self.network
        """The network that is evaluated: the trained one, or the moving average of its weights."""
        self._average: AveragedModel | None = None
        if settings.ema_decay is not None:
            average = (
                moving_average(settings.ema_decay, settings.ema_warmup)
                if settings.ema_warmup
                else get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call]
            )
            self._average = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
            if settings.ema_warmup:
                self._average.n_averaged += 1  # the initial weights, which the first step would replace
            self.scored = self._average.module
        if execution.compile:
            detector.compile(self.network, compiler)
        optimizer = _checked_optimizer(detector.optimizer(self.network, settings), detector)
        self._begin(optimizer, execution, find_unused_parameters=not every_parameter_learns(self.network, detector))
        self._window = _Window()
        self._losses: frozenset[str] = frozenset()
        """Names of the losses, known after the first step."""

    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.settings.rate(step)

    def step(self, batch: DetectionBatch) -> Tensor:
        """One optimizer step on the sum of the detector's losses, which it returns."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(self.finished) * group["lr_factor"]
        self._update.begin()
        losses = self.losses(batch, draw=self.finished)
        loss = torch.stack(list(losses.values())).sum()
        self._update.backward(loss)
        if self.settings.clip_norm is not None:  # gradients have the loss scale as a factor, 1 unless float16
            limit = self.settings.clip_norm * self._update.scaler.get_scale()
            nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        learned = self._update.finish(loss.detach())
        if self._average is not None and learned:
            self._average.update_parameters(self.network)
        self.finished += 1
        self._window.skipped += not learned
        if learned or not self._skip:
            self._window.losses.append({name: value.detach() for name, value in losses.items()})
        return loss.detach()

    def losses(self, batch: DetectionBatch, draw: int, network: nn.Module | None = None) -> dict[str, Tensor]:
        """The losses by name, by default of the trained network; `draw` determines which RoIs are sampled."""
        images, targets = batch.to(self.device)
        try:
            with self._seeded(self.seed, draw), self._autocast():
                losses = (network or self._forward)(images, targets)
        except ValueError as error:
            if ONE_VALUE not in str(error):
                raise
            raise InputError(
                f"a batch of {counted(len(images), 'image')} leaves a batch norm with one value per channel ({error}); "
                "raise --batch-size or --size"
            ) from None
        return self._checked_losses(losses)

    def _checked_losses(self, losses: Any) -> dict[str, Tensor]:
        """The losses as scalars. InputError if a user's network returns something else, or other losses than before.

        Losses that differ from step to step have no mean in the log, and make several processes wait for each other.
        """
        what = f"detector {self.detector.name}: in training mode its network"
        if not isinstance(losses, dict) or not losses:
            given = "an empty one" if isinstance(losses, dict) else f"a {type(losses).__name__}"
            raise InputError(f"{what} must return a dict of losses, not {given}")
        for name, value in losses.items():
            if not isinstance(value, Tensor) or value.numel() != 1:
                given = f"{tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"{what} must return each loss as a tensor of one number; {name} is a {given}")
        self._losses = self._losses or frozenset(losses)
        if losses.keys() != self._losses:
            differing = ", ".join(sorted(losses.keys() ^ self._losses))
            raise InputError(
                f"{what} must return the same losses at every step; {differing} is not always there: where there is "
                "nothing to learn from, return 0 * x.sum() of its output x"
            )
        return {name: value.reshape(()) for name, value in losses.items()}

    def reestimate(self, batches: Any) -> None:
        """Re-estimates the scored network's batch norm statistics on these training batches (precise batch norm)."""
        network = self._forward if self._average is None else self.scored
        reestimate_statistics(
            self.scored, lambda pair: self.losses(pair[1], pair[0], network), enumerate(batches), self.world
        )

    def metrics(self, seconds: float, waited: float) -> dict[str, Any]:
        """The mean of the loss and of each of its terms since the last log line, and the learning rate."""
        last = self.lr(self.finished - 1)
        line: dict[str, Any] = {}
        if self._window.losses:
            parts = {name: self._mean([one[name] for one in self._window.losses]) for name in self._window.losses[0]}
            line["loss"] = sum(parts.values())
            line |= {name if name.startswith("loss_") else f"loss_{name}": value for name, value in parts.items()}
            self._summary = f"loss {line['loss']:.3f}  lr {last:.3g}"
        line["lr"] = last
        if self._update.can_skip:
            line["skipped"] = self._window.skipped
        self._window = _Window()
        return line

    def mean_loss(self) -> float:
        """The mean loss over all processes since the last log line; 0 if no step counted."""
        losses = [torch.stack(list(one.values())).sum() for one in self._window.losses]
        return self._mean(losses) if losses else 0.0

    def images(self, batch: DetectionBatch) -> int:
        """Number of images in this process's share of the batch."""
        return len(batch.images)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume."""
        return super().state_dict() | ({} if self._average is None else {"average": self._average.state_dict()})

    def _load(self, state: dict[str, Any]) -> None:
        saved = _group_sizes(state["optimizer"])
        if saved != _group_sizes(self.optimizer.state_dict()):
            earlier = self.detector.earlier_optimizer(self.network, self.settings)
            if earlier is not None and saved == _group_sizes(earlier.state_dict()):
                self.optimizer = self._update.optimizer = earlier
        super()._load(state)
        if self._average is not None:
            self._average.load_state_dict(state["average"])


def _checked_optimizer(optimizer: object, detector: Detector) -> torch.optim.Optimizer:
    """A detector's optimizer. InputError if it is not an optimizer, or has groups that the schedule cannot set."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        what = type(optimizer).__name__
        raise InputError(f"detector {detector.name}: optimizer() must return a torch optimizer, not a {what}")
    if not all("lr_factor" in group for group in optimizer.param_groups):
        raise InputError(
            f"detector {detector.name}: a parameter group of its optimizer has no lr_factor, which multiplies the "
            'schedule\'s learning rate; write {"params": ..., "lr_factor": 1.0}'
        )
    return optimizer


def _group_sizes(state: dict[str, Any]) -> list[int]:
    """The number of parameters in each group of an optimizer's state."""
    return [len(group["params"]) for group in state["param_groups"]]


def every_parameter_learns(network: nn.Module, detector: Detector) -> bool:
    """Whether every step is known to give every parameter a gradient: in our detectors on torchvision's ResNets."""
    if not any(detector is one for one in DETECTORS.values()):
        return False
    bodies = [module for name, module in network.named_modules() if name == "backbone.body"]
    return all(isinstance(body, IntermediateLayerGetter) for body in bodies)


def moving_average(decay: float, warmup: float) -> MultiAverage:
    """Averages with decay · (1 - exp(-n / warmup)) at the n-th step, two thirds of `decay` after `warmup` steps."""

    @torch.no_grad()
    def update(averages: list[Tensor], weights: list[Tensor], averaged: Tensor | int) -> None:
        now = decay * (1 - math.exp(-float(averaged) / warmup))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - now)
        else:
            torch._foreach_copy_(averages, weights)

    return update


def scored_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights of the scored network in a checkpoint."""
    if "average" not in state:
        weights: dict[str, Tensor] = state["detector"]
        return weights
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in state["average"].items() if name.startswith(prefix)}


@dataclass
class _Window:
    """Losses and skipped steps since the last log line."""

    losses: list[dict[str, Tensor]] = field(default_factory=list)
    skipped: int = 0
