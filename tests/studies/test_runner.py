"""The runner of studies, with jobs that count their steps: finished work is kept despite interruptions."""

import json
import os
import signal

import pytest

from socodet.errors import InputError
from socodet.runtime.world import World
from socodet.studies import runner
from socodet.studies.runner import Job, JobResult, Study
from socodet.training.learner import DivergedError
from socodet.training.run_folder import RunFolder

NAMES = ("a/seed-0", "b/seed-0", "a/seed-1", "b/seed-1")
ASKED = {"epochs": 3, "sizes": (1, 2)}
STEPS = 3


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path / "out", "count", show_progress=False)
    study.find(ASKED)
    study.begin(ASKED, [])
    return study


class Counting:
    """Jobs of three steps, each with a checkpoint; `faults` maps (name, step) to what happens before it."""

    def __init__(self, faults=None):
        self.faults, self.steps, self.written = faults or {}, [], 0

    def jobs(self, names=NAMES, needs=None):
        return [
            Job(
                name,
                {"init": name[0], "seed": int(name[-1])},
                f"counting {name}",
                lambda folder, name=name: self.count(name, folder),
                (needs or {}).get(name, ()),
                steps=STEPS,
            )
            for name in names
        ]

    def count(self, name, folder):
        run = RunFolder(folder)
        state = run.load_checkpoint() or {"step": 0}
        for step in range(state["step"] + 1, STEPS + 1):
            fault = self.faults.get((name, step))
            if fault == "diverges":
                raise DivergedError("the loss is NaN", step)
            if fault == "max_steps":
                return JobResult(None, fault)
            if fault == "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(fault, signal.Signals):
                signal.raise_signal(fault)
            self.steps.append((name, step))
            run.save_checkpoint(step, {"step": step})
            if isinstance(fault, str) and fault.startswith("SIG"):  # handled by the training loop
                return JobResult({"total": step} if step == STEPS else None, fault)
        return JobResult({"total": STEPS})

    def run(self, study, **options):
        needs = options.pop("needs", None)
        self.all = self.jobs(options.pop("names", NAMES), needs)
        return study.run(self.all, self.write, **options)

    def write(self):
        self.written += 1


def every_step(*names):
    return [(name, step) for name in names for step in range(1, STEPS + 1)]


def statuses(study, jobs=()):
    return {one.name: one.status for one in study.outcomes(jobs)}


def test_jobs_run_in_order_and_their_results_are_recorded(study):
    counting = Counting()
    assert counting.run(study) is None
    assert counting.steps == every_step(*NAMES)
    assert counting.written == len(NAMES)
    assert [(one.labels, one.status, one.results) for one in study.outcomes()] == [
        ({"init": name[0], "seed": int(name[-1])}, "finished", {"total": STEPS}) for name in NAMES
    ]
    assert json.loads((study.folder / "a" / "seed-1.json").read_text())["results"] == {"total": STEPS}
    assert study.outcomes()[0].figure("total") == STEPS
    assert study.outcomes()[0].figure("total.of") is None


def test_finished_jobs_are_not_repeated_and_jobs_may_be_added(study):
    Counting().run(study, names=NAMES[:2])
    more = Counting()
    assert more.run(study) is None
    assert more.steps == every_step(*NAMES[2:])
    fewer = Counting()
    fewer.run(study, names=NAMES[1:2])
    assert fewer.steps == []
    assert statuses(study, fewer.all) == dict.fromkeys(NAMES, "finished")  # results of earlier calls are kept


@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("name", NAMES)
def test_a_study_killed_at_any_step_of_any_job_resumes_there(name, step, study):
    child = os.fork()
    if child == 0:
        try:
            Counting({(name, step): "is killed"}).run(study)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = every_step(*NAMES)[every_step(*NAMES).index((name, step)) :]
    under_way = "not begun" if step == 1 else f"step {step - 1} of {STEPS}"
    assert statuses(study, Counting().jobs())[name] == under_way
    again = Counting()
    assert again.run(study) is None
    assert again.steps == left
    assert set(statuses(study).values()) == {"finished"}


def test_a_diverged_job_is_recorded_and_the_others_continue(study, capsys):
    first = Counting({("b/seed-0", 2): "diverges"})
    study = Study(study.folder, study.kind)
    assert first.run(study) is None
    assert statuses(study) == {**dict.fromkeys(NAMES, "finished"), "b/seed-0": "diverged at step 2"}
    assert "counting b/seed-0: recorded as diverged" in capsys.readouterr().err
    again = Counting()
    again.run(study)
    assert again.steps == []
    retried = Counting()
    retried.run(study, retry_diverged=True)
    assert retried.steps == [("b/seed-0", 2), ("b/seed-0", 3)]  # from its last good checkpoint
    assert set(statuses(study).values()) == {"finished"}


def test_a_retried_job_that_was_interrupted_resumes_without_a_new_request(study):
    Counting({("a/seed-0", 2): "diverges"}).run(study)
    assert Counting({("a/seed-0", 2): "SIGINT"}).run(study, retry_diverged=True) == "SIGINT"
    rest = Counting()
    assert rest.run(study) is None
    assert rest.steps == [("a/seed-0", 3)]


def test_a_job_waits_for_the_jobs_it_needs_and_is_skipped_if_they_diverged(study):
    needs = {"b/seed-0": ("a/seed-0",), "b/seed-1": ("a/seed-1",)}
    counting = Counting({("a/seed-0", 1): "diverges", ("a/seed-1", 2): "max_steps"})
    assert counting.run(study, needs=needs) == "max_steps"
    assert counting.steps == [("a/seed-1", 1)]
    assert statuses(study, counting.all) == {
        "a/seed-0": "diverged at step 1",
        "b/seed-0": "not begun",
        "a/seed-1": "step 1 of 3",
        "b/seed-1": "not begun",
    }
    assert [*statuses(study)] == ["a/seed-0", "a/seed-1"]  # jobs only requested are no results
    rest = Counting()
    rest.run(study, needs=needs)
    assert rest.steps == [("a/seed-1", 2), ("a/seed-1", 3), *every_step("b/seed-1")]


@pytest.mark.parametrize("step", [2, STEPS])
def test_a_signal_handled_by_the_training_loop_ends_the_call(step, study):
    """Also in the last step, which completes the job."""
    counting = Counting({("b/seed-0", step): "SIGTERM"})
    assert counting.run(study) == "SIGTERM"
    assert counting.steps[-1] == ("b/seed-0", step)
    assert counting.written == 2
    assert statuses(study)["b/seed-0"] == ("finished" if step == STEPS else "step 2 of 3")
    rest = Counting()
    assert rest.run(study) is None
    assert counting.steps + rest.steps == every_step(*NAMES)


@pytest.mark.parametrize("heard", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_outside_the_training_loop_ends_the_call_after_the_job(heard, study):
    counting = Counting({("a/seed-0", 1): heard})
    assert counting.run(study) == heard.name
    assert counting.steps == every_step("a/seed-0")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_ctrl_c_ends_the_call_at_once_with_a_table_of_finished_jobs(study):
    counting = Counting({("b/seed-0", 2): signal.SIGINT, ("b/seed-0", 3): signal.SIGINT})
    with pytest.raises(KeyboardInterrupt):
        counting.run(study)
    assert counting.written == 1
    assert statuses(study)["b/seed-0"] == "step 2 of 3"


def test_max_steps_applies_to_each_job(study):
    counting = Counting({(name, 2): "max_steps" for name in NAMES})
    assert counting.run(study) == "max_steps"
    assert counting.steps == [(name, 1) for name in NAMES]
    assert statuses(study) == dict.fromkeys(NAMES, "step 1 of 3")


def test_other_settings_and_other_files_are_refused(study, tmp_path):
    Counting().run(study)
    assert study.find(ASKED)["asked"] == {"epochs": 3, "sizes": [1, 2]}
    with pytest.raises(InputError, match=r"holds a count of other settings: --epochs \(4 now, 3 there\)"):
        study.find({**ASKED, "epochs": 4})
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine").touch()
    with pytest.raises(InputError, match="holds files that are not of a count"):
        Study(tmp_path / "foreign", "count").find(ASKED, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        Study(tmp_path / "foreign" / "mine", "count").find(ASKED)


def test_overwriting_removes_only_the_studys_own_files(study):
    Counting({("b/seed-1", 2): "SIGINT"}).run(study)
    (study.folder / "table.md").touch()
    for name in ("mine.txt", "a/mine.txt"):
        (study.folder / name).touch()
    assert study.find({"epochs": 4}, overwrite=True) == {}
    study.begin({"epochs": 4}, ["table.*"], overwrite=True)
    left = {str(path.relative_to(study.folder)) for path in study.folder.rglob("*") if path.is_file()}
    assert left == {"count.json", "mine.txt", "a/mine.txt"}
    again = Counting()
    again.run(study)
    assert again.steps == every_step(*NAMES)


def test_only_the_first_of_several_processes_writes(study, capsys):
    second = Study(study.folder, "count", World(rank=1))
    before = study.note.read_bytes()
    counting = Counting({("a/seed-0", 1): "diverges"})
    assert counting.run(second) is None
    assert (counting.written, study.note.read_bytes()) == (0, before)
    assert not [*study.folder.glob("*/*.json")]
    assert capsys.readouterr().err == ""


def test_a_study_killed_while_being_overwritten_lists_no_deleted_results(study, monkeypatch):
    Counting().run(study)
    removed = []

    def killed(folder):
        removed.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "remove_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        study.begin(ASKED, [], overwrite=True)
    (begun,) = removed
    assert not begun.with_name(f"{begun.name}.json").exists()
