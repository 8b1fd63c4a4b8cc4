"""The best checkpoint by AP on the validation set, and runs that end when AP stops improving."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrow_models import NARROW, narrow_resnet18
from photograph_sets import coco_file

import socodet
import socodet.finetuning.loop as loop_module
from socodet.cli import main
from socodet.deployment.push import _write_shared
from socodet.detection.datasets.layouts import open_detection_set
from socodet.errors import InputError
from socodet.finetuning.evaluate import Evaluation
from socodet.finetuning.finetune import finetune
from socodet.finetuning.run import keep_only_best
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.training.log import JsonLinesSink
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)
SETTINGS = FinetuneSettings("fcos_fpn", iterations=6, batch_size=2, size=32, precise_bn=0)
EACH = EvaluationSettings(every=1)
QUIET = {"model": NARROW, "evaluation": EACH, "show_progress": False}


@pytest.fixture
def data(tmp_path):
    return coco_file(tmp_path / "set.json", ("hopper", "chelsea"))


@pytest.fixture
def scored(monkeypatch):
    """Evaluations with these APs after steps 1 to 6, instead of real ones."""
    aps = {1: 1.0, 2: 5.0, 3: 3.0, 4: None, 5: 5.0, 6: 2.0}

    def score(*_, step, **__):
        return Evaluation({"box_AP": aps[step]}, ())

    monkeypatch.setattr(loop_module, "score", score)
    return aps


class ClosedCounter:
    """A log sink that counts how often it is closed."""

    times = 0

    def write(self, step, line):
        pass

    def close(self):
        self.times += 1


def with_only_best(data, output, **asked) -> RunFolder:
    """A run that has ended, whose other checkpoints were deleted."""
    run = RunFolder(finetune(data, output, SETTINGS, val=data, execution=HERE, **asked).run)
    for checkpoint in run.checkpoints():
        checkpoint.unlink()
    return run


def files_of(run):
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("patience", [None, 2])
def test_ended_run_with_only_its_best_weights_is_left_as_it_is(scored, data, tmp_path, patience):
    start = tmp_path / "start.pth"
    torch.save(narrow_resnet18().state_dict(), start)
    asked = {"patience": patience, "init": start, **QUIET}
    run = with_only_best(data, tmp_path / "run", **asked)
    asked |= {"val": data, "execution": HERE}
    start.unlink()
    before, sink = files_of(run), ClosedCounter()
    result = finetune(data, run.path, SETTINGS, resume=True, sinks=[sink], **asked)
    ended = (6, (5, 5.0), None) if patience is None else (4, (2, 5.0), "patience")
    assert (result.steps, result.best, result.stopped_by, result.finished) == (*ended, True)
    assert sink.times == 1
    if patience is None:  # as for any finished run
        with pytest.raises(InputError, match="holds a finished run; pass --resume"):
            finetune(data, run.path, SETTINGS, **asked)
    with pytest.raises(InputError, match="--base-lr"):
        finetune(data, run.path, replace(SETTINGS, base_lr=0.5), resume=True, **asked)
    with pytest.raises(InputError, match="only its best weights"):
        socodet.load_detector(run.path, checkpoint="last", device="cpu")
    assert files_of(run) == before
    run.best.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"best\.pt: not a readable checkpoint .*no other is left"):
        finetune(data, run.path, SETTINGS, resume=True, **asked)
    assert finetune(data, run.path, SETTINGS, overwrite=True, **{**asked, "init": "scratch"}).finished


def test_run_killed_before_its_last_scores_is_not_taken_for_finished(scored, data, tmp_path):
    run = with_only_best(data, tmp_path / "run", **QUIET)
    lines = [line for line in run.log_lines() if line["step"] < 6 or "box_AP" not in line]
    run.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert lines[-1]["step"] == 6
    assert finetune(data, run.path, SETTINGS, val=data, execution=HERE, resume=True, **QUIET).finished
    assert run.load_checkpoint()["step"] == 6


def test_run_killed_before_its_first_checkpoint_starts_over(scored, data, tmp_path):
    asked = {"val": data, **QUIET}
    run = RunFolder(finetune(data, tmp_path / "run", SETTINGS, execution=replace(HERE, max_steps=2), **asked).run)
    for checkpoint in run.checkpoints():
        checkpoint.unlink()
    assert run.load_best()["step"] == 2
    assert finetune(data, run.path, SETTINGS, execution=HERE, **asked).best == (5, 5.0)


@pytest.mark.parametrize(
    ("best", "left"),
    [(100, ["best.pt"]), (80, ["best.pt", "step-00000100.pt"]), (None, ["best.pt", "step-00000100.pt"])],
    ids=["the last is the best", "the disk was full at the last", "damaged"],
)
def test_checkpoints_are_removed_only_if_best_pt_holds_the_best_weights(tmp_path, best, left):
    run = RunFolder(tmp_path / "study" / "run")
    run.save_checkpoint(100, {"step": 100, "detector": {}})
    run.save_best({"step": best or 100, "detector": {}})
    if best is None:
        run.best.write_bytes(run.best.read_bytes()[:-50])
    lines = [{"step": 80, "box_AP": 20.0}, {"step": 90, "box_AP": None}, {"step": 100, "box_AP": 25.0}]
    run.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep_only_best(tmp_path / "study")
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == left


def test_missing_best_or_last_weights_get_a_workable_hint(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.save_best({"step": 1, "detector": {}})
    with pytest.raises(InputError, match="--checkpoint best"):
        _write_shared(run, RunFolder(tmp_path / "shared"), "last")
    run.best.write_bytes(b"damaged")
    with pytest.raises(InputError, match="train again"):
        run.load_best()
    run.save_checkpoint(1, {"step": 1, "detector": {}})
    with pytest.raises(InputError, match="--checkpoint last"):
        run.load_best()


def weights_after(steps, data, output):
    """The weights of the same run stopped after `steps`."""
    finetune(data, output, SETTINGS, val=data, execution=replace(HERE, max_steps=steps), **QUIET)
    return RunFolder(output).load_checkpoint()["detector"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_best_weights_are_kept_and_used_and_ties_go_to_the_newest(scored, data, tmp_path):
    result = finetune(data, tmp_path / "run", SETTINGS, val=data, execution=HERE, **QUIET)
    assert (result.finished, result.best) == (True, (5, 5.0))
    best = socodet.load_detector(tmp_path / "run", device="cpu")
    assert best.step == 5
    assert same(best.network.state_dict(), weights_after(5, data, tmp_path / "five"))
    last = socodet.load_detector(tmp_path / "run", checkpoint="last", device="cpu")
    assert last.step == 6
    assert not same(best.network.state_dict(), last.network.state_dict())


def test_patience_ends_a_run_and_more_patience_resumes_it(scored, data, tmp_path, capsys):
    asked = {"val": data, "execution": HERE, **QUIET}
    result = finetune(data, tmp_path / "run", SETTINGS, patience=2, **asked)
    assert (result.steps, result.stopped_by, result.finished, result.best) == (4, "patience", True, (2, 5.0))
    assert RunFolder(tmp_path / "run").load_checkpoint()["step"] == 4
    sink = ClosedCounter()
    again = finetune(data, tmp_path / "run", SETTINGS, patience=2, sinks=[sink], **asked)
    assert (again.steps, again.stopped_by, sink.times) == (4, "patience", 1)
    longer = finetune(data, tmp_path / "run", SETTINGS, patience=5, **asked)
    assert (longer.steps, longer.stopped_by, longer.best) == (6, None, (5, 5.0))


def test_interrupted_run_remembers_its_best_and_its_patience(scored, data, tmp_path):
    asked = {"val": data, "patience": 2, **QUIET}
    for _ in range(3):
        result = finetune(data, tmp_path / "run", SETTINGS, execution=replace(HERE, max_steps=1), **asked)
    assert (result.steps, result.best) == (3, (2, 5.0))
    result = finetune(data, tmp_path / "run", SETTINGS, execution=HERE, **asked)
    assert (result.steps, result.stopped_by) == (4, "patience")
    assert socodet.load_detector(tmp_path / "run", device="cpu").step == 2


def test_fine_tuning_started_before_a_setting_existed_resumes(scored, data, tmp_path):
    weights_after(2, data, tmp_path / "run")
    note = tmp_path / "run" / "run.json"
    described = json.loads(note.read_text())
    assert described["recipe"]["settings"].pop("keep_head_scale") is False
    note.write_text(json.dumps(described))
    assert finetune(data, tmp_path / "run", SETTINGS, val=data, execution=HERE, **QUIET).finished


@pytest.mark.parametrize("all_modules", [False, True])
def test_a_run_begun_before_modules_could_be_chosen_goes_on_with_any_choice(scored, data, tmp_path, all_modules):
    weights_after(2, data, tmp_path / "run")
    note = tmp_path / "run" / "run.json"
    described = json.loads(note.read_text())
    del described["recipe"]["settings"]["all_modules"]
    note.write_text(json.dumps(described))
    settings = replace(SETTINGS, all_modules=all_modules)
    assert finetune(data, tmp_path / "run", settings, val=data, execution=HERE, **QUIET).finished


@pytest.mark.parametrize("stops", [(6,), (2, 4), (1, 1, 1, 3)])
def test_best_weights_that_could_not_be_written_do_not_count(scored, data, tmp_path, monkeypatch, stops):
    """The disk is full at steps 2 and 5, where AP is 5.0, so the best weights on disk are step 3's."""
    save = RunFolder.save_best

    def full(self, state):
        if state["step"] in (2, 5):
            raise OSError(28, "No space left on device")
        save(self, state)

    monkeypatch.setattr(RunFolder, "save_best", full)
    for steps in stops:
        result = finetune(data, tmp_path / "run", SETTINGS, val=data, execution=replace(HERE, max_steps=steps), **QUIET)
    assert (result.steps, result.best) == (6, (3, 3.0))
    assert socodet.load_detector(tmp_path / "run", device="cpu").step == 3


def test_damaged_best_checkpoint_is_rewritten_by_the_next_evaluation(scored, data, tmp_path):
    first = finetune(data, tmp_path / "run", SETTINGS, val=data, execution=replace(HERE, max_steps=3), **QUIET)
    assert first.best == (2, 5.0)
    best = RunFolder(tmp_path / "run").best
    best.write_bytes(best.read_bytes()[:-1000])
    result = finetune(data, tmp_path / "run", SETTINGS, val=data, execution=HERE, **QUIET)
    assert result.best == (5, 5.0)
    assert socodet.load_detector(tmp_path / "run", device="cpu").step == 5


def test_run_scored_only_at_its_end_has_one_checkpoint(data, tmp_path):
    settings = replace(SETTINGS, schedule="coco_1x", iterations=2)
    asked = {"model": NARROW, "execution": HERE, "show_progress": False}
    result = finetune(data, tmp_path / "run", settings, val=data, **asked)
    assert result.best is None
    assert not RunFolder(tmp_path / "run").best.exists()
    assert socodet.load_detector(tmp_path / "run", device="cpu").step == 2


@pytest.mark.parametrize(("ap", "best"), [(7.0, 6), (2.0, 2)])
def test_last_weights_can_be_the_best_of_a_run_no_longer_scored_along_the_way(scored, data, tmp_path, ap, best):
    scored[6] = ap
    settings = replace(SETTINGS, schedule="coco_1x")
    asked = {**QUIET, "val": data}
    finetune(data, tmp_path / "run", settings, execution=replace(HERE, max_steps=2), **asked)
    asked["evaluation"] = EvaluationSettings()
    result = finetune(data, tmp_path / "run", settings, execution=HERE, **asked)
    assert result.best == (best, scored[best])
    assert socodet.load_detector(tmp_path / "run", device="cpu").step == best


def test_patience_needs_evaluations(data, tmp_path):
    given = {"model": NARROW, "show_progress": False}
    with pytest.raises(InputError, match="no validation split"):
        finetune(data, tmp_path / "run", SETTINGS, patience=2, **given)
    with pytest.raises(InputError, match=r"--evaluation\.every"):
        finetune(data, tmp_path / "run", replace(SETTINGS, schedule="coco_1x"), val=data, patience=2, **given)
    with pytest.raises(InputError, match="at least 1"):
        finetune(data, tmp_path / "run", SETTINGS, val=data, patience=0, **given)


def test_patience_needs_objects_that_can_be_scored(data, tmp_path, capsys):
    """Without an AP, patience would end every run after that many evaluations."""
    opened = open_detection_set(data)
    images = [replace(image, crowd=np.ones(len(image), bool)) for image in opened.images]
    crowds = replace(opened, name="crowds", images=images)
    asked = {"val": crowds, "model": NARROW, "execution": HERE, "evaluation": EACH}
    with pytest.raises(InputError, match=r"crowds: .*--patience"):
        finetune(data, tmp_path / "run", SETTINGS, patience=2, show_progress=False, **asked)
    assert not (tmp_path / "run").exists()
    result = finetune(data, tmp_path / "run", replace(SETTINGS, iterations=1), **asked)
    assert result.best is None
    assert "note: crowds: " in capsys.readouterr().err


def test_command_shows_plan_classes_and_best_step(data, tmp_path, capsys):
    """Datasets other than the paper's are scored along the way; AP does not rise within two steps."""
    flags = ["--detector", "fcos_fpn", "--epochs", "2", "--batch-size", "2", "--size", "32", "--patience", "9"]
    flags += ["--backbone", "resnet18", "--fpn-channels", "16", "--device", "cpu", "--workers", "0"]
    main(["finetune", str(data), "--val", str(data), "--output", str(tmp_path / "run"), *flags])
    shown = capsys.readouterr()
    assert "2 in 2 of 3 classes: animal 1, person 1; none of rocket" in shown.err
    assert "2 steps of 2 images, 2 epochs" in shown.err
    assert "2 images, 2 objects" in shown.err
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines() if line}
    assert (rows["animal"][0], rows["rocket"]) == ("1", ["0", "-", "-"])
    assert "best checkpoint: step 2" in shown.out


@pytest.mark.parametrize(("left", "shown"), [(0, False), (2, True)])
def test_remaining_time_is_shown_if_steps_remain(left, shown, capsys):
    steps = loop_module.PACE_STEPS + 1
    pace = loop_module._Pace(steps + left)
    for step in range(1, steps + 1):
        pace.step(step)
    text = capsys.readouterr().err
    assert ("for 2 steps" in text, text != "") == (shown, shown)


def test_evaluations_do_not_count_in_the_remaining_time(monkeypatch, capsys):
    """Steps take two seconds, and a minute's evaluation follows every other step: 100 more steps take 200 s."""
    now = [0.0]
    monkeypatch.setattr(loop_module.time, "monotonic", lambda: now[0])
    steps = loop_module.PACE_STEPS + 1
    pace = loop_module._Pace(steps + 100)
    for step in range(1, steps + 1):
        now[0] += 2
        pace.step(step)
        if step % 2 == 0:
            now[0] += 60
            pace.leave_out(60)
    assert "about 3 min for 100 steps" in capsys.readouterr().err


def killed_after(step, data, output, monkeypatch, **asked):
    """The run, killed right after the evaluation of `step`; its only checkpoint is of the first step."""

    class Killed(BaseException):
        pass

    def line(sink, done, values):
        write(sink, done, values)
        if done == step and "box_AP" in values:
            raise Killed

    write = JsonLinesSink.write
    save = RunFolder.save_checkpoint
    with monkeypatch.context() as within:
        within.setattr(JsonLinesSink, "write", line)
        within.setattr(RunFolder, "save_checkpoint", lambda *given: save(*given) if given[1] == 1 else None)
        with pytest.raises(Killed):
            finetune(data, output, SETTINGS, val=data, execution=replace(HERE, checkpoint_every=1), **asked)


@pytest.mark.parametrize("step", [2, 3, 4])
def test_killed_run_has_the_same_patience_as_an_uninterrupted_one(scored, data, tmp_path, monkeypatch, step):
    """Detectors that find nothing yet all have the same AP: each is kept as the best, but none counts as better."""
    scored |= dict.fromkeys(range(1, 7), 0.0)
    asked = {"patience": 4, **QUIET}
    whole = finetune(data, tmp_path / "whole", SETTINGS, val=data, execution=HERE, **asked)
    assert (whole.steps, whole.stopped_by, whole.best) == (5, "patience", (5, 0.0))
    killed_after(step, data, tmp_path / "run", monkeypatch, **asked)
    assert RunFolder(tmp_path / "run").load_best()["step"] == step
    resumed = finetune(data, tmp_path / "run", SETTINGS, val=data, execution=HERE, **asked)
    assert (resumed.steps, resumed.stopped_by, resumed.best) == (whole.steps, whole.stopped_by, whole.best)
    best = [socodet.load_detector(tmp_path / name, device="cpu").network.state_dict() for name in ("run", "whole")]
    assert same(*best)


def test_best_weights_of_a_killed_run_do_not_count_for_its_replacement(scored, data, tmp_path, monkeypatch):
    """A run killed before its first checkpoint is restarted, here with other settings and without evaluations."""
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as within:
        within.setattr(RunFolder, "save_checkpoint", lambda *_: None)
        finetune(data, tmp_path / "run", SETTINGS, val=data, execution=replace(HERE, max_steps=3), **QUIET)
    run = RunFolder(tmp_path / "run")
    (run.path / "scores.json").write_text("{}")
    assert run.best.exists()
    assert not run.checkpoints()
    other = replace(SETTINGS, iterations=2, schedule="coco_1x", base_lr=0.001)
    finetune(data, run.path, other, model=NARROW, execution=HERE, show_progress=False)
    assert socodet.load_detector(run.path, device="cpu").step == 2
    assert not (run.path / "scores.json").exists()


def test_network_with_nan_or_infinity_is_neither_scored_nor_kept(scored, data, tmp_path):
    settings = replace(SETTINGS, base_lr=1e30)
    with pytest.raises(InputError, match=r"diverged by step [123] "):
        finetune(data, tmp_path / "run", settings, val=data, execution=replace(HERE, log_every=100), **QUIET)
    kept = RunFolder(tmp_path / "run").load_best()
    assert kept is None or all(value.isfinite().all() for value in kept["detector"].values())


def test_run_is_not_resumed_with_another_validation_set(scored, data, tmp_path):
    """Its best checkpoint would be chosen by AP on two different datasets."""
    other = coco_file(tmp_path / "other.json", ("rocket", "raccoon"))
    first = {"execution": replace(HERE, max_steps=2), **QUIET}
    finetune(data, tmp_path / "run", SETTINGS, val=data, **first)
    with pytest.raises(InputError, match="the dataset to score on"):
        finetune(data, tmp_path / "run", SETTINGS, val=other, **first)
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "val"}))
    assert finetune(data, tmp_path / "run", SETTINGS, val=data, **first).steps == 4  # as if from an earlier version
