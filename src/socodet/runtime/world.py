"""Which of several processes this is. torchrun or SLURM's srun starts them; without either there is one."""

import math
import os
from dataclasses import dataclass
from functools import cache

from socodet.errors import InputError
from socodet.runtime.log import LOGGER


@dataclass(frozen=True)
class World:
    """Which of all processes this one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Processes that torchrun started on this machine; 1 under SLURM, which gives each task cores of its own."""

    @property
    def is_first(self) -> bool:
        """The process that writes files and speaks to the user."""
        return self.rank == 0


ALONE = World()


def world_from_environment(rendezvous: bool = True) -> World:
    """Where torchrun (RANK, WORLD_SIZE, LOCAL_RANK) or srun (SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID) put us.

    Only a process that a launcher started is one of several. A SLURM allocation sets SLURM_NTASKS too, and anything may
    set RANK: without an srun step, or a meeting place as torchrun sets it, the process works alone, and says so once.

    `rendezvous`: whether the processes will exchange tensors. InputError under SLURM if they will and MASTER_ADDR and
    MASTER_PORT, where they meet, are not set; and for a variable with a value that its launcher does not set.
    """
    meets = "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        size = _number("WORLD_SIZE", 1)
        if size > 1 and not meets:
            _note_single_process(
                "RANK and WORLD_SIZE are set, MASTER_ADDR and MASTER_PORT are not, so torchrun did not set them"
            )
            return ALONE
        local_size = _number("LOCAL_WORLD_SIZE", 1, default=1)
        return _check_rendezvous(
            World(_number("RANK", 0, below=size), size, _number("LOCAL_RANK", 0, default=0), local_size), rendezvous
        )
    if "SLURM_PROCID" not in os.environ:
        return ALONE
    if "SLURM_STEP_ID" not in os.environ and "SLURM_STEPID" not in os.environ:
        if os.environ.get("SLURM_NTASKS", "1") != "1":
            tasks = os.environ["SLURM_NTASKS"]
            _note_single_process(
                f"this SLURM job has {tasks} tasks, but srun did not start this process; `srun socodet …` does"
            )
        return ALONE
    size = _number("SLURM_STEP_NUM_TASKS", 1, default=1)
    if size == 1:
        return ALONE
    if rendezvous and not meets:
        raise InputError(
            "SLURM: MASTER_ADDR and MASTER_PORT are not set; before srun, export MASTER_PORT=29500 and "
            "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)"
        )
    world = World(_number("SLURM_PROCID", 0, below=size), size, _number("SLURM_LOCALID", 0, default=0))
    return _check_rendezvous(world, rendezvous)


def processes_on_machine() -> int:
    """Processes of the run on this machine, which share its memory; under SLURM, the mean over its machines."""
    world = world_from_environment(rendezvous=False)
    if "RANK" in os.environ:
        return world.local_size
    return math.ceil(world.size / _number("SLURM_STEP_NUM_NODES", 1, default=1))


def _check_rendezvous(world: World, rendezvous: bool) -> World:
    if rendezvous and world.size > 1:
        _number("MASTER_PORT", 0, below=65536)
    return world


def _number(name: str, least: int, *, below: int | None = None, default: int | None = None) -> int:
    """An integer from the environment; InputError if it is not one, or outside its range."""
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        value = int(text or "")
    except ValueError:
        value = least - 1
    if value < least or (below is not None and value >= below):
        limits = f"{least} or more" if below is None else f"{least} to {below - 1}"
        raise InputError(
            f"environment variable {name} must be a whole number, {limits}, not {text!r}; start the processes by "
            f"torchrun or srun, which set it, or unset it"
        )
    return value


@cache
def _note_single_process(why: str) -> None:
    LOGGER.warning(f"note: working alone: {why}")
