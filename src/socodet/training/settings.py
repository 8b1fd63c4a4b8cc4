"""How a run is executed."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from socodet.errors import SettingError
from socodet.runtime.extensions import Extension, is_extension
from socodet.runtime.settings import NonNegativeInt, PositiveInt, Settings

PATIENCE = "patience"
"""What ended a run that got no better, where a signal's name is otherwise."""


@dataclass(frozen=True)
class DeviceSettings(Settings):
    """How networks run, in training or not; `socodet predict --help-all` explains each field."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a CUDA device if there is one."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward and backward passes; auto is bfloat16 autocast on CUDA and float32 on a CPU. float16
    training is autocast with a dynamic loss scale: it skips steps whose gradients overflow, and waits for the device
    every step."""
    workers: NonNegativeInt | None = None
    """Data-loading processes; by default one per core, fewer if the CPU also computes. Results do not depend on it."""


@dataclass(frozen=True)
class ExecutionSettings(DeviceSettings):
    """How a run is executed; not part of the recipe, and may change on resume.

    `socodet pretrain --help-all` explains each field.
    """

    compile: bool = False
    """Compile backbones, and a detector's box head, with torch.compile; takes a minute or more at the start."""
    deterministic: bool = False
    """Deterministic operations alone, so that the same command gives the same weights, bit for bit, on the same machine
    with the same versions and number of processes; on CUDA slower, as RoIAlign then runs on the CPU. CPUs need no
    flag."""
    on_nan: Literal["stop", "skip"] = "stop"
    """If the loss or the gradients are not finite: stop the run, or skip the step, which then only adds to a count in
    the log. With skip, each step waits for the device."""
    max_skipped: PositiveInt = 25
    """Maximum number of steps skipped in a row, by --on-nan skip or by float16, whose loss scale halves each time; one
    more stops the run."""
    max_steps: PositiveInt | None = None
    """Stop this call after this many steps, with a checkpoint; the schedule remains that of the whole run."""
    checkpoint_every: PositiveInt | None = None
    """Steps between checkpoints; by default a checkpoint every ten minutes."""
    keep_every: PositiveInt | None = None
    """Keep a checkpoint of every so many epochs for good, as RUN/checkpoints/epoch-0010.pt."""
    log_every: PositiveInt | None = None
    """Steps between log lines; by default about 500 lines per run, and at least one every 50 steps. Each checkpoint
    also has a line."""
    sink: tuple[Literal["wandb", "mlflow"] | Extension, ...] = ()
    """Where log lines go besides the run's folder, which has TensorBoard's: Weights & Biases, MLflow, or module:name of
    a class or function of your own that is called with that folder and gives a `LogSink`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.sink:
            if not is_extension(name) and not _is_installed(name):
                raise SettingError(f"sink {name}: needs {name}, which is not installed; pip install 'socodet[{name}]'")


def _is_installed(package: str) -> bool:
    """Whether there is a package of that name, which a folder such as ./wandb is not."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
