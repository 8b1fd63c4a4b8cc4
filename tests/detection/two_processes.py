"""Two processes that train together, as torchrun starts them."""

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
    """Calls function(rank, *args) in two processes; their networks are as with the fixture `narrow_networks`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    # They are forked from a process that has imported this, which takes longer than most of what they do.
    multiprocessing.set_forkserver_preload(
        ["socodet.pretraining.pretrain", "socodet.finetuning.finetune", "torch._dynamo"]
    )
    mp.start_processes(_start, args=(port, function, args), nprocs=2, start_method="forkserver")


def _start(rank: int, port: str, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    for name, value in NARROWED.items():
        pytest.MonkeyPatch().setattr(name, value)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    function(rank, *args)
