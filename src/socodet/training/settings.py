"""How a run is carried out."""

from dataclasses import dataclass
from typing import Literal

from socodet.runtime.settings import NonNegativeInt, PositiveInt, Settings


@dataclass(frozen=True)
class ExecutionSettings(Settings):
    """How a run is carried out; nothing here is part of the recipe, all of it may change at a resume."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a CUDA device when there is one."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the forward and backward passes; auto is bfloat16 autocast on CUDA and float32 on a CPU. float16 is autocast
    with a loss scale that adapts itself; it leaves out steps whose gradients overflow, and waits for the device at
    each step to know."""
    compile: bool = False
    """Compile backbones, and a detector's box head, with torch.compile: a minute or more at the start."""
    on_nan: Literal["stop", "skip"] = "stop"
    """At a loss or gradients that are not finite: stop the run, or skip such steps, which leave no trace but a count in
    the log. To skip, each step waits for the device."""
    max_skipped: PositiveInt = 25
    """Steps in a row, within one call, that may be skipped, by --on-nan skip or by float16, whose loss scale halves at
    each; one more stops the run."""
    workers: NonNegativeInt | None = None
    """Data-loading processes; by default one a core, fewer where the CPU also computes. No sample depends on it."""
    max_steps: PositiveInt | None = None
    """Stop after so many steps of this call, with a checkpoint; the schedule stays that of the whole run."""
    checkpoint_every: PositiveInt | None = None
    """Steps between checkpoints; by default one every ten minutes."""
    log_every: PositiveInt | None = None
    """Steps between log lines; by default about 500 lines a run, at least one every 50 steps. A checkpoint has a line
    too."""
