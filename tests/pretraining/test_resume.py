"""A run that is killed at any moment goes on by the same command as if nothing had been."""

import random
import signal
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
from socodet.training.run_folder import RunFolder

PROGRAM = """
import dataclasses, sys, socodet
from socodet.pretraining.recipes import recipe
from socodet.training.settings import ExecutionSettings
tiny = recipe("tiny")
training = dataclasses.replace(tiny.training, batch_size=3, epochs=5.3, warmup_epochs=1)
def go(images, run, table, **flags):
    execution = ExecutionSettings(device="cpu", workers=1, checkpoint_every=1, log_every=1)
    chosen = dataclasses.replace(tiny, training=training)
    return socodet.pretrain(images, chosen, run, proposals=table, execution=execution, show_progress=False, **flags)
if __name__ == "__main__":
    go(*sys.argv[1:])
"""


@pytest.fixture
def images(tmp_path) -> Path:
    """Four of the photographs: 7 steps of 3."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted(photographs().glob("*.jpg"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_killed_at_any_moment_it_ends_as_if_never_stopped(images, tmp_path, monkeypatch):
    table = tmp_path / "proposals.parquet"
    socodet.propose(images, table, show_progress=False)
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
    delay = random.uniform(0, 0.5)
    print(f"killed after {delay} s")
    time.sleep(delay)  # in a step, or while a checkpoint or a log line is written
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True)

    one, other = whole.load_checkpoint(), killed.load_checkpoint()
    assert one["step"] == other["step"] == 7
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    for index, entry in one["optimizer"]["state"].items():
        assert torch.equal(entry["momentum"], other["optimizer"]["state"][index]["momentum"])
    expected = [(line["step"], line["loss"]) for line in whole.log_lines()]
    assert [(line["step"], line["loss"]) for line in killed.log_lines()] == expected
    assert [step for step, _ in expected] == list(range(1, 8))

    reads = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: reads.append(args) or load(*args, **kwargs))
    assert go(images, killed.path, table, resume=True).finished
    assert len(reads) == 1  # a checkpoint may be large
    with pytest.raises(InputError, match="holds a finished run"):
        go(images, killed.path, table)
