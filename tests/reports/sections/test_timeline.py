"""The timeline of a run's calls and the pauses between them, from TensorBoard's event files."""

import json
from types import SimpleNamespace

import pytest

from socodet.reports.runs import RunRecord
from socodet.reports.sections.timeline import sessions, timeline_figure, timeline_sections
from socodet.training import log
from socodet.training.run_folder import RunFolder

CALLS = ((1000.0, {10: 1010.0, 20: 1020.0}), (1100.0, {15: 1110.0, 30: 1130.0}))
"""When each call began, and when it logged which step; the second resumed from step 10."""


@pytest.fixture
def record(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    now = SimpleNamespace(at=0.0)
    monkeypatch.setattr(log, "time", SimpleNamespace(time=lambda: now.at))
    for began, logged in CALLS:
        now.at = began
        sink = log.TensorBoardSink(run, 0)
        for step, at in logged.items():
            now.at = at
            sink.write(step, {"loss": 1.0 / step, "effective_rank": float(step)})
        sink.close()
    (run.tensorboard / f"{log.EVENTS}.999.000000.host.1").write_bytes(b"\xff" * 100)
    (run.tensorboard / f"{log.EVENTS}.strange").write_bytes(b"")
    lines = [{"step": step, "loss": 1.0 / step, "effective_rank": float(step)} for step in (10, 15, 30)]
    return RunRecord("run", tmp_path, {}, lines)


def test_calls_are_read_and_damaged_event_files_skipped(record):
    assert [(call.began, dict(call.logged), call.ended) for call in sessions(record.folder)] == [
        (1000.0, CALLS[0][1], 1020.0),
        (1100.0, CALLS[1][1], 1130.0),
    ]


def test_the_line_follows_the_log_over_time_and_pauses_are_grey(record):
    figure = timeline_figure(record, sessions(record.folder))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "effective rank"]
    for axes, field in zip(figure.axes, ("loss", "effective_rank"), strict=True):
        (first,), (second, third) = [line.get_xydata().tolist() for line in axes.lines]  # no line across the pause
        values = [line[field] for line in record.lines]
        assert first == pytest.approx([10 / 60, values[0]])  # minutes since the start of the run
        assert second == pytest.approx([110 / 60, values[1]])
        assert third == pytest.approx([130 / 60, values[2]])
        (pause,) = axes.patches
        assert (pause.get_x(), pause.get_width()) == pytest.approx((20 / 60, 80 / 60))


def test_the_table_shows_start_and_duration_of_each_call(record):
    (section,) = timeline_sections([record])
    _, table = section.figures
    assert table.rows == [
        ("1", "1970-01-01 00:16:40", "10 to 20", "20 seconds", ""),
        ("2", "1970-01-01 00:18:20", "15 to 30", "30 seconds", "80 seconds"),
    ]
    assert "paused 1 time" in table.caption


def test_a_run_without_events_has_no_timeline(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0}))
    assert timeline_sections([RunRecord("run", tmp_path, {}, [{"step": 1, "loss": 1.0}])]) == []
