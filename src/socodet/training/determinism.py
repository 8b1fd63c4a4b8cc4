"""`--deterministic`: the same bits from every run on the same machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from socodet.errors import InputError


def set_cublas_workspace(asked: bool) -> None:
    """Makes cuBLAS deterministic, if that is asked for; it reads the setting when it is first used in a process."""
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic_algorithms(asked: bool) -> Iterator[None]:
    """Within it, if that is asked for, torch takes deterministic algorithms alone, and RoIAlign is ours on the CPU.

    `set_cublas_workspace` must have been called before cuBLAS was used. InputError for an operation that has no
    deterministic algorithm on the device.
    """
    if not asked:
        yield
        return
    set_cublas_workspace(asked)
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
        raise InputError(f"--deterministic: {what}; leave it out, or pass --device cpu") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
