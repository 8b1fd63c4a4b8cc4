"""Comparisons on the shipped photographs: what runs share, how they differ, stopping, diverging and resuming."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from photograph_sets import coco_file, link_photographs

from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import DETECTORS
from socodet.detection.detectors.names import ALIASES
from socodet.detection.detectors.schedules import SCHEDULES
from socodet.errors import ArgumentError, InputError
from socodet.finetuning.detector import load_detector
from socodet.finetuning.finetune import FinetuneResult
from socodet.finetuning.samples import TrainingImages
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.finetuning.trainer import FineTuner
from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.studies import finetuning_runs
from socodet.studies.comparison import compare
from socodet.studies.inits import Init, named_inits
from socodet.training.learner import DivergedError
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks", "figures_unrendered")

NARROW = ModelSettings("fpn", "resnet18", 8, 1, 8, 12, hidden_size=8, embedding_size=4)
FLAGS = ["--detector", "fcos_fpn", "--iterations", "2", "--batch-size", "2", "--size", "32", "--precise-bn", "0"]
HERE = ["--device", "cpu", "--workers", "0"]
ASKED = FinetuneSettings("fcos_fpn", iterations=2, batch_size=2, size=32, precise_bn=0)
"""The settings in `FLAGS`."""
QUIET = {"model": NARROW, "execution": ExecutionSettings("cpu", workers=0), "show_progress": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    torch.manual_seed(1)
    run = RunFolder(folder / "soco")
    run.write_description({"recipe": to_json(Recipe("custom", model=NARROW))})
    run.save_checkpoint(1, {"step": 1, "model": SoCo(build_encoder(NARROW), NARROW).state_dict()})
    coco_file(folder / "train.json")
    coco_file(folder / "val.json", ("rocket",))
    return folder


def command(data, folder):
    """A comparison without seeds and fractions, which has two runs."""
    sets = [str(data / "train.json"), "--val", str(data / "val.json"), "--output", str(folder)]
    return ["finetune", *sets, "--init", str(data / "soco"), "--init", "scratch", *FLAGS, *HERE]


class FirstSteps:
    """Records the images and weights of each run's first step."""

    def __init__(self):
        self.pixels, self.head, self.body = [], [], []

    def patch(self, monkeypatch):
        step = FineTuner.step

        def watching(tuner, batch):
            if tuner.finished == 0:
                self.pixels.append(torch.cat([image.flatten() for image in batch.images]))
                weights = {name: value.clone() for name, value in tuner.network.state_dict().items()}
                self.head.append(weights["head.classification_head.cls_logits.weight"])
                self.body.append(weights["backbone.body.conv1.weight"])
            return step(tuner, batch)

        monkeypatch.setattr(FineTuner, "step", watching)


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    """A comparison of two inits, two seeds, and half and all of six images; and the first step of each run."""
    folder, watch = tmp_path_factory.mktemp("comparison") / "out", FirstSteps()
    with pytest.MonkeyPatch.context() as patch:
        watch.patch(patch)
        main([*command(data, folder), "--seeds", "0", "1", "--fractions", "0.5", "1"])
    return folder, watch


def json_of(path):
    return json.loads(path.read_text())


def run_of(folder, init, fraction, seed):
    return folder / "runs" / init / f"fraction-{fraction:g}" / f"seed-{seed}"


def test_a_seed_fixes_images_order_and_fresh_weights_for_every_init(compared):
    folder, watch = compared
    chosen = {
        (init, seed): json_of(run_of(folder, init, 0.5, seed) / "images.json")["image_ids"]
        for init in ("soco", "scratch")
        for seed in (0, 1)
    }
    assert all(len(ids) == 3 for ids in chosen.values())
    assert chosen["soco", 0] == chosen["scratch", 0] != chosen["soco", 1] == chosen["scratch", 1]
    # For each seed, the runs use half and all of the images, each from SoCo and from scratch.
    for soco in (0, 2, 4, 6):
        scratch = soco + 1
        assert torch.equal(watch.pixels[soco], watch.pixels[scratch])
        assert torch.equal(watch.head[soco], watch.head[scratch])
        assert not torch.equal(watch.body[soco], watch.body[scratch])
        assert torch.equal(watch.body[soco], watch.body[0])
    assert not torch.equal(watch.head[0], watch.head[4])
    assert not torch.equal(watch.pixels[2][:999], watch.pixels[6][:999])


def test_a_finished_run_keeps_only_its_best_weights(compared, data, tmp_path):
    folder, _ = compared
    runs = [file.parent for file in folder.glob("runs/**/run.json")]
    assert len(runs) == 8
    assert [[path.name for path in (run / "checkpoints").iterdir()] for run in runs] == [["best.pt"]] * 8
    step, iterations = load_detector(runs[0]).step, ASKED.iterations
    assert 0 < step <= iterations
    page = main(["report", str(runs[0]), "--data", str(data / "val.json"), "--output", str(tmp_path / "report.html")])
    assert not page
    assert "its detector is not shown" not in (tmp_path / "report.html").read_text()


def test_notes_shared_by_runs_are_printed_once(data, tmp_path, capsys):
    """The plan, and what each init loaded; a later call prints them again."""
    for folder in ("one", "another"):
        main([*command(data, tmp_path / folder), "--seeds", "0", "1", "--iterations", "1"])
        lines = capsys.readouterr().err.splitlines()
        assert sum(line.startswith("plan: ") for line in lines) == 1
        assert sum(line.startswith("  objects ") for line in lines) == 1
        assert sum(line.startswith("  loaded ") for line in lines) == 1
        assert [line[:6] for line in lines if " of 4: " in line] == [f"{number} of 4" for number in range(1, 5)]


def test_the_tables_contain_the_runs_results(compared):
    folder, _ = compared
    written = json_of(folder / "table.json")
    assert [(row["init"], row["fraction"]) for row in written["rows"]] == [
        ("soco", 0.5),
        ("scratch", 0.5),
        ("soco", 1),
        ("scratch", 1),
    ]
    for row in written["rows"]:
        finals = [json_of(run_of(folder, row["init"], row["fraction"], seed) / "scores.json") for seed in (0, 1)]
        assert row["scores"]["box_AP"]["values"] == [final["scores"]["box_AP"] for final in finals]
        assert row["scores"]["box_AP"]["std"] == pytest.approx(np.std(row["scores"]["box_AP"]["values"], ddof=1))
        assert [point["step"] for point in row["curve"]] == [1, 2]  # ten evaluations in two steps make two
    recipes = [json_of(path)["recipe"] for path in folder.glob("runs/*/fraction-1/seed-1/run.json")]
    assert len(recipes) == 2
    assert recipes[0] == recipes[1]
    for name in ("table.md", "table.csv", "iterations.png", "iterations.svg", "labels.png", "labels.svg"):
        assert (folder / name).stat().st_size > 0
    assert json_of(folder / "comparison.json")["inits"]["soco"]["loaded"] == ["backbone.body", "backbone.fpn"]


def test_the_same_call_from_python_repeats_no_run(compared, data, monkeypatch):
    folder, _ = compared
    before = (folder / "table.json").read_bytes()
    monkeypatch.setattr(finetuning_runs, "finetune", lambda *_, **__: pytest.fail("a finished run was run again"))
    inits = named_inits([str(data / "soco"), "scratch"])
    asked = {**QUIET, "val": data / "val.json", "seeds": (0, 1), "fractions": (0.5, 1.0)}
    comparison = compare(data / "train.json", folder, inits, ASKED, **asked)
    assert [run.status for run in comparison.runs] == ["finished"] * 8
    assert (folder / "table.json").read_bytes() == before
    run_of(folder, "soco", 0.5, 1).with_suffix(".json").unlink()
    assert compare(data / "train.json", folder, inits, ASKED, **asked).runs == comparison.runs
    fewer = compare(data / "train.json", folder, inits[:1], ASKED, **{**asked, "seeds": (1,), "fractions": (1.0,)})
    assert fewer.runs == comparison.runs  # rows of earlier calls stay in the table


def test_rois_per_image_is_passed_to_every_run(data, tmp_path):
    settings = dataclasses.replace(ASKED, detector="faster_rcnn_fpn", iterations=1, rois_per_image=7)
    inits = named_inits(["scratch"])
    compare(data / "train.json", tmp_path / "out", inits, settings, val=data / "val.json", **QUIET)
    run = run_of(tmp_path / "out", "scratch", 1, 0)
    assert json_of(run / "run.json")["recipe"]["settings"]["rois_per_image"] == 7


def test_a_resumed_comparison_equals_an_uninterrupted_one(compared, data, tmp_path, monkeypatch, capsys):
    folder, _ = compared
    again = tmp_path / "again"
    fetch, asked = TrainingImages.__getitem__, []

    def interrupting(self, place):
        if run_of(again, "soco", 1, 0).with_suffix(".json").exists() and not asked:  # in the second run
            asked.append(place)
            signal.raise_signal(signal.SIGTERM)
        return fetch(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingImages, "__getitem__", interrupting)
        with pytest.raises(SystemExit) as ended:
            main(command(data, again))
    assert ended.value.code == 143
    assert "1 of 2 runs finished, 0 diverged, 1 to go; the same command resumes" in capsys.readouterr().out
    states = [(run["init"], run["status"]) for run in json_of(again / "table.json")["runs"]]
    assert states == [("soco", "finished"), ("scratch", "step 1 of 2")]
    main(command(data, again))
    for init in ("soco", "scratch"):
        ours, theirs = (RunFolder(run_of(where, init, 1, 0)).load_best() for where in (again, folder))
        assert all(torch.equal(value, theirs["detector"][name]) for name, value in ours["detector"].items())
    whole = [run for run in json_of(folder / "table.json")["runs"] if (run["fraction"], run["seed"]) == (1, 0)]
    assert json_of(again / "table.json")["runs"] == whole


class Stub:
    """Replaces `finetune`: records its arguments, and does what is scripted for (init, seed)."""

    def __init__(self, script=None):
        self.script, self.asked = script or {}, []

    def __call__(self, _train, output, settings, *, init, **_options):
        seed, iterations = settings.seed, settings.iterations
        self.asked.append((str(init).rpartition("/")[2], settings.fraction, seed, iterations))
        what = self.script.get((self.asked[-1][0], seed))
        output.mkdir(parents=True, exist_ok=True)
        if what == "diverges":
            raise DivergedError("the loss is NaN", 7)
        scores = {"step": iterations, "box_AP": 10.0 + seed, "box_APs": None}  # None: the dataset has no small object
        lines = [{"step": 1, "loss": 1.0, "loss_box_reg": 0.5}, scores]
        (output / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return FinetuneResult(output, "fcos_fpn", iterations, iterations, None, None, None, (), 1.0)


@pytest.fixture
def ask(data, tmp_path, monkeypatch):
    """Compares two inits on two seeds, with a stub for `finetune`."""

    def call(stub, **options):
        monkeypatch.setattr(finetuning_runs, "finetune", stub)
        asked = {**QUIET, "val": data / "val.json", "seeds": (0, 1)}
        changes = {name: options.pop(name) for name in ("detector", "iterations", "epochs", "seed") if name in options}
        settings = dataclasses.replace(ASKED, **changes)
        inits = options.pop("inits", named_inits([str(data / "soco"), "scratch"]))
        return compare(data / "train.json", tmp_path / "out", inits, settings, **{**asked, **options})

    return call


@pytest.mark.parametrize("earlier", [True, False])
def test_runs_added_to_an_earlier_versions_comparison_load_the_modules_that_its_runs_loaded(
    ask, data, tmp_path, earlier
):
    """That version loaded all modules of a short run of the recipe auto."""
    shutil.copytree(data / "soco", tmp_path / "soco")
    recipe = to_json(Recipe("auto", model=NARROW))
    RunFolder(tmp_path / "soco").write_description({"recipe": recipe, "images": {"count": 9}})
    inits = named_inits([str(tmp_path / "soco"), "scratch"])
    ask(Stub(), inits=inits, seeds=(0,))
    note = tmp_path / "out" / "comparison.json"
    noted = json_of(note)
    assert noted["inits"]["soco"]["loaded"] == ["backbone.body"]
    if earlier:
        noted["inits"]["soco"]["loaded"] = ["backbone.body", "backbone.fpn"]
        del noted["asked"]["settings"]["all_modules"]
        note.write_text(json.dumps(noted))
    for seed in (1, 2):
        asked = {}

        def stub(*given, init, asked=asked, **options):
            asked[Path(init).name] = given[2].all_modules
            return Stub()(*given, init=init, **options)

        ask(stub, inits=inits, seeds=(0, seed))
        assert asked == {"soco": earlier, "scratch": False}
    loaded = ["backbone.body", "backbone.fpn"] if earlier else ["backbone.body"]
    assert json_of(note)["inits"]["soco"]["loaded"] == loaded


def test_a_diverged_run_is_recorded_and_the_others_continue(ask):
    first = Stub({("soco", 0): "diverges"})
    table = ask(first)
    assert [init for init, *_ in first.asked] == ["soco", "scratch"] * 2
    assert [run.status for run in table.runs] == ["diverged at step 7", "finished", "finished", "finished"]
    assert "| soco | 1, 1 diverged | 11.00 |" in table.markdown.read_text()
    assert table.runs[1].results == {"steps": 2, "scores": {"box_AP": 11.0}, "curve": [{"step": 2, "box_AP": 11.0}]}
    second = Stub()
    assert ask(second).runs == table.runs
    assert second.asked == []
    third = Stub()
    assert all(run.finished for run in ask(third, retry_diverged=True).runs)
    assert third.asked == [("soco", None, 0, 2)]


def test_lost_scores_are_not_replaced_by_an_earlier_steps(ask, tmp_path):
    """As after a power failure: the last step's checkpoint is on disk, the last lines of the log are not."""

    class Losing(Stub):
        kept = True

        def __call__(self, *given, **options):
            result = super().__call__(*given, **options)
            (result.run / "log.jsonl").write_text(json.dumps({"step": 1, "box_AP": 3.0}) + "\n")
            if self.kept:
                noted = {"step": result.steps, "scores": {"box_AP": 12.0, "box_APs": None}}
                (result.run / "scores.json").write_text(json.dumps(noted))
            return result

    for run in ask(Losing()).runs:
        assert run.results["scores"] == {"box_AP": 12.0}
        assert run.results["curve"] == [{"step": 1, "box_AP": 3.0}, {"step": 2, "box_AP": 12.0}]
    stub = Losing()
    stub.kept = False
    with pytest.raises(InputError, match=r"seed-2/log\.jsonl: lacks the scores after step 2"):
        ask(stub, seeds=(2,))
    assert not run_of(tmp_path / "out", "soco", 1, 2).with_suffix(".json").exists()


def test_a_fraction_without_a_short_decimal_is_listed_once(ask):
    table = ask(Stub(), fractions=(1 / 3, 1.0))
    assert [(row.labels["init"], len(row.runs)) for row in table.detectors.rows] == [("soco", 2), ("scratch", 2)] * 2
    assert len(table.detectors.fractions) == 2
    assert ask(Stub(), fractions=(1 / 3, 1.0)).runs == table.runs


def test_weights_that_change_between_two_runs_are_refused(ask, data, tmp_path):
    weights = tmp_path / "weights.pth"
    body = {name: torch.zeros_like(value) for name, value in _backbone(data).items()}
    torch.save(body, weights)

    class Changing(Stub):
        def __call__(self, *given, **options):
            result = super().__call__(*given, **options)
            torch.save({**body, "conv1.weight": body["conv1.weight"] + 1}, weights)
            return result

    stub = Changing()
    with pytest.raises(InputError, match=r"changed while .* was in progress"):
        ask(stub, inits=named_inits([str(weights)]))
    assert len(stub.asked) == 1


def test_datasets_without_objects_are_refused_before_the_first_run(ask, data, tmp_path):
    train, val = (json_of(data / name) for name in ("train.json", "val.json"))
    link_photographs(tmp_path)
    (tmp_path / "none.json").write_text(json.dumps({**val, "annotations": []}))
    with pytest.raises(InputError, match="none: no image has an object to find"):
        ask(Stub(), val=tmp_path / "none.json")
    difficult = open_detection_set(data / "val.json")
    marked = [dataclasses.replace(image, difficult=np.ones(len(image), bool)) for image in difficult.images]
    with pytest.raises(InputError, match="no object counts"):
        ask(Stub(), val=dataclasses.replace(difficult, images=marked))
    first = train["images"][0]["id"]
    few = [one for one in train["annotations"] if one["image_id"] == first]
    (tmp_path / "few.json").write_text(json.dumps({**train, "annotations": few}))
    inits = named_inits([str(data / "soco"), "scratch"])
    asked = {**QUIET, "val": data / "val.json", "seeds": tuple(range(6)), "fractions": (0.2,)}
    with pytest.raises(InputError, match=r"fraction 0\.2 and seed \d no image has an object to learn from"):
        compare(tmp_path / "few.json", tmp_path / "out", inits, ASKED, **asked)


def test_more_inits_seeds_and_fractions_may_come_later(ask, data, tmp_path):
    ask(Stub())
    record = run_of(tmp_path / "out", "soco", 1, 0).with_suffix(".json")
    before = record.stat().st_mtime_ns
    later = Stub()
    supervised = Init("supervised", str(data / "soco"))
    table = ask(later, inits=(supervised, Init("scratch", "scratch")), seeds=(0, 1, 2), fractions=(0.5, 1.0))
    assert record.stat().st_mtime_ns == before
    assert len(later.asked) == 3 + 3 + 3 + 1
    assert table.detectors.inits == ["soco", "scratch", "supervised"]
    assert len(table.runs) == 4 + 10


def test_epochs_give_every_seed_of_a_fraction_the_same_number_of_steps(ask):
    """Twelve passes over six images, and over three, in batches of two."""
    stub = Stub()
    ask(stub, iterations=None, epochs=12.0, fractions=(0.5, 1.0))
    assert {(fraction, steps) for _, fraction, _, steps in stub.asked} == {(0.5, 18), (None, 36)}


def test_other_settings_in_the_same_folder_are_refused(ask, data, tmp_path):
    ask(Stub())
    note = (tmp_path / "out" / "comparison.json").read_bytes()
    for other, words in (
        ({"iterations": 3}, r"--iterations \(3 now, 2 there\)"),
        ({"detector": "retinanet_fpn"}, "--detector"),
        ({"val": data / "train.json"}, r"images of the dataset to score on \(6 now, 1 there\)"),
        ({"evaluation": EvaluationSettings(every=1)}, "--evaluation.every"),
    ):
        with pytest.raises(InputError, match=f"holds a comparison of other settings: {words}"):
            ask(Stub(), **other)
    with pytest.raises(InputError, match=r"there, soco is /\S+/soco, not scratch; give these weights a name"):
        ask(Stub(), inits=(Init("soco", "scratch"),))
    assert (tmp_path / "out" / "comparison.json").read_bytes() == note
    assert all(run.finished for run in ask(Stub(), iterations=3, overwrite=True).runs)
    (tmp_path / "out" / "comparison.json").unlink()
    with pytest.raises(InputError, match="holds files that are not of a comparison"):
        ask(Stub())


def test_weights_that_changed_since_are_refused_while_a_run_needs_them(ask, data, tmp_path):
    weights = tmp_path / "weights.pth"
    body = {name: torch.zeros_like(value) for name, value in _backbone(data).items()}
    torch.save(body, weights)
    inits = named_inits([str(weights)])
    assert ask(Stub(), inits=inits).detectors.inits == ["weights"]
    torch.save({**body, "conv1.weight": body["conv1.weight"] + 1}, weights)
    assert ask(Stub(), inits=inits).detectors.inits == ["weights"]  # all runs are done
    with pytest.raises(InputError, match="no longer those that the runs of weights"):
        ask(Stub(), inits=inits, seeds=(0, 1, 2))
    weights.unlink()
    assert ask(Stub(), inits=inits).detectors.inits == ["weights"]


def test_moved_weights_are_recognised(ask, data, tmp_path):
    torch.save(_backbone(data), tmp_path / "weights.pth")
    assert len(ask(Stub(), inits=named_inits([str(tmp_path / "weights.pth")])).runs) == 2
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "weights.pth").rename(tmp_path / "moved" / "weights.pth")
    assert len(ask(Stub(), inits=named_inits([str(moved)]), seeds=(0, 1, 2)).runs) == 3
    torch.save({**_backbone(data), "conv1.weight": torch.zeros(64, 3, 7, 7)}, moved)
    with pytest.raises(InputError, match="name of their own"):
        ask(Stub(), inits=named_inits([str(moved)]), seeds=(0, 1, 2, 3))


def _backbone(data):
    state = RunFolder(data / "soco").load_checkpoint()["model"]
    prefix = "online.encoder.backbone.body."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_weights_that_do_not_fit_are_refused_before_the_first_run(ask, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    stub = Stub()
    with pytest.raises(InputError, match="init odd does not fit the detector that all share"):
        ask(stub, inits=named_inits(["scratch", str(tmp_path / "odd.pth")]))
    assert stub.asked == []
    assert not (tmp_path / "out").exists()


def test_inits_are_named_after_their_path_or_explicitly(tmp_path):
    (tmp_path / "r50.v2.pth").write_bytes(b"")
    given = [str(tmp_path / "r50.v2.pth"), f"{tmp_path}/run.1/", "scratch", "SoCo 100=runs/x", "./a=b/c"]
    assert [(init.name, init.source) for init in named_inits(given)] == [
        ("r50.v2", given[0]),
        ("run.1", given[1]),
        ("scratch", "scratch"),
        ("SoCo 100", "runs/x"),
        ("c", "./a=b/c"),
    ]
    for bad in ("=x", ".hidden=x", "a|b=x", "a\n=x"):
        with pytest.raises(InputError, match="cannot be a name"):
            named_inits([bad])


def test_mistakes_on_the_command_line_are_one_line(data, tmp_path, capsys):
    train = ["finetune", str(data / "train.json"), "--output", str(tmp_path / "x")]
    val = ["--val", str(data / "val.json")]
    for argv, words in (
        (["--seeds", "0", "1"], "give --val"),
        (["--seeds", "0", "-1", *val], "seeds.1 must be at least 0"),
        (["--init", "a/x", "--init", "b/x", *val], "init x is given twice; name them"),
        (["--fractions", "0", "1", *val], "fractions must be above 0 and at most 1, not 0"),
        (["--fractions", "1", "1", *val], "fraction 1 is given twice"),
        (["--fractions", "0.5", "--fraction", "0.5", *val], "give one of them"),
        (["--retry-diverged", *val], "--retry-diverged is for a comparison"),
        (["--detector", "yolo"], "mask_rcnn_fpn"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*train, *argv])
        assert ended.value.code == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: "))
        assert words in line
    assert not (tmp_path / "x").exists()


def test_one_init_without_seeds_or_fractions_is_a_single_run(data, tmp_path, capsys):
    argv = [str(data / "train.json"), "--output", str(tmp_path / "run"), "--init", str(data / "soco")]
    main(["finetune", *argv, *FLAGS, *HERE])
    assert "fcos_fpn finished, 2 steps" in capsys.readouterr().out
    described = json_of(tmp_path / "run" / "run.json")
    assert described["recipe"]["model"]["fpn_channels"] == 8  # like the run's
    assert not (tmp_path / "run" / "comparison.json").exists()


def test_the_command_offers_every_detector_and_schedule(capsys):
    main(["finetune", "--help-all"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"One of {', '.join([*DETECTORS, *ALIASES])}." in text
    assert f"One of {', '.join(SCHEDULES)}." in text


def test_seed_and_fraction_default_to_those_of_the_settings(data, tmp_path):
    settings = dataclasses.replace(ASKED, seed=3, fraction=0.5)
    asked = {"val": data / "val.json", **QUIET, "execution": ExecutionSettings("cpu", workers=0, max_steps=1)}
    compared = compare(data / "train.json", tmp_path / "out", [data / "soco"], settings, **asked)
    assert [run.labels for run in compared.runs] == [{"init": "soco", "fraction": 0.5, "seed": 3}]
    assert len(json_of(run_of(tmp_path / "out", "soco", 0.5, 3) / "images.json")["image_ids"]) == 3
    with pytest.raises(InputError, match="fraction"):
        compare(data / "train.json", tmp_path / "two", ["scratch"], settings, fractions=[1.0], **asked)


def test_conflicting_seed_and_seeds_are_refused(ask):
    with pytest.raises(InputError, match="--seed and --seeds"):
        ask(Stub(), seed=3, seeds=(0, 1))
    assert len(ask(Stub(), seed=1, seeds=(0, 1)).runs) == 4


def test_names_differing_only_in_case_are_refused(ask):
    with pytest.raises(InputError, match="SoCo: differs from soco only in case"):
        ask(Stub(), inits=named_inits(["soco=scratch", "SoCo=scratch"]))
    ask(Stub(), inits=named_inits(["soco=scratch"]))
    with pytest.raises(InputError, match="SoCo: differs from soco only in case"):
        ask(Stub(), inits=named_inits(["SoCo=scratch"]))


def test_an_earlier_comparison_with_such_names_resumes(ask, tmp_path):
    """Begun by an earlier version, on a case-sensitive disk."""
    inits = named_inits(["soco=scratch", "SoCo=scratch"])
    ask(Stub(), inits=inits[:1])
    file = tmp_path / "out" / "comparison.json"
    note = json_of(file)
    file.write_text(json.dumps({**note, "inits": {**note["inits"], "SoCo": note["inits"]["soco"]}}))
    assert {run.labels["init"] for run in ask(Stub(), inits=inits).runs} == {"soco", "SoCo"}
    with pytest.raises(InputError, match="SOCO"):
        ask(Stub(), inits=named_inits(["SOCO=scratch"]))


def test_an_init_takes_a_path_or_a_string(data):
    assert Init("a", data / "soco") == Init("a", str(data / "soco"))
    for wrong in ((3, "scratch"), ("a", 3)):
        with pytest.raises(ArgumentError, match="Init: "):
            Init(*wrong)
