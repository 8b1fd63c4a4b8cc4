"""Data workers of every kind of training."""

import signal

import torch


def start_worker(_worker: int) -> None:
    """What a data worker does first: one thread, and deaf to signals (a DataLoader's `worker_init_fn`)."""
    torch.set_num_threads(1)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the loop decides when to stop, and ends its workers itself
        signal.signal(number, signal.SIG_IGN)
