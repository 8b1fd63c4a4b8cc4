"""A signal to one of several processes during an evaluation: the others stop at their next image."""

import pytest
import torch
import torch.distributed as dist

from socodet.detection import inference
from socodet.errors import InputError
from socodet.runtime.world import ALONE, World
from socodet.training import distributed
from socodet.training.distributed import StopFlag
from socodet.training.learner import StoppedEarlyError


@pytest.fixture
def store(monkeypatch):
    """The store that processes share, here within one process."""
    store = dist.HashStore()
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(StopFlag, "_made", iter([1, 1, 2, 2, 3]))  # each pair belongs to two processes
    return store


def test_flag_is_shared_between_processes_for_one_evaluation_only(store):
    first, second = StopFlag(World(0, 2)), StopFlag(World(1, 2))
    assert not first.is_set(False)
    assert second.is_set(True)
    assert first.is_set(False)
    assert not StopFlag(World(0, 2)).is_set(False)
    assert StopFlag(ALONE).is_set(True)
    assert not StopFlag(ALONE).is_set(False)


def test_evaluation_stops_at_the_next_image(store, monkeypatch):
    other, seen = StopFlag(World(1, 2)), []

    class Images:
        images = ()

        def __len__(self):
            return 20

        def pixels(self, index):
            return index

    def each(*_, **__):
        for index in range(0, 20, 2):
            seen.append(index)
            if index == 4:
                other.is_set(True)
            yield index, "unreadable"

    monkeypatch.setattr(inference, "detect_each", each)
    monkeypatch.setattr(inference, "agree_flags", lambda world, flags: (True,))
    images = Images()
    images.images = [type("Image", (), {"file": "x"})] * 20
    with pytest.raises(StoppedEarlyError):
        inference.detect(torch.nn.Identity(), images, world=World(0, 2))
    assert seen == [0, 2, 4]


def test_lost_process_is_one_line(monkeypatch):
    class Gone:
        def check(self, keys):
            raise dist.DistNetworkError("Connection reset by peer")

    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", Gone)
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    with pytest.raises(InputError, match="another process of this run has ended"):
        StopFlag(World(0, 2)).is_set(False)
