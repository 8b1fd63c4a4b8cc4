"""The device and precision of a process, and the number of its data workers."""

from functools import cache

import torch

from socodet.errors import InputError
from socodet.runtime.cores import available_cores
from socodet.runtime.log import LOGGER
from socodet.runtime.world import World


def choose_device(name: str, world: World) -> torch.device:
    """The process's device of that type; auto is CUDA if available. Raises InputError when CUDA is missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("--device cuda: no CUDA device is available; use --device cpu or omit the flag")
    if not available or name == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", world.local_rank % torch.cuda.device_count())


def autocast_type(name: str, device: torch.device) -> torch.dtype:
    """The type of forward and backward passes by `ExecutionSettings.precision`; float32 means no autocast."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def precision_note(name: str, device: torch.device) -> str | None:
    """What to say of the default precision: float32 on a CPU that multiplies matrices faster in bfloat16."""
    if name != "auto" or device.type != "cpu" or not _multiplies_bfloat16():
        return None
    return "note: this CPU has instructions for bfloat16; --precision bfloat16 is usually much faster than float32"


@cache
def say_precision_note(name: str, device: torch.device) -> None:
    """Says `precision_note`, once in a process."""
    note = precision_note(name, device)
    if note is not None:
        LOGGER.info(note)


def _multiplies_bfloat16() -> bool:
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def default_workers(device: torch.device) -> int:
    """Data workers by default: a GPU's share of the cores, or half of the cores if the CPU trains."""
    cores = available_cores()
    if device.type == "cuda":
        return max(1, cores // torch.cuda.device_count())
    return max(1, cores // 2)
