"""Data workers."""

import signal
from collections.abc import Generator
from typing import Any

import torch
from torch.utils.data import DataLoader

from socodet.errors import InputError


def start_worker(_worker: int) -> None:
    """A DataLoader's `worker_init_fn`: one thread, and signals ignored."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the loop decides when to stop, and shuts its workers down
        signal.signal(number, signal.SIG_IGN)


def loader_batches(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """Yields the loader's batches. Its workers start with the first batch and end when the generator is closed.

    Workers ignore signals, so they must be shut down here, after an error too; otherwise the process hangs at exit.
    """
    batches = iter(loader)
    try:
        yield from batches
    except InputError as error:  # with a worker's traceback before it
        last = str(error).strip().splitlines()[-1]
        raise InputError(last.partition(": ")[2] if "\n" in str(error) else last) from error
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()
