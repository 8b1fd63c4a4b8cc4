"""The table's figures, for hand-written logs."""

import json

import pytest

from socodet.studies.ablation.budget import Budget, family_rows
from socodet.studies.ablation.table import log_figures, row_settings
from socodet.training.run_folder import RunFolder


def loss_of(step):
    return -4 + 1000 / (step + 300) + (step * 7919 % 13) / 20


def write_log(run, ends, skipped=()):
    """Writes a log line at each of these steps; `skipped` steps have no loss."""
    lines = []
    for before, end in zip([0, *ends], ends, strict=False):
        losses = [loss_of(step) for step in range(before + 1, end + 1) if step not in skipped]
        line = {"step": end, "embedding_std": 0.1, "effective_rank": 3.0, "images_per_second": 2.0}
        if losses:
            line["loss"] = sum(losses) / len(losses)
        lines.append({**line, "skipped": end - before - len(losses)})
    run.path.mkdir()
    run.log.write_text("".join(json.dumps(line) + "\n" for line in lines))


def figures_of(run, images):
    row = family_rows("table5d", Budget(epochs=10, batch_size=8))[0]
    settings = row_settings(row, images, "single")
    assert settings["steps"] == "2000"
    return log_figures(run, int(settings["batch"]), int(settings["steps"]))


def test_the_loss_is_the_mean_over_the_last_tenth_even_with_interruptions(tmp_path):
    """A run of 2000 steps has a line every 4 steps, and one at every checkpoint."""
    whole, stopped = (RunFolder(tmp_path / name) for name in ("whole", "stopped"))
    usual = list(range(4, 2001, 4))
    write_log(whole, usual)
    write_log(stopped, sorted({*usual, 33, 1799, 1801, 1955, 1997, 1998}))
    by_hand = sum(loss_of(step) for step in range(1801, 2001)) / 200
    one, other = (figures_of(run, images=1600) for run in (whole, stopped))
    assert one["loss"] == pytest.approx(by_hand, rel=1e-12)
    assert other["loss"] == pytest.approx(by_hand, rel=1e-12)
    assert one["seconds"] == pytest.approx(2000 * 8 / 2.0)
    assert {**one, "loss": 0} == pytest.approx({**other, "loss": 0})


def test_skipped_steps_do_not_count_and_an_unfinished_run_uses_its_own_last_tenth(tmp_path):
    run, skipped = RunFolder(tmp_path / "run"), {905, 906, 907, 908, 922}
    write_log(run, list(range(4, 1001, 4)), skipped)
    learned = [loss_of(step) for step in range(901, 1001) if step not in skipped]
    assert figures_of(run, images=1600)["loss"] == pytest.approx(sum(learned) / 95, rel=1e-12)
