"""Ctrl-C during `socodet pretrain`, as a shell sends it: to the process and its data workers."""

import os
import re
import signal

import torch

import socodet
from socodet.cli import main
from socodet.images.photographs import photographs
from socodet.images.source import open_images
from socodet.pretraining.preparation import sample_images
from socodet.proposals.settings import ProposalSettings
from socodet.training.run_folder import RunFolder

BRIEF = ["--recipe", "tiny", "--batch-size", "3", "--epochs", "12", "--warmup-epochs", "1", "--fpn-channels", "16"]
BRIEF += ["--head-channels", "16", "--representation-size", "16", "--hidden-size", "32", "--embedding-size", "16"]
BRIEF += ["--views.0.size", "48", "--views.1.size", "48", "--views.2.size", "32", "--limit", "6"]
BRIEF += ["--backbone", "timm/test_resnet", "--device", "cpu", "--workers", "1", "--log-every", "4"]
STEPS = 24


def arguments(run, table):
    return ["pretrain", str(photographs()), "--output", str(run.path), "--proposals", str(table), *BRIEF]


def test_ctrl_c_ends_with_130_and_a_checkpoint_and_the_same_command_resumes(starter, tmp_path, capsys):
    table = tmp_path / "proposals.parquet"
    images = sample_images(open_images(photographs()), 6, 0)
    socodet.propose(images, table, settings=ProposalSettings(method="grid"), workers=1, show_progress=False)
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    main(arguments(whole, table))

    process = starter.start(arguments(stopped, table), {})
    while not list(stopped.log_lines()):
        assert starter.status(process, 0.01) is None
    os.killpg(process.process, signal.SIGINT)
    ended = starter.end(process)
    said = ended.said
    assert ended.status == 130
    done = re.search(rf"stopped by SIGINT after (\d+) of {STEPS} steps; the same command resumes from here", said)
    assert done
    assert 4 <= int(done[1]) < STEPS
    assert stopped.checkpoints()[-1].stem == f"step-{int(done[1]):08d}"
    assert "stopping after this step" in said
    assert "Traceback" not in said

    main(arguments(stopped, table))
    assert f"resuming {stopped.path} at step {done[1]} of {STEPS}" in capsys.readouterr().err
    one, other = whole.load_checkpoint(), stopped.load_checkpoint()
    assert one["step"] == other["step"] == STEPS
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
    for index, entry in one["optimizer"]["state"].items():
        assert torch.equal(entry["momentum"], other["optimizer"]["state"][index]["momentum"])
    # Each step is in one log line: the loss summed over all steps agrees between both logs, up to rounding.
    sums = []
    for run in (whole, stopped):
        lines = list(run.log_lines())
        spans = zip([0, *(line["step"] for line in lines)], lines, strict=False)
        sums.append(sum((line["step"] - before) * line["loss"] for before, line in spans))
    assert abs(sums[0] - sums[1]) < 1e-5 * abs(sums[0])
