"""What a process computes on: device, precision, deterministic algorithms, memory, and how many data workers."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from socodet.errors import InputError
from socodet.runtime.counted import counted
from socodet.runtime.limits import available_cores, available_memory
from socodet.runtime.log import LOGGER
from socodet.runtime.notices import log_new
from socodet.runtime.world import World, processes_on_machine, world_from_environment
from socodet.training.workers import AHEAD

GPUS = Path("/proc/driver/nvidia/gpus")
SHAPES = 64
"""How many shapes a process may compile for."""
MEMORY_SHARE = 0.5
"""Share of the available memory that the batches of data workers may take by default."""
HELD = AHEAD + 2
"""Batches in memory per worker at most: those it has made ahead, its own copy of the last, and the samples of it."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of <malloc.h>


def choose_device(name: str, world: World) -> torch.device:
    """The process's device of that type; auto is CUDA if available. Raises InputError when CUDA is missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: no CUDA device is available; use --device cpu or omit the flag")
    if not available or name == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank % torch.cuda.device_count())


def idle_gpu() -> str | None:
    """Why torch does not find this machine's NVIDIA GPU, and how to fix that; None if there is no such problem."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or torch.cuda.is_available() or not (GPUS.is_dir() and any(GPUS.iterdir())):
        return None
    what = "this machine has an NVIDIA GPU, which torch does not find"
    if torch.version.cuda is None:
        return f"{what}: torch {torch.__version__} is built without CUDA; install a build with it (pytorch.org)"
    return f"{what}: update its driver for CUDA {torch.version.cuda}, or start the container with --gpus all"


def autocast_type(name: str, device: torch.device) -> torch.dtype:
    """The type of forward and backward passes by `ExecutionSettings.precision`; float32 means no autocast."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and _gpu_multiplies_bfloat16() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def precision_note(name: str, device: torch.device) -> str | None:
    """A note if the default precision is float32 although this CPU multiplies matrices in bfloat16 too.

    And if it is float32 because the GPU is too old for bfloat16, which torch would emulate many times slower.
    """
    if name != "auto":
        return None
    if device.type == "cuda":
        other = "float16 needs about half the memory and is usually much faster"
        note = f"note: this GPU has no instructions for bfloat16, so it computes in float32; --precision {other}"
        return None if _gpu_multiplies_bfloat16() else note
    if not _multiplies_bfloat16():
        return None
    return "note: this CPU has instructions for bfloat16; --precision bfloat16 may be faster than float32"


@cache
def log_precision_note(name: str, device: torch.device) -> None:
    """Logs `precision_note`, once per process."""
    note = precision_note(name, device)
    if note is not None:
        LOGGER.info(note)


def _gpu_multiplies_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _multiplies_bfloat16() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def default_workers(device: torch.device) -> int:
    """Data workers by default: a GPU's share of the cores, or half of the cores if the CPU trains.

    Processes that torchrun started on this machine share them.
    """
    cores, processes = available_cores(), world_from_environment(rendezvous=False).local_size
    if device.type == "cuda":
        return max(1, cores // (torch.cuda.device_count() if processes == 1 else processes))
    return max(1, cores // (2 * processes))


def workers_for(requested: int | None, device: torch.device, batch_bytes: float, *, show_note: bool) -> int:
    """The data workers asked for; by default `default_workers`, or as many as fit into `MEMORY_SHARE` of the memory.

    batch_bytes: size of a process's batch. The share is of the memory that is available now, in containers too, and
    the processes of this machine divide it; a note says if it leaves fewer workers.
    """
    if requested is not None:
        return requested
    most, memory = default_workers(device), available_memory() / processes_on_machine()
    fitting = max(1, math.floor(min(most, MEMORY_SHARE * memory / (HELD * max(batch_bytes, 1)))))
    if fitting < most and show_note:
        log_new(  # without the amount, which differs from run to run of a study
            f"note: {counted(fitting, 'data worker')} instead of {most}: each holds up to {HELD} batches of "
            f"{batch_bytes / 1e6:,.0f} MB, and all may take {MEMORY_SHARE:.0%} of the available memory; --workers sets "
            "another number"
        )
    return fitting


def compile_every_shape() -> None:
    """Lets torch.compile compile for `SHAPES` shapes, of images, batches and networks, in one process.

    By default it stops at the ninth shape, over all runs together, so later runs of a study would be uncompiled. Code
    compiled for one run is reused by later runs of the same shapes.
    """
    from torch._dynamo import config  # takes seconds

    config.recompile_limit = max(config.recompile_limit, SHAPES)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 4 * SHAPES)


def set_cublas_workspace(enabled: bool) -> None:
    """Makes cuBLAS deterministic, if that is asked for; it reads the setting when it is first used in a process."""
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic_algorithms(enabled: bool) -> Iterator[None]:
    """In this context, if `enabled`, torch uses only deterministic algorithms, and RoIAlign is ours on the CPU.

    `set_cublas_workspace` must have been called before cuBLAS was used. InputError for an operation that has no
    deterministic algorithm on the device.
    """
    if not enabled:
        yield
        return
    set_cublas_workspace(enabled)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error).lower():
            raise
        what = str(error).partition(",")[0].strip()
        raise InputError(f"--deterministic: {what}; leave it out, or use --device cpu") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next step instead of returning it; returns whether that is possible.

    Each step allocates the same feature maps. Memory returned to the system comes back as pages that must be mapped and
    zeroed, several percent of a step's time. The process then keeps its peak memory until it ends, and so do data
    workers forked from it.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # another C library
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
