import itertools
import json

import pytest
import torch

from socodet.errors import InputError
from socodet.runtime.world import World
from socodet.training.learner import DivergedError, Learner
from socodet.training.loop import run_loop
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings


class Counter(Learner[int]):
    """Adds up the numbers it is given; each counts as two images."""

    when_diverged = "add less"
    world = World()
    device = torch.device("cpu")
    total = 10

    def __init__(self):
        self.finished, self.sum, self.bad = 0, 0, None

    def step(self, batch):
        if batch == self.bad:
            raise DivergedError("a bad number")
        self.finished += 1
        self.sum += batch

    def metrics(self, seconds, waited):
        assert 0 <= waited <= seconds
        return {"sum": self.sum}

    def summary(self):
        return str(self.sum)

    def check_finite(self):
        return "sum too large" if self.sum >= 100 else None

    def state_dict(self):
        return {"finished": self.finished, "sum": self.sum}

    def load_state_dict(self, state):
        self.finished, self.sum = state["finished"], state["sum"]

    def images(self, batch):
        return 2


def run_counter(learner, run, numbers, after_step=None, sinks=(), **execution):
    settings = ExecutionSettings(**{"log_every": 2, "checkpoint_every": 3, **execution})
    return run_loop(
        learner,
        numbers,
        run,
        settings,
        description="count",
        epochs=5,
        show_progress=False,
        after_step=after_step,
        sinks=sinks,
    )


def test_log_lines_checkpoints_and_max_steps(tmp_path):
    run, learner = RunFolder(tmp_path), Counter()
    result = run_counter(learner, run, itertools.count(), max_steps=7)
    assert result.stopped_by == "max_steps"
    assert 0 <= result.waited <= result.seconds
    lines = list(run.log_lines())
    assert [(line["step"], line["epoch"], line["sum"]) for line in lines] == [
        (2, 1.0, 1),
        (3, 1.5, 3),  # at the checkpoint
        (4, 2.0, 6),
        (6, 3.0, 15),
        (7, 3.5, 21),
    ]
    assert all(line["images_per_second"] > 0 and 0 <= line["data_wait"] <= 1 for line in lines)
    assert [path.stem for path in run.checkpoints()] == ["step-00000006", "step-00000007"]
    again = Counter()
    again.load_state_dict(run.load_checkpoint())
    assert run_counter(again, run, itertools.count(7)).stopped_by is None
    assert again.sum == sum(range(10))


def test_finished_run_is_left_unchanged(tmp_path):
    run = RunFolder(tmp_path)
    run_counter(Counter(), run, itertools.count())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again, sink = Counter(), RecordingSink()
    again.load_state_dict(run.load_checkpoint())
    assert run_counter(again, run, itertools.count(10), sinks=[sink]).stopped_by is None
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (sink.lines, sink.closed) == ([], 1)


def test_batch_generator_is_closed_after_an_error(tmp_path):
    ended = []

    def numbers():
        try:
            yield from itertools.count()
        finally:
            ended.append(True)

    learner = Counter()
    learner.bad = 4
    with pytest.raises(DivergedError, match=r"by step 4 \(a bad number\); there is no"):
        run_counter(learner, RunFolder(tmp_path), numbers(), checkpoint_every=9)
    assert ended == [True]


def test_divergence_names_step_checkpoint_and_fix(tmp_path):
    run, learner = RunFolder(tmp_path), Counter()
    with pytest.raises(InputError, match=r"by step 4 \(sum too large\).*step-00000003\.pt; add less"):
        run_counter(learner, run, iter([1, 2, 3, 100, 5]))
    assert [line["sum"] for line in run.log_lines()] == [3, 6]


def test_diverged_network_is_not_evaluated(tmp_path):
    """When an evaluation is due between two log lines, nothing else has checked the network."""
    run, learner = RunFolder(tmp_path), Counter()

    def evaluate(step):
        learner.require_finite()
        return {"AP": 1.0}

    with pytest.raises(DivergedError, match=r"by step 4 \(sum too large\).*step-00000003\.pt; add less") as diverged:
        run_counter(learner, run, iter([1, 2, 3, 100, 5]), after_step=evaluate, log_every=100)
    assert diverged.value.step == 4
    assert [line["step"] for line in run.log_lines() if "AP" in line] == [1, 2, 3]


def test_after_step_is_called_before_the_steps_checkpoint(tmp_path):
    run, seen = RunFolder(tmp_path), []

    def evaluate(step):
        seen.append((step, [path.stem[-1] for path in run.checkpoints()]))
        return {"AP": step / 10} if step % 3 == 0 else None

    run_counter(Counter(), run, itertools.count(), after_step=evaluate, max_steps=4)
    assert seen[:3] == [(1, []), (2, []), (3, [])]
    assert run.checkpoints()[0].stem == "step-00000003"
    text = run.log.read_text().splitlines()
    assert json.loads(text[2]) == {"step": 3, "AP": 0.3}


@pytest.mark.parametrize("error", [InputError("its images are gone"), OSError(5, "drive"), RuntimeError("memory")])
def test_failed_evaluation_loses_no_step_and_is_repeated(tmp_path, error):
    run, asked = RunFolder(tmp_path), []

    def evaluate(step):
        asked.append(step)
        if asked == [1, 2, 3, 4]:
            raise error
        return {"AP": float(step)}

    learner = Counter()
    with pytest.raises(type(error), match=r"images|drive|memory"):
        run_counter(learner, run, itertools.count(), after_step=evaluate, checkpoint_every=99)
    assert run.load_checkpoint()["finished"] == 4
    assert learner.pending
    again = Counter()
    again.load_state_dict(run.load_checkpoint())
    again.pending = True  # a network's learner restores this from its checkpoint
    run_counter(again, run, itertools.count(4), after_step=evaluate, checkpoint_every=99)
    assert asked == [1, 2, 3, 4, *range(4, 11)]
    assert [line["step"] for line in run.log_lines() if "AP" in line] == [*range(1, 11)]
    assert again.sum == sum(range(10))


class RecordingSink:
    """A log sink as a user might write one."""

    def __init__(self):
        self.lines, self.closed = [], 0

    def write(self, step, line):
        assert not self.closed
        self.lines.append((step, dict(line)))

    def close(self):
        self.closed += 1


def test_custom_sink_gets_the_log_lines(tmp_path):
    run, sink = RunFolder(tmp_path), RecordingSink()
    run_counter(Counter(), run, itertools.count(), sinks=[sink], after_step=lambda step: {"AP": step}, max_steps=4)
    assert [{"step": step, **line} for step, line in sink.lines] == list(run.log_lines())
    assert [step for step, line in sink.lines if "sum" in line] == [2, 3, 4]
    assert [step for step, line in sink.lines if "AP" in line] == [1, 2, 3, 4]
    assert sink.closed == 1


def test_sinks_are_closed_after_a_divergence(tmp_path):
    learner, sink = Counter(), RecordingSink()
    learner.bad = 4
    with pytest.raises(DivergedError):
        run_counter(learner, RunFolder(tmp_path), itertools.count(), sinks=[sink])
    assert [step for step, _ in sink.lines] == [2, 3, 4]
    assert sink.closed == 1


def test_only_the_first_process_logs(tmp_path):
    learner, sink = Counter(), RecordingSink()
    learner.world = World(rank=1)
    run_counter(learner, RunFolder(tmp_path), itertools.count(), sinks=[sink])
    assert sink.lines == []
    assert not list(tmp_path.iterdir())
