"""Pretraining with bfloat16 autocast on the CPU, against the same steps in float32."""

import dataclasses

import pytest
import torch

import socodet
from socodet.images.photographs import photographs
from socodet.models.settings import ModelSettings
from socodet.models.soco import build_soco
from socodet.pretraining.recipes import recipe
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

SMALL = ModelSettings("fpn", "resnet18", 16, 1, 16, 16, 7, 32, 16)


def test_bfloat16_learns_the_same_as_float32(tmp_path):
    tiny = recipe("tiny")
    training = dataclasses.replace(tiny.training, batch_size=4, epochs=1.2, warmup_epochs=0, base_lr=2)
    views = tuple(
        dataclasses.replace(view, size=side) for view, side in zip(tiny.sample.views, (64, 64, 32), strict=True)
    )
    sample = dataclasses.replace(tiny.sample, views=views)
    chosen = dataclasses.replace(tiny, sample=sample, model=SMALL, training=training)
    runs = {}
    for precision in ("float32", "bfloat16"):
        run = RunFolder(tmp_path / precision)
        table = None if not runs else tmp_path / "float32" / "proposals.parquet"
        execution = ExecutionSettings(device="cpu", precision=precision, workers=0, log_every=1)
        socodet.pretrain(photographs(), chosen, run.path, proposals=table, execution=execution, show_progress=False)
        runs[precision] = list(run.log_lines()), run.load_checkpoint()
    (lines, state), (half_lines, half_state) = runs.values()
    assert len(lines) == len(half_lines) == 3
    # bfloat16 keeps 8 bits: after some 25 layers a vector has an error of 1 or 2%, and the loss is -2 times the sum of
    # four cosines.
    for line, half in zip(lines, half_lines, strict=True):
        assert half["loss"] == pytest.approx(line["loss"], abs=0.15)
        assert "skipped" not in half
    assert half_lines[0]["loss"] != lines[0]["loss"]  # the precision did differ
    start = build_soco(SMALL, training.seed).state_dict()
    for name, value in half_state["model"].items():
        assert value.dtype == state["model"][name].dtype, name
        assert value.isfinite().all(), name
    assert {v.dtype for v in half_state["model"].values()} == {torch.float32, torch.int64}  # int64: batch counters
    moved, half_moved = (
        torch.cat([(s["model"][n] - v).flatten() for n, v in start.items() if n.startswith("online.") and v.ndim > 1])
        for s in (state, half_state)
    )
    assert torch.cosine_similarity(moved, half_moved, dim=0) > 0.5  # over a million weights; 0.00 for random ones
    assert half_moved.norm() / moved.norm() == pytest.approx(1, abs=0.1)
