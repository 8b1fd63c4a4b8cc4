"""The training step and the loop around it."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from socodet.cores import available_cores
from socodet.errors import InputError
from socodet.models.backbones import STRIDES
from socodet.models.soco import SoCo
from socodet.models.spread import effective_rank, embedding_std
from socodet.progress import progress_bar
from socodet.training.data import SampleDataset, SampleStream, replaced_images, sample_loader
from socodet.training.distributed import agree, mean_over_all, synchronize_batch_norm
from socodet.training.lars import LARS, parameter_groups
from socodet.training.log import RunLog
from socodet.training.run import RunFolder
from socodet.training.schedules import learning_rate, target_momentum
from socodet.training.settings import ExecutionSettings, TrainingSettings
from socodet.views.batch import Batch
from socodet.world import ALONE, World

CHECKPOINT_SECONDS = 600.0


class Trainer:
    """The networks, their optimiser and the step they are at: all that a checkpoint holds."""

    def __init__(
        self,
        soco: SoCo,
        settings: TrainingSettings,
        images: int,
        execution: ExecutionSettings | None = None,
        world: World | None = None,
    ) -> None:
        execution = execution or ExecutionSettings()
        self.world = world or ALONE
        self.device = choose_device(execution.device, self.world)
        self.soco = soco.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._forward: nn.Module = self.soco
        if self.world.size > 1:
            synchronize_batch_norm(self.soco, self.device)
            self._forward = DistributedDataParallel(
                self.soco,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,  # synchronised batch norm keeps them equal
                find_unused_parameters=True,  # FPN levels that no process has a box on
            )
        self.settings = settings
        self.optimizer = LARS(
            parameter_groups(soco, settings.weight_decay),
            momentum=settings.momentum,
            trust_coefficient=settings.trust_coefficient,
        )
        self.total = settings.steps(settings.epochs, images)
        self.warmup = settings.steps(settings.warmup_epochs, images)
        self.autocast = execution.precision == "bfloat16" or (
            execution.precision == "auto" and self.device.type == "cuda"
        )
        self.finished = 0

    def lr(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return learning_rate(step, total=self.total, warmup=self.warmup, peak=self.settings.lr)

    def momentum(self, step: int) -> float:
        """τ of the target update after that step."""
        return target_momentum(step, total=self.total, base=self.settings.target_momentum)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One optimiser step and target update; the loss, and the target's embeddings of the first view.

        Both stay on the device: nothing here waits for it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(self.finished)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            output = self._forward(batch.views)
        self.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        self.optimizer.step()
        self.soco.update_target(self.momentum(self.finished))
        self.finished += 1
        return output.loss.detach(), output.embeddings

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {
            "step": self.finished,
            "total_steps": self.total,
            "model": self.soco.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state. InputError when it is that of another recipe."""
        if state.keys() != self.state_dict().keys():
            raise InputError("the checkpoint is not one of a pretraining run; pass --overwrite to start anew")
        if state["total_steps"] != self.total:
            raise InputError(
                f"the checkpoint belongs to a run of {state['total_steps']} steps, this one has {self.total}: "
                "the number of readable images changed; pass --overwrite to start anew"
            )
        try:
            self.soco.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"the checkpoint belongs to another recipe ({str(error).splitlines()[-1].strip()}); "
                "pass --overwrite to start anew"
            ) from None
        self.finished = state["step"]


def choose_device(name: str, world: World) -> torch.device:
    """The process's device of that kind; auto is CUDA where there is one. InputError when CUDA is missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: no CUDA device is available here; use --device cpu or leave it out")
    if not available or name == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank % torch.cuda.device_count())


def default_workers(device: torch.device) -> int:
    """Data workers where the user named no number: all of a GPU's share of the cores, half where the CPU trains."""
    cores = available_cores()
    if device.type == "cuda":
        return max(1, cores // torch.cuda.device_count())
    return max(1, cores // 2)


@dataclass
class LoopResult:
    """How far a loop came: `stopped_by` is None when every step was done."""

    stopped_by: str | None = None
    unreadable: set[int] = field(default_factory=set)


def run_training(
    trainer: Trainer,
    dataset: SampleDataset,
    stream: SampleStream,
    run: RunFolder,
    execution: ExecutionSettings,
    *,
    show_progress: bool = True,
) -> LoopResult:
    """Trains from where the trainer stands to the end, or to `max_steps`, or until asked to stop.

    SIGINT and SIGTERM end it after the step under way, with a checkpoint; a second SIGINT ends it at once.
    """
    start = trainer.finished
    stop = trainer.total if execution.max_steps is None else min(trainer.total, start + execution.max_steps)
    log_every = execution.log_every or min(50, max(1, trainer.total // 500))
    workers = execution.workers if execution.workers is not None else default_workers(trainer.device)
    on_gpu = trainer.device.type == "cuda"
    loader = sample_loader(dataset, stream, start=start, stop=stop, workers=workers, pin_memory=on_gpu)
    result = LoopResult()
    window = _LogWindow(trainer)
    saved_at = time.monotonic()
    world = trainer.world
    bar = progress_bar("pretrain", trainer.total, show=show_progress and world.is_first)
    with (
        RunLog(run, start, enabled=world.is_first) as log,
        stop_requests(show_progress) as requests,
        bar as progress,
        ExitStack() as stack,
    ):
        progress.done_earlier(start)
        batches = iter(loader)
        # Deaf to signals, a worker must be told to end, also by an error, or it is waited for at exit for ever.
        stack.callback(getattr(batches, "_shutdown_workers", lambda: None))
        for _ in range(start, stop):
            asked = time.monotonic()
            batch: Batch = next(batches)
            waited = time.monotonic() - asked
            result.unreadable |= replaced_images(batch, stream.batch(trainer.finished))
            every = execution.checkpoint_every
            due = (trainer.finished + 1) % every == 0 if every else time.monotonic() - saved_at > CHECKPOINT_SECONDS
            # What one process decides by its clock or a signal, all do at the same step.
            batch, (due, asked_to_stop) = agree(world, batch, (due, bool(requests)))
            try:
                loss, embeddings = trainer.step(batch.to(trainer.device, non_blocking=True))
            except RuntimeError as error:
                raise _too_large(error, trainer) from error
            window.add(batch, loss, waited)
            done = trainer.finished
            save = due or asked_to_stop or done == stop
            if done % log_every == 0 or save:
                check_finite(trainer, loss, run)  # before a checkpoint could keep what is not
            if done % log_every == 0 or done == stop:
                log.write(window.close(embeddings))
            progress.advance(units=len(batch.indices) * world.size, figures=window.figures)
            if save:
                if world.is_first:
                    run.save_checkpoint(done, trainer.state_dict())
                saved_at = time.monotonic()
            if asked_to_stop:
                result.stopped_by = requests[0] if requests else "another process"
                break
    if result.stopped_by is None and trainer.finished < trainer.total:
        result.stopped_by = "max_steps"
    return result


class _LogWindow:
    """Figures gathered between two log lines."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.figures = ""
        self._reset()

    def _reset(self) -> None:
        self._losses: list[Tensor] = []
        self._boxes_on_level = [0] * len(STRIDES)
        self._images = 0
        self._waited = 0.0
        self._start = time.monotonic()

    def add(self, batch: Batch, loss: Tensor, waited: float) -> None:
        """One finished step."""
        self._losses.append(loss)
        self._images += len(batch.indices)
        self._waited += waited
        for view in batch.views:
            for level, count in enumerate(view.rois.counts):
                self._boxes_on_level[level] += count

    def close(self, embeddings: Tensor) -> dict[str, Any]:
        """The log line; reading the loss here is the only place where the loop waits for the device."""
        trainer, s = self._trainer, self._trainer.settings
        seconds = time.monotonic() - self._start
        boxes = sum(self._boxes_on_level)
        last = trainer.finished - 1
        line = {
            "step": trainer.finished,
            "epoch": trainer.finished / trainer.total * s.epochs,
            "loss": float(mean_over_all(trainer.world, torch.stack(self._losses).mean())),
            "lr": trainer.lr(last),
            "momentum": trainer.momentum(last),
            "embedding_std": embedding_std(embeddings),
            "effective_rank": effective_rank(embeddings),
            "level_share": [count / boxes for count in self._boxes_on_level],
            "images_per_second": self._images * trainer.world.size / seconds,
            "data_wait": self._waited / seconds,
        }
        self.figures = f"loss {line['loss']:.3f}  lr {line['lr']:.3g}"
        self._reset()
        return line


def check_finite(trainer: Trainer, loss: Tensor, run: RunFolder) -> None:
    """InputError when the loss or any weight is NaN or infinite; it names the last checkpoint, which is finite."""
    mean = float(mean_over_all(trainer.world, loss))
    norms = torch.stack(torch._foreach_norm(list(trainer.soco.parameters())))
    if math.isfinite(mean) and bool(norms.isfinite().all()):
        return
    saved = run.checkpoints()
    last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
    raise InputError(
        f"{run.path}: diverged by step {trainer.finished} (loss {mean:.3g}) at learning rate "
        f"{trainer.lr(trainer.finished - 1):.3g}; {last}; lower --base-lr or lengthen --warmup-epochs"
    )


def _too_large(error: RuntimeError, trainer: Trainer) -> Exception:
    """What to raise for an error of a step: one line when memory ran out."""
    if not any(sign in str(error) for sign in ("out of memory", "can't allocate memory")):
        return error
    return InputError(
        f"a batch of {trainer.settings.batch_size} images does not fit into the memory of {trainer.device}; "
        "lower --batch-size"
    )


@contextmanager
def stop_requests(say: bool = False) -> Iterator[list[str]]:
    """Within, SIGINT and SIGTERM add their name to the list instead of ending the process, and `say` so.

    A second SIGINT raises KeyboardInterrupt. Outside the main thread, where no handler can be set, the list
    stays empty.
    """
    requests: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return

    def note(number: int, _frame: object) -> None:
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(signal.Signals(number).name)
        if say:
            os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
