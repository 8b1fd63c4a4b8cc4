import json
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from socodet.training.log import FINISHED, Sinks, folder_sinks
from socodet.training.run_folder import RunFolder


def write(run, start, *lines):
    for sink in folder_sinks(run, start):
        for step, line in lines:
            sink.write(step, line)
        sink.close()


def line(loss):
    return {"loss": loss, "level_share": [0.25, 0.75]}


def test_log_lines_after_the_checkpoint_of_a_crash_are_dropped(tmp_path):
    run = RunFolder(tmp_path)
    write(run, 0, (1, line(-1.0)), (2, line(-2.0)), (3, line(-3.0)))
    write(run, 2, (3, line(-9.0)))
    assert [(line["step"], line["loss"]) for line in run.log_lines()] == [(1, -1.0), (2, -2.0), (3, -9.0)]
    assert json.loads(run.log.read_text().splitlines()[0]) == {"step": 1, **line(-1.0)}
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, -1.0), (2, -2.0), (3, -9.0)]


def test_event_files_of_other_programs_do_not_hide_the_runs(tmp_path):
    """SummaryWriter's names have whole seconds; this run's file gets a later time, so that it is read last."""
    run = RunFolder(tmp_path)
    run.tensorboard.mkdir(parents=True)
    later = int(time.time()) + 9_000
    for name in ("1700000000.host.12.0", f"{later}.host.12.0", f"{later - 1}.250000.host.12", "host", "x.y.z"):
        (run.tensorboard / f"events.out.tfevents.{name}").touch()
    there = set(run.tensorboard.iterdir())
    write(run, 0, (1, line(-1.0)))
    (made,) = set(run.tensorboard.iterdir()) - there
    assert made.name.startswith(f"events.out.tfevents.{later + 1}.000000.")
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert [event.value for event in events.Scalars("loss")] == [-1.0]


def test_tensorboard_has_a_scalar_for_each_number_and_list_item(tmp_path):
    run = RunFolder(tmp_path)
    write(run, 0, (5, {"loss": 2.0, "level_share": [0.25, 0.75], "note": "text"}))
    events = EventAccumulator(str(run.tensorboard)).Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "level_share/0", "level_share/1"}
    assert [event.value for event in events.Scalars("level_share/1")] == [0.75]


def test_all_sinks_are_closed_even_if_one_fails():
    closed = []

    class Failing:
        def __init__(self, error):
            self.error = error

        def write(self, step, line):
            pass

        def close(self):
            closed.append(self)
            if self.error is not None:
                raise self.error

    given = [Failing(OSError("full")), Failing(ValueError("mine")), Failing(None)]
    with pytest.raises(ValueError, match="mine"):
        Sinks(given).close(FINISHED)
    assert closed == given
