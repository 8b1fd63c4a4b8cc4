"""Many steps and many resumes: memory and open files stay flat, and the weights equal those of an uninterrupted run.

`make soak` runs 10,000 steps and 1,000 resumes; otherwise 30 and 8.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from small_pretraining import go, make_images

from socodet.training.run_folder import RunFolder

SOAK = int(os.environ.get("SOCODET_FAULTS", "3")) >= 20
STEPS, RESUMES = (10_000, 1_000) if SOAK else (30, 8)
GROWTH = 40
"""MiB that a process may grow by after the first tenth of its steps."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    make_images(folder)
    return folder


def memory():
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files():
    return len(os.listdir("/proc/self/fd"))


def record(what, **figures):
    path = os.environ.get("SOCODET_FAULTS_RECORD")
    if path:
        with open(path, "a") as file:
            file.write(json.dumps({"long run": what} | figures) + "\n")


def test_memory_open_files_and_the_log_stay_flat(files):
    tenth = STEPS // 10
    go(files, "flat", STEPS, max_steps=tenth, checkpoint_every=tenth)
    used, opened = memory(), open_files()
    assert go(files, "flat", STEPS, checkpoint_every=tenth).finished
    assert memory() - used < GROWTH
    assert open_files() <= opened
    run = RunFolder(files / "flat")
    log = sum(1 for _ in run.log_lines())
    events = sum(path.stat().st_size for path in run.tensorboard.rglob("*") if path.is_file())
    assert log <= 700
    assert events < 2_000_000
    record("steps", steps=STEPS, MiB=round(memory() - used, 1), lines=log, tensorboard_bytes=events)


def test_many_resumes_give_the_weights_of_an_uninterrupted_run(files):
    go(files, "whole", RESUMES)
    used = opened = 0.0
    for step in range(1, RESUMES + 1):
        assert go(files, "parts", RESUMES, max_steps=1).steps == step
        if step == max(2, RESUMES // 10):
            used, opened = memory(), open_files()
    assert memory() - used < GROWTH
    assert open_files() <= opened
    whole, parts = (RunFolder(files / name).load_checkpoint() for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == RESUMES
    for name, value in whole["model"].items():
        assert torch.equal(value, parts["model"][name]), name
    record("resumes", resumes=RESUMES, MiB=round(memory() - used, 1))
