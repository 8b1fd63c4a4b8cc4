"""`reproduce own-data` on the shipped photographs: every start, equal compute, lengths, resuming, and tables."""

import dataclasses
import json
import math
import re
import shutil

import numpy as np
import pytest
import timm
import torch
from photograph_sets import OBJECTS, coco_file, link_photographs

from socodet.cli import main
from socodet.commands.flags import flags_of
from socodet.commands.reproduce_own_data import reproduce_own_data as own_data_command
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.datasets.subsets import mini_dataset
from socodet.errors import InputError, SettingError
from socodet.finetuning.settings import FinetuneSettings
from socodet.images.photographs import photographs
from socodet.images.reading import PixelSettings, read_images_as
from socodet.images.source import open_images
from socodet.pretraining import step_time
from socodet.pretraining.recipes.auto import plan
from socodet.pretraining.recipes.choices import Given
from socodet.pretraining.recipes.practical import tiny
from socodet.pretraining.recipes.whole_images import image_level_recipe
from socodet.pretraining.step_time import flops_per_image
from socodet.pretraining.survey import ImageSurvey, Machine
from socodet.studies.own_data.prepare import starts_to_record
from socodet.studies.own_data.protocol import OwnDataSettings, Start, Weights, start_names, starts
from socodet.studies.own_data.results import OwnData
from socodet.studies.own_data.running import reproduce_own_data
from socodet.studies.runner import Job, JobResult, Study
from socodet.studies.table import Paired
from socodet.training.learner import DivergedError
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("figures_unrendered")

SMALL = OwnDataSettings(
    steps=2,
    backbone="timm/test_resnet",
    size=32,
    shortest=1,
    longest=2,
    finetuning=FinetuneSettings("faster_rcnn_fpn", "voc_24k", batch_size=2, size=32, rois_per_image=4, precise_bn=0),
)
CPU = ExecutionSettings("cpu", workers=0)
OWN = ["scratch", "image", "soco", "soco_backbone", "soco_paper"]
GIVEN = ["imagenet", "imagenet_soco", "imagenet_image"]


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Counts the arithmetic of each recipe once, instead of in every study."""
    known = {}

    def count(recipe, source):
        key = repr(recipe), source.location, len(source)
        if key not in known:
            known[key] = flops_per_image(recipe, source)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_time, "flops_per_image", count)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    coco_file(folder / "train.json")
    coco_file(folder / "val.json", ("rocket",))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "classifier.pth"
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), path)
    return Weights(path, "timm/test_resnet")


@pytest.fixture(scope="module")
def done(data, weights, tmp_path_factory):
    output = tmp_path_factory.mktemp("study") / "out"
    given = {"weights": weights, "fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    return reproduce_own_data(data, output, SMALL, **given)


def test_every_start_is_pretrained_and_fine_tuned(done, data):
    assert done.stopped_by is None
    found = json.loads((done.study.folder / "results.json").read_text())
    assert [one["start"] for one in found] == OWN + GIVEN
    for one in found:
        assert (one["set"], one["fraction"], one["fold"]) == (data.name, 1.0, 0)
        assert 0 <= one["AP"] <= one["AP50"] <= 100
        assert one["steps"] == found[0]["steps"]
        assert one["curve"][-1] == [one["steps"], one["AP"]]
    assert {one["start"] for one in found if one["pretraining_steps"]} == {*OWN, *GIVEN} - {"scratch", "imagenet"}
    assert (done.study.folder / "iterations.svg").stat().st_size > 0
    text = done.markdown.read_text()
    assert "soco − scratch" in text
    assert "imagenet_soco − imagenet" in text


def test_starts_differ_only_in_the_settings_they_are_named_for(done, weights):
    recipes, begun = {}, {}
    for run in sorted((done.study.folder / "pretrain").iterdir()):
        if run.is_dir():
            described = json.loads((run / "run.json").read_text())
            recipes[run.name], begun[run.name] = described["recipe"], described.get("start")
    assert recipes["soco"]["objective"]["variance_weight"] > 0
    assert recipes["soco_paper"]["objective"]["variance_weight"] == 0
    assert {**recipes["soco"], "objective": 0} == {**recipes["soco_paper"], "objective": 0}
    assert recipes["image"]["model"]["architecture"] == "image"
    kept = recipes["imagenet_soco"].pop("training")  # its backbone is the same here
    assert kept == {**recipes["soco"].pop("training"), "backbone_lr": 0.0}
    assert recipes["imagenet_image"]["training"]["backbone_lr"] == 0.1  # at 0 it would learn nothing
    assert recipes["imagenet_soco"] == recipes["soco"]
    assert begun["soco"] is None
    assert begun["imagenet_soco"]["from"] == begun["imagenet_image"]["from"] == str(weights.path)


def test_the_backbone_alone_comes_from_the_same_pretraining(done):
    by_start = {one["start"]: one for one in json.loads((done.study.folder / "results.json").read_text())}
    for name in ("pretraining_steps", "pretraining_minutes"):
        assert by_start["soco_backbone"][name] == by_start["soco"][name] is not None
    folder = done.study.folder / "finetune" / "fraction-1" / "fold-0"
    whole, alone = (json.loads((folder / name / "run.json").read_text()) for name in ("soco", "soco_backbone"))
    assert alone["start"]["sha256"] == whole["start"]["sha256"]
    assert [one["recipe"]["settings"]["backbone_only"] for one in (whole, alone)] == [False, True]
    assert "soco_backbone − soco " in done.markdown.read_text()


def test_a_second_call_repeats_nothing_and_may_add_folds(done, data, weights, monkeypatch):
    kept = {path: path.stat().st_mtime_ns for path in done.study.folder.rglob("fold-0/*.json")}
    assert kept
    monkeypatch.setattr("socodet.studies.pretraining_runs.pretrain", lambda *_, **__: pytest.fail("pretrained again"))
    monkeypatch.setattr("socodet.studies.own_data.prepare.build_soco", lambda *_: pytest.fail("weights checked again"))
    more = {"weights": weights, "fractions": (1.0,), "folds": (0, 3), "only": ["scratch", "soco"], "execution": CPU}
    again = reproduce_own_data(data, done.study.folder, SMALL, **more, show_progress=False)
    assert kept == {path: path.stat().st_mtime_ns for path in done.study.folder.rglob("fold-0/*.json")}
    assert {(one["start"], one["fold"]) for one in again.as_json()} == {
        *((name, 0) for name in OWN + GIVEN),
        ("scratch", 3),
        ("soco", 3),
    }


def test_settings_newer_than_the_study_take_their_defaults(done, data, weights, tmp_path):
    """As if it had begun before `backbone_lr` and `rise` existed, and when datasets were named by file alone."""
    folder = tmp_path / "begun"
    shutil.copytree(done.study.folder, folder)
    note = json.loads((folder / "own_data.json").read_text())
    del note["asked"]["settings"]["rise"]
    del note["starts"]["soco"]["recipe"]["training"]["backbone_lr"]
    del note["reading"]
    for part in ("train", "val"):
        note["asked"][part]["name"] = part
    (folder / "own_data.json").write_text(json.dumps(note))
    given = {"weights": weights, "fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    again = reproduce_own_data(data, folder, SMALL, **given).as_json()
    assert [one for one in again if one in done.as_json()] == done.as_json()
    with pytest.raises(InputError, match="rise"):
        reproduce_own_data(data, folder, dataclasses.replace(SMALL, rise=0.2), **given)


def test_a_reworded_description_does_not_make_another_start(tmp_path):
    """As after an update of socodet that changed only the wording: the study resumes with the new text."""
    noted = starts_to_record(tmp_path, [Start("soco", "as before", tiny())], {})
    again = starts_to_record(tmp_path, [Start("soco", "as now", tiny())], noted)
    assert again == {"soco": {**noted["soco"], "what": "as now"}}
    other = dataclasses.replace(tiny(), training=dataclasses.replace(tiny().training, seed=1))
    with pytest.raises(InputError, match="another recipe"):
        starts_to_record(tmp_path, [Start("soco", "as before", other)], noted)


def test_other_weights_under_the_same_name_are_refused(done, data, tmp_path):
    """Otherwise runs of different experiments would be averaged. Nothing is written."""
    kept = {path: path.stat().st_mtime_ns for path in done.study.folder.rglob("*")}
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "other.pth")
    asked = {"fractions": (1.0,), "folds": (4,), "execution": CPU, "show_progress": False}
    with pytest.raises(InputError, match="imagenet began with other weights"):
        reproduce_own_data(
            data, done.study.folder, SMALL, weights=Weights(tmp_path / "other.pth", "timm/test_resnet"), **asked
        )
    assert kept == {path: path.stat().st_mtime_ns for path in done.study.folder.rglob("*")}


def test_images_read_differently_are_refused(done, data, weights):
    asked = {"weights": weights, "fractions": (1.0,), "folds": (4,), "execution": CPU, "show_progress": False}
    kept = {path: path.stat().st_mtime_ns for path in done.study.folder.rglob("*")}
    with read_images_as(PixelSettings(bands=(3, 2, 1))), pytest.raises(InputError, match=r"bands .*3 2 1 now"):
        reproduce_own_data(data, done.study.folder, SMALL, **asked)
    assert kept == {path: path.stat().st_mtime_ns for path in done.study.folder.rglob("*")}


def test_a_part_without_objects_in_the_fold_used_for_the_length_search_is_refused(data, tmp_path):
    train = json.loads((data / "train.json").read_text())
    parts = {
        seed: mini_dataset(open_detection_set(data / "train.json"), 0.2, seed).images[0].image_id for seed in range(9)
    }
    fold = next(seed for seed, image in parts.items() if image != parts[0])
    train["annotations"] = [one for one in train["annotations"] if one["image_id"] == parts[fold]]
    link_photographs(tmp_path)
    (tmp_path / "train.json").write_text(json.dumps(train))
    shutil.copy(data / "val.json", tmp_path)
    asked = {"fractions": (0.2,), "folds": (fold,), "only": ["scratch"], "execution": CPU, "show_progress": False}
    with pytest.raises(InputError, match=r"fraction 0\.2 and seed 0 no image"):
        reproduce_own_data(tmp_path, tmp_path / "out", SMALL, **asked)
    assert not (tmp_path / "out").exists()


def test_a_study_goes_on_with_the_plan_of_its_beginning(done, data, monkeypatch):
    """Also where `auto` would plan otherwise now, on another machine or in another version."""
    asked = {"fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    note = done.study.folder / "own_data.json"
    before = json.loads(note.read_text())["starts"]
    monkeypatch.setattr("socodet.studies.own_data.running.starts", _with_a_higher_rate)
    monkeypatch.setattr("socodet.studies.pretraining_runs.pretrain", lambda *_, **__: pytest.fail("pretrained again"))
    again = reproduce_own_data(data, done.study.folder, SMALL, **asked)
    assert {row.labels["init"] for row in again.detectors.rows} == {*OWN, *GIVEN}
    after = json.loads(note.read_text())["starts"]
    assert {*OWN, *GIVEN} <= set(after)
    assert {name: one["recipe"] for name, one in after.items()} == {name: before[name]["recipe"] for name in after}


def _with_a_higher_rate(*asked):
    """As if `auto` made another plan on this machine."""
    scratch, image, *others = starts(*asked)
    training = dataclasses.replace(image.recipe.training, base_lr=9.0)
    return (scratch, dataclasses.replace(image, recipe=dataclasses.replace(image.recipe, training=training)), *others)


def test_a_later_call_without_the_weights_keeps_their_rows(done, data):
    asked = {"fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    again = reproduce_own_data(data, done.study.folder, SMALL, **asked)
    assert {row.labels["init"] for row in again.detectors.rows} == {*OWN, *GIVEN}


def test_a_single_possible_length_needs_no_search(data, tmp_path):
    """With shortest and longest equal, only the requested starts are fine-tuned, so scratch only on request."""
    one = dataclasses.replace(SMALL, longest=1)
    asked = {"fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    reproduce_own_data(data, tmp_path / "out", one, only=["soco"], **asked)
    assert [path.parents[1].name for path in tmp_path.rglob("best.pt")] == ["soco"]
    found = reproduce_own_data(data, tmp_path / "out", one, only=["scratch", "soco"], **asked)
    assert {(row["start"], row["steps"]) for row in found.as_json()} == {("scratch", 1), ("soco", 1)}


def test_a_stopped_study_resumes(data, tmp_path):
    few = dataclasses.replace(CPU, max_steps=1)
    asked = {"fractions": (1.0,), "folds": (0,), "only": ["scratch", "soco"], "show_progress": False}
    first = reproduce_own_data(data, tmp_path / "out", SMALL, execution=few, **asked)
    assert first.stopped_by == "max_steps"
    assert first.pretraining["soco"].status == "step 1 of 2"
    second = reproduce_own_data(data, tmp_path / "out", SMALL, execution=CPU, **asked)
    assert second.stopped_by is None
    assert {one["start"] for one in second.as_json()} == {"scratch", "soco"}


def test_a_study_resumes_after_its_dataset_was_moved(tmp_path):
    """To a folder with another name, in the middle of every run; the weights equal those of an uninterrupted study."""
    (tmp_path / "before").mkdir()
    coco_file(tmp_path / "before" / "train.json")
    coco_file(tmp_path / "before" / "val.json", ("rocket",))
    (tmp_path / "before" / ".photographs").unlink()
    shutil.copytree(photographs(), tmp_path / "before" / ".photographs")
    few = dataclasses.replace(CPU, max_steps=1)
    asked = {"fractions": (1.0,), "folds": (0,), "only": ["soco"], "show_progress": False}
    whole = reproduce_own_data(tmp_path / "before", tmp_path / "whole", SMALL, execution=CPU, **asked)
    first = reproduce_own_data(tmp_path / "before", tmp_path / "out", SMALL, execution=few, **asked)
    assert first.pretraining["soco"].status == "step 1 of 2"
    (tmp_path / "before").rename(tmp_path / "after")
    again = reproduce_own_data(tmp_path / "after", tmp_path / "out", SMALL, execution=CPU, **asked)
    (found,), (expected,) = again.as_json(), whole.as_json()
    unlike = {"pretraining_minutes"}
    assert {**found, **dict.fromkeys(unlike)} == {**expected, **dict.fromkeys(unlike)}
    states = [RunFolder(tmp_path / name / "pretrain" / "soco").load_checkpoint()["model"] for name in ("out", "whole")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_another_dataset_at_the_former_path_or_elsewhere_is_refused(done, weights, tmp_path):
    """With other labels, or the same number of images with other names."""
    given = {"weights": weights, "fractions": (1.0,), "folds": (0, 1), "execution": CPU, "show_progress": False}
    for folder, names in (("labels", list(OBJECTS)[::-1]), ("images", list(OBJECTS))):
        (tmp_path / folder).mkdir()
        coco_file(tmp_path / folder / "train.json", names)
        coco_file(tmp_path / folder / "val.json", ("rocket",))
    file = tmp_path / "images" / "train.json"
    annotated = json.loads(file.read_text())
    for image in annotated["images"]:
        image["file_name"] = f"copies/{image['id']}.jpg"
    file.write_text(json.dumps(annotated))
    (tmp_path / "images" / "copies").mkdir()
    for image, name in zip(annotated["images"], OBJECTS, strict=True):
        shutil.copy(photographs() / f"{name}.jpg", tmp_path / "images" / image["file_name"])
    kept = {path: path.read_bytes() for path in done.study.folder.rglob("*.json")}
    for folder, refused in (("labels", "contents of the training set"), ("images", "other images")):
        with pytest.raises(InputError, match=refused) as caught:
            reproduce_own_data(tmp_path / folder, done.study.folder, SMALL, **given)
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in done.study.folder.rglob("*.json")} == kept


def test_the_image_level_baseline_gets_the_same_compute_as_soco():
    source = open_images(photographs())
    survey = ImageSurvey(len(source), len(source), 240, 0.0, 0.0)
    settings = OwnDataSettings(steps=1000, backbone="timm/test_resnet", size=32, pretraining_seed=7)
    by_name = {start.name: start.recipe for start in starts(settings, None, source, survey, Machine("cpu", 0.0))}
    steps = {
        name: by_name[name].training.steps(by_name[name].training.epochs, len(source)) for name in ("soco", "image")
    }
    cost = {name: flops_per_image(by_name[name], source) for name in steps}
    assert steps["soco"] == 1000
    assert steps["image"] > 1000
    assert steps["image"] * cost["image"] == pytest.approx(steps["soco"] * cost["soco"], rel=0.01)
    assert by_name["image"].training.base_lr == by_name["soco"].training.base_lr
    assert [view.size for view in by_name["image"].sample.views] == [32, 32]
    assert [by_name[name].training.seed for name in steps] == [7, 7]


def test_a_backbone_with_initial_weights_is_frozen_or_trained_slowly(weights):
    source = open_images(photographs())
    survey = ImageSurvey(len(source), len(source), 240, 0.0, 0.0)
    every = {start.name: start for start in starts(SMALL, weights, source, survey, Machine("cpu", 0.0))}
    assert sorted(every) == sorted(start_names(weights))
    begun, adapted = every["imagenet_soco"], every["imagenet_soco_adapted"]
    assert (begun.recipe.training.backbone_lr, adapted.recipe.training.backbone_lr) == (0, 0.1)
    training = dataclasses.replace(adapted.recipe.training, backbone_lr=0.0)
    assert dataclasses.replace(adapted.recipe, training=training) == begun.recipe
    assert adapted.start_from == begun.start_from == weights.path
    assert adapted.on_request


def test_the_arithmetic_of_a_step_matches_a_count_by_hand():
    """The image-level baseline's layers, counted from the network: both networks forward twice, one backward."""
    source = open_images(photographs())
    survey = ImageSurvey(len(source), len(source), 240, 0.0, 0.0)
    soco = plan(survey, Machine("cpu", 0.0), Given(steps=10, backbone="timm/test_resnet", size=32)).recipe
    recipe = image_level_recipe(soco)
    network = timm.create_model("test_resnet", features_only=True).eval()
    products = []

    def count(layer, inputs, output):
        products.append(2 * output[0].numel() * layer.weight[0].numel())

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 3, 32, 32))
    backbone = sum(products)
    # Two views, each forward through both networks; the online network's backward pass costs two forward passes, minus
    # the unneeded gradient with respect to the image.
    expected = 2 * (2 * backbone + 2 * backbone - products[0])
    heads = 0
    sizes = [(network.feature_info.channels()[-1], recipe.model.hidden_size)]
    sizes += [(recipe.model.hidden_size, recipe.model.embedding_size)]
    for inner, outer in sizes:
        heads += 2 * (2 * inner * outer) * 4  # projector: two views, forward in both, backward in one
    for inner, outer in ((recipe.model.embedding_size, recipe.model.hidden_size), sizes[1]):
        heads += 2 * (2 * inner * outer) * 3  # predictor: online alone
    assert flops_per_image(recipe, source) == pytest.approx(expected + heads, rel=0.02)


def made_up(folder, figures):
    """A study with these APs of folds 0, 1, …, by start and fraction; halfway, each is 2.5 lower. NaN: diverged."""

    def ended(ap):
        if math.isnan(ap):
            raise DivergedError("the loss is NaN", 7)
        points = [{"step": 10, "box_AP": ap - 2.5}, {"step": 20, "box_AP": ap}]
        return JobResult({"steps": 20, "scores": {"box_AP": ap, "box_AP50": 2 * ap}, "curve": points})

    study = Study(folder, "own_data", show_progress=False)
    sets = {
        "set": "mine",
        "train": {"name": "mine", "images": 100},
        "val": {"name": "val", "images": 9},
        "images": {"count": 100},
    }
    study.begin(sets, [])
    jobs = [
        Job(
            f"finetune/{start}-{fraction}-{fold}",
            {"init": start, "fraction": fraction, "seed": fold},
            "",
            lambda _, ap=ap: ended(ap),
        )
        for (start, fraction), folds in figures.items()
        for fold, ap in enumerate(folds)
    ]
    study.run(jobs, lambda: None)
    return OwnData(study, SMALL, dict.fromkeys(OWN, ""), study.outcomes(jobs))


def test_only_folds_that_both_starts_have_are_compared(tmp_path):
    """Fold 0, the only one that SoCo has, is an easy one; there SoCo is worse than scratch."""
    figures = {("scratch", 0.1): (30.0, 10.0, 10.0), ("scratch", 0.25): (40.0, 20.0, 20.0), ("soco", 0.1): (29.0,)}
    found = made_up(tmp_path / "out", figures)
    assert found.labels_worth("soco", 0.1) is None
    (row,) = [row for row in found.detectors.at(0.1) if row.labels["init"] == "soco"]
    assert found.detectors.reaches_scratch_at(row) is None
    # An incomplete fraction does not count: 14 is 30% of the way from 11 at 10% to 21 at 100%, on a log scale.
    figures = {("scratch", 0.1): (10.0, 12.0), ("scratch", 0.25): (14.0,), ("scratch", 1.0): (20.0, 22.0)}
    found = made_up(tmp_path / "under_way", {**figures, ("soco", 0.1): (13.0, 15.0)})
    assert found.labels_worth("soco", 0.1) == pytest.approx(0.1 * 10**0.3)


def test_an_ap_of_zero_is_worth_no_labels(tmp_path):
    """Scratch also has an AP of 0 at 5% of the labels. And the AP of its smallest fraction is worth that fraction."""
    figures = {("scratch", 0.05): (0.0,), ("scratch", 0.1): (0.0,), ("scratch", 1.0): (9.0,), ("soco", 0.1): (0.0,)}
    assert made_up(tmp_path / "nothing", figures).labels_worth("soco", 0.1) is None
    figures = {("scratch", 0.05): (10.0,), ("scratch", 0.1): (8.0,), ("soco", 0.1): (10.0,)}
    assert made_up(tmp_path / "falling", figures).labels_worth("soco", 0.1) == 0.05


def test_a_result_whose_folder_is_gone_is_still_shown(tmp_path):
    found = made_up(tmp_path / "out", {("scratch", 0.1): (10.0,), ("soco", 0.1): (13.0,)})
    found.write()  # as every call does with its result
    before = found._repr_html_(), str(found), found.as_json()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert (found._repr_html_(), str(found), found.as_json()) == before


def test_diverged_runs_are_in_the_table(tmp_path):
    nan = math.nan
    figures = {("scratch", 0.1): (10.0, 12.0, 0.0), ("soco", 0.1): (13.0, nan, 4.0), ("image", 0.1): (nan, nan, nan)}
    found = made_up(tmp_path / "out", figures)
    rows = [line.split(" | ") for line in found.as_markdown().splitlines() if line.startswith("| ")]
    cells = {row[0].strip("| "): row[1:] for row in rows}
    assert cells["soco"][0] == f"{np.mean([13, 4]):.2f} ± {np.std([13, 4], ddof=1):.2f}"
    assert cells["soco"][2] == "13.0, diverged, 4.0"
    assert cells["image"][:3] == ["–", "–", "diverged, diverged, diverged"]
    assert cells["soco − scratch"][1] == "2"  # folds
    (third,) = [one for one in found.as_json() if (one["start"], one["fold"]) == ("soco", 2)]
    assert third["steps_to_scratch"] is None  # an AP of 0 is reached without training


def test_a_failed_length_search_is_reported(tmp_path):
    def diverges(_):
        raise DivergedError("the loss is NaN", 7)

    found = made_up(tmp_path / "out", {})
    length = Job("length/fraction-0.1", {"length": 0.1}, "", diverges)
    scratch = Job("s", {"init": "scratch", "fraction": 0.1, "seed": 0}, "", diverges, needs=(length.name,))
    found.study.run([length, scratch], lambda: None)
    found = dataclasses.replace(found, outcomes=found.study.outcomes([length, scratch]))
    assert "diverged at step 7" in found.as_markdown().split("## 10% of the labels")[1]


def test_the_headline_does_not_attribute_other_images_to_the_dataset(tmp_path):
    found = made_up(tmp_path / "out", {("scratch", 0.1): (10.0,)})
    assert found.headline() == "Pretraining on 100 images of mine"
    note = json.loads(found.study.note.read_text())
    note["asked"]["images"]["names_sha256"] = "3f"
    found.study.note.write_text(json.dumps(note))
    found = dataclasses.replace(found)
    assert "100 images of mine" not in found.headline()


def test_the_page_has_no_empty_table_and_only_requested_starts(tmp_path):
    alone = made_up(tmp_path / "alone", {("scratch", 0.1): (10.0,)})
    both = made_up(tmp_path / "both", {("scratch", 0.1): (10.0,), ("soco", 0.1): (13.0,)})
    for found, names, tables in ((alone, {"scratch"}, 1), (both, {"scratch", "soco"}, 2)):
        section = found.as_markdown().split("## 10% of the labels")[1].splitlines()
        rules = [at for at, line in enumerate(section) if line.startswith("| ---")]
        assert len(rules) == tables
        assert all(section[at + 1].startswith("| ") for at in rules)
        assert {line[2:].split(":")[0] for line in found.as_markdown().splitlines() if line.startswith("- ")} == names
        assert found._repr_html_().count("<table") == tables


def test_tables_match_figures_worked_out_by_hand(tmp_path):
    """Differences by fold, their interval from SciPy, and the worth in labels by interpolation."""
    figures = {
        ("scratch", 0.1): (10.0, 12.0, 11.0),
        ("soco", 0.1): (13.0, 14.0, 15.5),
        ("image", 0.1): (13.5, 13.0, 15.0),
        ("scratch", 1.0): (20.0, 21.0, 22.0),
        ("soco", 1.0): (25.0, 26.0, 27.0),
    }
    found = made_up(tmp_path / "out", figures)
    paired = found.difference("soco", "scratch", 0.1)
    assert paired.differences == (3.0, 2.0, 4.5)
    from scipy import stats  # of which the import takes a second

    expected = stats.t.interval(0.95, 2, np.mean([3, 2, 4.5]), stats.sem([3, 2, 4.5]))
    assert paired.interval == pytest.approx(expected, abs=1e-3)
    assert paired.verdict == "above"
    assert found.difference("soco", "image", 0.1).verdict == "no clear difference"
    assert found.difference("soco", "image", 1.0) is None
    # Scratch rises from 11 to 21 between 10% and 100%; SoCo's 14.17 is 31.7% of the way, on a log scale.
    assert found.labels_worth("soco", 0.1) == pytest.approx(0.1 * 10 ** ((np.mean([13, 14, 15.5]) - 11) / 10))
    assert math.isinf(found.labels_worth("soco", 1.0))
    objects = {(one["start"], one["fraction"], one["fold"]): one for one in found.as_json()}
    assert objects["soco", 0.1, 0]["steps_to_scratch"] == 10  # 10.5 after 10 steps, above scratch's 10
    assert objects["soco", 0.1, 1]["steps_to_scratch"] == 20
    assert objects["scratch", 0.1, 0]["steps_to_scratch"] == 20
    notebook = found._repr_html_()
    for cell in ("scratch", "10.0, 12.0, 11.0", "26.00 ± 1.00", "soco − scratch", "above"):  # SoCo: 25, 26, 27
        assert f">{cell}</t" in notebook


@pytest.mark.parametrize("pairs", [*range(2, 20), 31, 200])
def test_intervals_follow_students_t(pairs):
    values = np.random.default_rng(pairs).normal(0.3, 1, pairs)
    from scipy import stats  # of which the import takes a second

    expected = stats.t.interval(0.95, pairs - 1, values.mean(), stats.sem(values))
    assert Paired(tuple(values)).interval == pytest.approx(expected, abs=1e-3)


def test_a_single_pair_has_no_interval():
    assert Paired((5.0,)).interval is None
    assert Paired((5.0,)).verdict == "no clear difference"


def test_wrong_settings_are_one_line(data, tmp_path, capsys):
    with pytest.raises(SettingError, match="iterations"):
        OwnDataSettings(finetuning=FinetuneSettings(iterations=5))
    with pytest.raises(SettingError, match="weights-name"):
        Weights(tmp_path, "resnet18", "soco")
    with pytest.raises(SettingError, match="weights-name"):
        Weights(tmp_path, "resnet18", "SoCo")
    with pytest.raises(InputError, match="no such start"):
        reproduce_own_data(data, tmp_path / "o", SMALL, only=["sooc"], execution=CPU, show_progress=False)
    with pytest.raises(InputError, match=r"fractions must be .* different"):  # both would use the same folder
        reproduce_own_data(data, tmp_path / "o", SMALL, fractions=(1 / 3, 0.333333), show_progress=False)
    assert not (tmp_path / "o").exists()
    for flags in (["--weights", str(tmp_path)], ["--data", str(tmp_path / "none")]):
        with pytest.raises(SystemExit) as ended:
            main(["reproduce", "own-data", "--data", str(data), "--output", str(tmp_path / "o"), *flags])
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_refused_call_neither_deletes_nor_creates_anything(done, data, weights, tmp_path):
    folder = tmp_path / "begun"
    shutil.copytree(done.study.folder, folder)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    call = {"fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    wrong = {
        "backbone must be": {"weights": Weights(weights.path, "resnet19")},
        "no place in this network": {"weights": Weights(weights.path, "resnet18")},
        "CUDA": {"execution": ExecutionSettings("cuda")} if not torch.cuda.is_available() else None,
    }
    for match, given in wrong.items():
        if given is None:
            continue
        for output in (folder, tmp_path / "new"):
            with pytest.raises((InputError, SettingError), match=match):
                reproduce_own_data(data, output, SMALL, overwrite=True, **{**call, **given})
        assert not (tmp_path / "new").exists()
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == kept


def test_a_start_that_has_not_begun_may_change(data, weights, tmp_path):
    """As after a mistake that the first call detected early."""
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "other.pth")
    call = {"fractions": (1.0,), "folds": (0,), "only": ["scratch"], "execution": CPU, "show_progress": False}
    for path in (tmp_path / "other.pth", weights.path):
        asked = {**call, "weights": Weights(path, "timm/test_resnet")}
        assert reproduce_own_data(data, tmp_path / "o", SMALL, **asked).stopped_by is None


def test_weights_are_checked_before_the_first_run_from_them(data, weights, tmp_path, monkeypatch):
    """Only then, after the pretraining images have been listed."""
    wrong = Weights(weights.path, "resnet18")
    call = {"fractions": (1.0,), "folds": (0,), "execution": CPU, "show_progress": False}
    folder = tmp_path / "o"
    reproduce_own_data(data, folder, SMALL, only=["scratch"], weights=wrong, **call)
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for only in ("imagenet", "imagenet_soco"):
        with pytest.raises(InputError, match="no place in this network"):
            reproduce_own_data(data, folder, SMALL, only=[only], weights=wrong, **call)
    assert kept == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    def pretrain(*_, **__):
        assert len((folder / "images.txt").read_text().splitlines()) == len(OBJECTS)
        raise InputError("pretraining begins")

    (folder / "images.txt").unlink()
    monkeypatch.setattr("socodet.studies.pretraining_runs.pretrain", pretrain)
    with pytest.raises(InputError, match="pretraining begins"):
        reproduce_own_data(data, folder, SMALL, only=["imagenet_soco"], weights=weights, **call)


def test_the_advice_on_a_missing_validation_split_names_existing_flags(data, tmp_path):
    with pytest.raises(InputError, match="validation split") as raised:
        reproduce_own_data(data / "train.json", tmp_path / "out", SMALL, execution=CPU, show_progress=False)
    named = set(re.findall(r"--[a-z][\w.-]*", str(raised.value)))
    assert named
    assert named <= {name for flag in flags_of(own_data_command) for name in flag.names}


def test_a_start_on_request_joins_the_others(done, data, weights):
    asked = {"weights": weights, "fractions": (1.0,), "folds": (0,), "only": ["soco_rpn"], "execution": CPU}
    found = reproduce_own_data(data, done.study.folder, SMALL, **asked, show_progress=False)
    assert "soco_rpn" in {one["start"] for one in found.as_json()}
    one, other = (
        json.loads((done.study.folder / "pretrain" / name / "run.json").read_text())["recipe"]
        for name in ("soco", "soco_rpn")
    )
    assert other["model"] == {**one["model"], "rpn_weight": 1.0}
    assert other["training"] == one["training"]
    assert "soco_rpn − soco" in found.markdown.read_text()


def test_unknown_figures_are_left_out(tmp_path):
    """A missing fold keeps its column, and results at half of the labels imply nothing about all of them."""
    figures = {("scratch", 0.1): (10.0, 12.0, 11.0), ("scratch", 0.5): (20.0, 21.0, 22.0)}
    found = made_up(tmp_path / "\udcfe out", {**figures, ("soco", 0.1): (13.0,), ("soco", 0.5): (25.0, 26.0, 27.0)})
    rows = {(fraction, row[0]): row for fraction in (0.1, 0.5) for row in found._rows(fraction)}
    assert rows[0.1, "soco"][3] == "13.0, –, –"
    assert rows[0.1, "scratch"][3] == "10.0, 12.0, 11.0"
    worth = 0.1 * 5 ** (3 / 10)  # 13 is 3/10 of the way from fold 0's 10 to its 20
    assert rows[0.1, "soco"][5] == f"{100 * worth:.1f}%" == "16.2%"
    assert rows[0.5, "soco"][5] == "more than 50%"
    found = made_up(tmp_path / "all", {("scratch", 0.1): (1.0,), ("scratch", 1.0): (2.0,), ("soco", 1.0): (3.0,)})
    assert found._rows(1.0)[1][5] == "more than there are"
