"""How a run is executed."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from socodet.errors import SettingError
from socodet.runtime.extensions import Extension, is_extension
from socodet.runtime.settings import NonNegativeInt, PositiveInt, Settings

RESUME_OR_OVERWRITE = "--resume keeps the run in the folder, and --overwrite deletes it; give one of them"
PATIENCE = "patience"
"""`stopped_by` of a run that ended because it got no better, in place of a signal's name."""


@dataclass(frozen=True)
class DeviceSettings(Settings):
    """How networks run, in training or not; `socodet predict --help-all` explains each field."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the networks run; auto takes a CUDA device if there is one."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the forward and backward passes; auto is bfloat16 autocast on GPUs with instructions for it
    (NVIDIA's since Ampere), and float32 on older ones and on a CPU. float16 training is autocast with a dynamic loss
    scale: it skips steps whose gradients overflow, and waits for the device every step."""
    workers: NonNegativeInt | None = None
    """Number of data-loading processes; by default one per core, or fewer if the network also runs on the CPU, or if
    their batches, in training and scoring, would fill more than half of the available memory. It does not affect
    results."""


@dataclass(frozen=True)
class ExecutionSettings(DeviceSettings):
    """How a run is executed; not part of the recipe, and may change on resume.

    `socodet pretrain --help-all` explains each field.
    """

    compile: bool = False
    """Compile the backbone and a detector's box head with torch.compile; this takes a minute or more at the start."""
    deterministic: bool = False
    """Use only deterministic operations, so that the same command gives the same weights, bit for bit, on the same
    machine with the same versions and number of processes. This is slower on CUDA, where RoIAlign then runs on the CPU.
    Runs on a CPU are deterministic without it."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do if the loss or the gradients are not finite: stop the run, or skip the step and count it in the log.
    With skip, each step waits for the device."""
    max_skipped: PositiveInt = 25
    """How many steps in a row may be skipped, by --on-nan skip or by float16 (whose loss scale halves each time); one
    more stops the run."""
    max_steps: PositiveInt | None = None
    """Stop this call after this many steps, with a checkpoint. The schedule remains that of the whole run."""
    checkpoint_every: PositiveInt | None = None
    """Steps between checkpoints; by default one every ten minutes."""
    keep_every: PositiveInt | None = None
    """Keep a checkpoint every this many epochs for good, as RUN/checkpoints/epoch-0010.pt."""
    log_every: PositiveInt | None = None
    """Steps between log lines; by default about 500 lines per run, and at least one every 50 steps. Each checkpoint
    also has a line."""
    sink: tuple[Literal["wandb", "mlflow"] | Extension, ...] = ()
    """Where else to log, besides the run's folder and its TensorBoard files: Weights & Biases, MLflow, or module:name
    for your own class or function, which is called with that folder and returns a `LogSink`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.sink:
            if not is_extension(name) and not _is_installed(name):
                raise SettingError(f"sink {name}: needs {name}, which is not installed; pip install 'socodet[{name}]'")


def _is_installed(package: str) -> bool:
    """Whether a package of that name is installed; a folder such as ./wandb does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
