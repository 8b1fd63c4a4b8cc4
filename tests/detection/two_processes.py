"""Starts processes that train together, as torchrun does."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from narrow_models import NARROWED


def in_two_processes(function: Callable[..., None], *args: Any) -> None:
    """Calls function(rank, *args) in two processes, with networks as narrow as under the fixture `narrow_networks`."""
    in_processes(2, function, *args)


def in_processes(count: int, function: Callable[..., None], *args: Any) -> None:
    """Likewise in `count` processes."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    # Processes are forked from one that has imported these already, since importing takes longer than most tests.
    multiprocessing.set_forkserver_preload(
        ["socodet.pretraining.pretrain", "socodet.finetuning.finetune", "torch._dynamo"]
    )
    mp.start_processes(_start, args=(count, port, function, args), nprocs=count, start_method="forkserver")


def _start(rank: int, count: int, port: str, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    for name, value in NARROWED.items():
        pytest.MonkeyPatch().setattr(name, value)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    function(rank, *args)
