"""A run that is killed at any moment resumes with the same command as if nothing had happened."""

import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import socodet
from socodet.errors import InputError
from socodet.images.photographs import photographs
from socodet.pretraining.pretrain import PretrainResult
from socodet.proposals.settings import ProposalSettings
from socodet.training.run_folder import RunFolder

STEPS = 12
PROGRAM = """
import dataclasses, sys, socodet
from socodet.pretraining.recipes import recipe
from socodet.training.settings import ExecutionSettings
tiny = recipe("tiny")
training = dataclasses.replace(tiny.training, batch_size=3, epochs=9, warmup_epochs=1)
narrow = {"fpn_channels": 16, "head_channels": 16, "representation_size": 24, "hidden_size": 32, "embedding_size": 16}
model = dataclasses.replace(tiny.model, backbone="timm/test_resnet", **narrow)
def go(images, run, table, **flags):
    execution = ExecutionSettings(device="cpu", workers=1, checkpoint_every=1, log_every=1)
    chosen = dataclasses.replace(tiny, model=model, training=training)
    return socodet.pretrain(images, chosen, run, proposals=table, execution=execution, show_progress=False, **flags)
if __name__ == "__main__":
    go(*sys.argv[1:])
"""


@pytest.fixture
def images(tmp_path) -> Path:
    """Four of the photographs: 12 steps of 3."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted(photographs().glob("*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_killed_at_any_moment_it_ends_as_if_never_stopped(images, tmp_path, monkeypatch):
    table = tmp_path / "proposals.parquet"
    socodet.propose(images, table, settings=ProposalSettings(method="grid"), workers=1, show_progress=False)
    program: dict[str, Any] = {"__name__": "here"}
    exec(PROGRAM, program)
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    go: Callable[..., PretrainResult] = program["go"]
    go(images, whole.path, table)

    command = [sys.executable, "-c", PROGRAM, str(images), str(killed.path), str(table)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not killed.checkpoints():
        assert process.poll() is None
        time.sleep(0.01)
    delay = random.uniform(0, 2) * 3 / statistics.median(line["images_per_second"] for line in whole.log_lines())
    print(f"killed after {delay} s, up to two steps")
    time.sleep(delay)  # in a step, or while a checkpoint or a log line is written
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    go(images, killed.path, table)

    one, other = whole.load_checkpoint(), killed.load_checkpoint()
    assert one["step"] == other["step"] == STEPS
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    for index, entry in one["optimizer"]["state"].items():
        assert torch.equal(entry["momentum"], other["optimizer"]["state"][index]["momentum"])
    expected = [(line["step"], line["loss"]) for line in whole.log_lines()]
    assert [(line["step"], line["loss"]) for line in killed.log_lines()] == expected
    assert [step for step, _ in expected] == list(range(1, STEPS + 1))

    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: reads.append(args) or load(*args, **kwargs))
    assert go(images, killed.path, table, resume=True).finished
    assert len(reads) == 1  # a checkpoint may be large
    with pytest.raises(InputError, match="holds a finished run"):
        go(images, killed.path, table)
