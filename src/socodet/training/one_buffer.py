"""Batches from one process to another: all their tensors in one piece of anonymous memory, with one file descriptor.

torch itself uses a file in /dev/shm and a descriptor for each tensor. In a container /dev/shm is small, and a batch
that does not fit there is lost without an error.
"""

import errno
import io
import mmap
import os
import pickle
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64


def send(connection: Connection, content: Any) -> None:
    """Sends anything that can be pickled; OSError when there is no memory or descriptor for its tensors."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=5, buffer_callback=buffers.append).dump(content)
    pieces = [buffer.raw() for buffer in buffers]
    if not any(piece.nbytes for piece in pieces):
        connection.send((pickled.getvalue(), [0] * len(pieces), 0))
        return
    descriptor = _anonymous_file()
    try:
        size = 0
        with io.FileIO(descriptor, "w", closefd=False) as file:
            for piece in pieces:
                file.seek(size)
                left = piece
                while left:  # a write takes at most 2 GiB
                    left = left[file.write(left) :]
                size += -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
            file.truncate(size)
        connection.send((pickled.getvalue(), [piece.nbytes for piece in pieces], size))
        try:
            reduction.send_handle(connection, descriptor, None)
        except RuntimeError as error:  # on macOS, where the other process acknowledges it
            raise BrokenPipeError(errno.EPIPE, str(error)) from None
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> Any:
    """Receives what `send` sent. Its tensors share one piece of memory, which lives as long as any of them.

    EOFError or OSError when the other process has ended.
    """
    pickled, sizes, size = connection.recv()
    if not size:
        return pickle.loads(pickled, buffers=[bytearray() for _ in sizes])
    descriptor = reduction.recv_handle(connection)
    try:
        memory = memoryview(mmap.mmap(descriptor, size))
    finally:
        os.close(descriptor)
    buffers, start = [], 0
    for length in sizes:
        buffers.append(memory[start : start + length])
        start += -(-length // ALIGNMENT) * ALIGNMENT
    return pickle.loads(pickled, buffers=buffers)


def _anonymous_file() -> int:
    """A descriptor of unnamed memory, which takes no space in /dev/shm; of an unnamed file if that is unavailable."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batch")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Pickler(pickle.Pickler):
    """Pickles CPU tensors as NumPy arrays, which protocol 5 keeps out of the pickled bytes."""

    def reducer_override(self, value: Any) -> tuple[Callable[..., Any], tuple[Any, ...]] | Any:
        """See `pickle.Pickler.reducer_override`."""
        if type(value) is Tensor:
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented
