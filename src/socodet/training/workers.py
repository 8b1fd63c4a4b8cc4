"""Data workers."""

import signal

import torch


def start_worker(_worker: int) -> None:
    """A DataLoader's `worker_init_fn`: one thread, and signals ignored."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the loop decides when to stop, and shuts its workers down
        signal.signal(number, signal.SIG_IGN)
