"""Fine-tuning narrow detectors on the shipped photographs, from the call to the scores."""

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file

import socodet.finetuning.evaluate as evaluate_module
from socodet.cli import main
from socodet.detection.datasets.layouts import open_detection_set
from socodet.detection.detectors.by_name import DETECTORS, detector_named, new_detector
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.errors import InputError, SettingError
from socodet.finetuning.detector import load_detector
from socodet.finetuning.evaluate import evaluate
from socodet.finetuning.finetune import finetune
from socodet.finetuning.samples import TrainingImages, image_stream
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.finetuning.trainer import FineTuner
from socodet.images.photographs import photographs
from socodet.models.architectures import build_encoder
from socodet.models.soco import SoCo
from socodet.pretraining.pretrain import pretrain
from socodet.pretraining.recipes import Recipe, recipe
from socodet.runtime.notices import notice
from socodet.runtime.serialization import to_json
from socodet.studies.comparison import compare
from socodet.training.devices import log_precision_note
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.training.workers import make_batches

pytestmark = pytest.mark.usefixtures("narrow_networks")

TORCHVISION = [name for name, detector in DETECTORS.items() if isinstance(detector, TorchvisionDetector)]
HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)
QUIET = {"model": NARROW, "execution": HERE, "show_progress": False}


def brief(detector, **changes):
    """Small settings: batches of two images, sides of 64 pixels, 16 boxes an image, no precise batch norm."""
    boxes = {"rois_per_image": 16} if detector_named(detector).has_box_head else {}
    return FinetuneSettings(
        detector, **{"schedule": "coco_1x", "batch_size": 2, "size": 64, "precise_bn": 0, **boxes, **changes}
    )


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(1)
    run = RunFolder(tmp_path_factory.mktemp("pretrained"))
    run.write_description({"recipe": to_json(Recipe("custom", model=NARROW))})
    run.save_checkpoint(1, {"step": 1, "model": SoCo(build_encoder(NARROW), NARROW).state_dict()})
    return run.path


@pytest.fixture
def data(tmp_path):
    return coco_file(tmp_path / "set.json")


def weights(run):
    return RunFolder(run).load_checkpoint()["detector"]


@pytest.mark.parametrize("detector", TORCHVISION)
def test_each_detector_is_trained_scored_and_resumed_to_the_same_weights(detector, data, pretrained, tmp_path):
    size = 32 if "c4" in detector else 64  # C4's head, a whole stage on 14x14 cells, is by far the most expensive
    settings = brief(detector, iterations=2, precise_bn=1, size=size)
    asked = {**QUIET, "init": pretrained}
    scored = coco_file(tmp_path / "scored.json", ("hopper", "chelsea"))
    whole = finetune(data, tmp_path / "whole", settings, val=scored, **asked)
    assert whole.finished
    assert whole.report.loaded_modules["backbone.body"] in (90, 120)
    kinds = {name.split("_")[0] for name in whole.evaluation.scores}
    assert kinds == ({"box", "mask"} if DETECTORS[detector].has_masks else {"box"})
    assert 0 <= whole.evaluation.scores["box_AP"] <= 100

    first = finetune(
        data, tmp_path / "halves", settings, **{**asked, "execution": ExecutionSettings("cpu", workers=0, max_steps=1)}
    )
    assert (first.steps, first.stopped_by, first.evaluation) == (1, "max_steps", None)
    second = finetune(data, tmp_path / "halves", settings, val=scored, **asked)
    assert second.finished
    assert second.report is None  # resumes from the checkpoint
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert second.evaluation.scores == whole.evaluation.scores


def test_init_may_be_named_and_detectors_have_the_papers_names(data, pretrained, tmp_path, capsys):
    flags = [
        "--detector",
        "fcos_r50_fpn",
        "--iterations",
        "1",
        "--batch-size",
        "2",
        "--size",
        "32",
        "--precise-bn",
        "0",
    ]
    flags += ["--device", "cpu", "--workers", "0", "--output", str(tmp_path / "run")]
    main(["finetune", str(data), "--init", f"soco={pretrained}", *flags])
    assert "loaded" in capsys.readouterr().err
    described = RunFolder(tmp_path / "run").describe()
    assert described["start"]["from"] == str(pretrained)
    assert described["recipe"]["settings"]["detector"] == "fcos_fpn"


@pytest.mark.parametrize(
    ("recipe", "flags", "whole", "says"),
    [
        ("auto", [], False, "--all-modules loads all"),
        ("auto", ["--all-modules"], True, None),
        ("auto", ["--backbone-only"], False, None),
        ("tiny", [], True, "--backbone-only;"),
        ("tiny", ["--all-modules"], True, None),
        ("tiny", ["--backbone-only"], False, None),
    ],
)
def test_of_a_short_run_of_the_recipe_auto_only_the_backbone_is_loaded(
    recipe, flags, whole, says, data, pretrained, tmp_path, capsys
):
    shutil.copytree(pretrained, tmp_path / "short")
    run = RunFolder(tmp_path / "short")
    run.write_description({"recipe": to_json(Recipe(recipe, model=NARROW)), "images": {"count": 100}})
    flags = [*flags, "--detector", "fcos_fpn", "--iterations", "1", "--batch-size", "2", "--size", "32"]
    flags += ["--precise-bn", "0", "--device", "cpu", "--workers", "0", "--output", str(tmp_path / "run")]
    main(["finetune", str(data), "--init", str(run.path), *flags])
    printed = capsys.readouterr().err
    for advice in ("--all-modules loads all", "--backbone-only;"):
        assert (advice in printed) is (advice == says)
    loaded, *_ = (line for line in printed.splitlines() if line.startswith("  loaded"))
    assert ("backbone.fpn" in loaded) is whole
    recorded = RunFolder(tmp_path / "run").describe()["start"]["loaded"]
    assert recorded == ("backbone.body, backbone.fpn" if whole else "backbone.body")


def test_a_resumed_run_is_not_advised_to_load_other_modules(data, pretrained, tmp_path, capsys):
    shutil.copytree(pretrained, tmp_path / "short")
    RunFolder(tmp_path / "short").write_description(
        {"recipe": to_json(Recipe("tiny", model=NARROW)), "images": {"count": 100}}
    )
    flags = ["--detector", "fcos_fpn", "--iterations", "2", "--batch-size", "2", "--size", "32", "--precise-bn", "0"]
    command = ["finetune", str(data), "--init", str(tmp_path / "short"), *flags, "--device", "cpu", "--workers", "0"]
    for steps, advised in (("1", True), ("2", False)):
        notice.cache_clear()
        main([*command, "--output", str(tmp_path / "run"), "--max-steps", steps])
        assert ("--backbone-only;" in capsys.readouterr().err) is advised


def test_a_folder_called_scratch_is_not_taken_for_initial_weights(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    there = {**QUIET, "model": None, "execution": replace(HERE, max_steps=1)}
    asked = brief("fcos_fpn", iterations=1, size=32)
    assert finetune(data, tmp_path / "run", asked, **there).report is None


def test_both_flags_for_modules_are_refused():
    with pytest.raises(SettingError, match="--all-modules"):
        FinetuneSettings(backbone_only=True, all_modules=True)


def test_rois_per_image_are_used_and_kept_for_evaluation(data, tmp_path, monkeypatch, capsys):
    finetune(data, tmp_path / "run", brief("faster_rcnn_fpn", iterations=1, rois_per_image=5), **QUIET)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["settings"]["rois_per_image"] == 5
    made = []
    monkeypatch.setattr(evaluate_module, "score", lambda detector, *_, **__: made.append(detector))
    evaluate(tmp_path / "run", data, execution=HERE)
    assert "trained on 6 of its 6 images" in capsys.readouterr().err
    assert made[0].roi_heads.fg_bg_sampler.batch_size_per_image == 5


def test_loss_falls(tmp_path):
    data = coco_file(tmp_path / "set.json", ("hopper", "chelsea", "rocket"))
    settings = brief("retinanet_fpn", batch_size=3, base_lr=0.3, iterations=20)
    result = finetune(data, tmp_path / "run", settings, **QUIET)
    losses = [line["loss"] for line in RunFolder(result.run).log_lines()]
    assert losses[-1] < 0.85 * losses[0]


class Lines(list):
    """A log sink."""

    def write(self, step, line):
        self.append({"step": step, **line})

    def close(self):
        pass


def test_run_folder_holds_settings_and_results(data, tmp_path, capsys):
    evaluation = EvaluationSettings(every=1, save_predictions=True)
    settings = brief("fcos_fpn", iterations=2, precise_bn=1, fraction=0.5)
    run = tmp_path / "run"
    sink = Lines()
    result = finetune(data, run, settings, val=data, evaluation=evaluation, sinks=[sink], **QUIET)
    description = json.loads((run / "run.json").read_text())
    schedule = description["recipe"]["schedule"]
    assert (schedule["iterations"], schedule["batch_size"], schedule["lr"]) == (2, 2, 0.01 / 8)
    assert schedule["clip_norm"] == 35.0
    assert (description["data"]["images"], description["start"]) == (3, None)
    assert len(json.loads((run / "images.json").read_text())["image_ids"]) == 3
    written = json.loads((run / "scores.json").read_text())
    assert (written["step"], written["images"]) == (2, 6)
    assert written["scores"] == result.evaluation.scores
    assert {name: one["objects"] for name, one in written["classes"].items()} == {"animal": 2, "person": 3, "rocket": 2}
    lines = list(RunFolder(run).log_lines())
    assert sink == lines
    assert [line["step"] for line in lines if "box_AP" in line] == [1, 2]
    parts = [line for line in lines if "loss" in line]
    assert [line["step"] for line in parts] == [1, 2]
    for line in parts:
        of_parts = line["loss_classification"] + line["loss_bbox_regression"] + line["loss_bbox_ctrness"]
        assert math.isclose(line["loss"], of_parts, rel_tol=1e-6)
    found = json.loads((run / "predictions.json").read_text())
    assert {entry["category_id"] for entry in found} <= {10, 20, 30}

    again = evaluate(run, data, checkpoint="last", output=tmp_path / "s.json", execution=HERE)
    assert "trained on 3 of its 6 images" in capsys.readouterr().err
    assert again.scores == result.evaluation.scores
    assert json.loads((tmp_path / "s.json").read_text())["scores"] == again.scores
    with pytest.raises(InputError, match=r"s\.json: exists; give another name or pass --overwrite"):
        evaluate(run, data, output=tmp_path / "s.json", execution=HERE, show_progress=False)
    with pytest.raises(InputError, match="is a folder"):
        evaluate(run, data, save_predictions=tmp_path, execution=HERE, show_progress=False)


def test_evaluations_without_a_validation_set_are_refused_before_training(data, tmp_path):
    for evaluation in (EvaluationSettings(every=1), EvaluationSettings(save_predictions=True)):
        with pytest.raises(InputError, match=r"no validation split.*--val"):
            finetune(data, tmp_path / "run", evaluation=evaluation, **QUIET)
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingError, match="every must be at least 1, not 0"):
        EvaluationSettings(every=0)


def test_dataset_without_masks_trains_the_detector_without_masks(tmp_path, capsys):
    data = coco_file(tmp_path / "set.json", masks=False)
    settings = brief("mask_rcnn_fpn", iterations=1)
    result = finetune(data, tmp_path / "run", settings, model=NARROW, execution=HERE)
    assert result.detector == "faster_rcnn_fpn"
    assert "has boxes and no masks; faster_rcnn_fpn is trained" in capsys.readouterr().err
    assert not any("mask" in name for name in weights(result.run))


def test_bfloat16_is_suggested_once_for_any_number_of_runs(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    log_precision_note.cache_clear()
    for name in ("one", "other"):
        finetune(data, tmp_path / name, brief("fcos_fpn", iterations=1), model=NARROW, execution=HERE)
    assert capsys.readouterr().err.count("--precision bfloat16") == 1


def test_commands_that_would_lose_a_run_are_refused(data, tmp_path):
    settings = brief("fcos_fpn", iterations=1)
    finetune(data, tmp_path / "run", settings, **QUIET)
    with pytest.raises(InputError, match="holds a finished run"):
        finetune(data, tmp_path / "run", settings, **QUIET)
    assert finetune(data, tmp_path / "run", settings, resume=True, **QUIET).finished
    with pytest.raises(InputError, match=r"--seed \(1 now, 0 there\)"):
        finetune(data, tmp_path / "run", replace(settings, seed=1), **QUIET)
    other = coco_file(tmp_path / "other.json", ("hopper", "chelsea"))
    with pytest.raises(InputError, match=r"images of the annotated dataset \(2 now, 6 there\)"):
        finetune(other, tmp_path / "run", settings, **QUIET)
    assert finetune(other, tmp_path / "run", settings, overwrite=True, **QUIET).finished
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds files that are not of a run"):
        finetune(data, tmp_path / "full", settings, **QUIET)
    with pytest.raises(InputError, match="not a run"):
        evaluate(tmp_path / "full", data)


def test_backbone_only_needs_weights_with_more_than_a_backbone(data, pretrained, tmp_path):
    settings = brief("faster_rcnn_fpn", iterations=1, backbone_only=True)
    found = finetune(data, tmp_path / "run", settings, init=pretrained, **QUIET)
    assert [*found.report.loaded_modules] == ["backbone.body"]
    for init in ("scratch", tmp_path / "run"):
        with pytest.raises(InputError, match="--backbone-only"):
            finetune(data, tmp_path / "other", settings, init=init, **QUIET)
    assert not (tmp_path / "other").exists()


def test_divergence_is_one_line_that_says_how_to_fix_it(data, tmp_path):
    with pytest.raises(InputError, match=r"diverged by step \d+ .*lower --base-lr") as caught:
        finetune(data, tmp_path / "run", brief("retinanet_fpn", iterations=12, base_lr=1e9), **QUIET)
    assert "\n" not in str(caught.value)


def test_batch_too_small_for_batch_norm_is_one_line(tmp_path):
    """A square image of 32 pixels has a single cell of stride 32."""
    data = coco_file(tmp_path / "set.json", ("astronaut",), masks=False)
    with pytest.raises(InputError, match=r"a batch of 1 image .*; raise --batch-size or --size$"):
        finetune(data, tmp_path / "run", brief("fcos_fpn", iterations=1, batch_size=1, size=32), **QUIET)


def test_images_with_only_crowds_are_not_trained_on(tmp_path):
    data = coco_file(tmp_path / "set.json", ("hopper", "chelsea", "rocket"), crowd=("hopper",))
    settings = brief("fcos_fpn", epochs=2.0)
    assert finetune(data, tmp_path / "run", settings, **QUIET).total_steps == 2  # 2 images, 2 epochs, batches of 2
    crowds = coco_file(tmp_path / "crowds.json", ("hopper",), crowd=("hopper",))
    with pytest.raises(InputError, match="has an object to learn from"):
        finetune(crowds, tmp_path / "none", settings, **QUIET)


def without_objects(file, *image_ids):
    """Removes the objects of these images from the COCO file."""
    content = json.loads(file.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] not in image_ids]
    file.write_text(json.dumps(content))
    return file


def test_images_without_objects_are_counted_and_kept_on_request(tmp_path, capsys):
    data = without_objects(coco_file(tmp_path / "set.json"), 1, 2, 3, 4)
    asked = {"model": NARROW, "execution": HERE}
    finetune(data, tmp_path / "a", brief("retinanet_fpn", iterations=1), **asked)
    assert re.search(r"4 of 6 images without an object.*astronaut\.jpg.*--keep-empty", capsys.readouterr().err)
    finetune(data, tmp_path / "b", brief("retinanet_fpn", epochs=1, keep_empty=True), **asked)
    assert re.search(r"4 of 6 images without an object are trained on", capsys.readouterr().err)
    assert RunFolder(tmp_path / "b").load_checkpoint()["step"] == 3  # six images in batches of two


@pytest.mark.parametrize("detector", ["mask_rcnn_fpn", "retinanet_fpn", "fcos_fpn"])
def test_batch_without_objects_can_be_trained_on(detector, tmp_path):
    data = without_objects(coco_file(tmp_path / "set.json"), 1, 2, 3, 4, 5)
    settings = brief(detector, size=32, epochs=1, keep_empty=True)  # two of the three batches have no object
    finetune(data, tmp_path / "run", settings, **QUIET)
    losses = [line["loss"] for line in RunFolder(tmp_path / "run").log_lines() if "loss" in line]
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))


def test_compiling_keeps_names_weights_and_precise_batch_norm(tmp_path):
    alike = coco_file(tmp_path / "set.json", ("astronaut", "cameraman"))  # same size: compiled once
    data = open_detection_set(alike).with_objects()
    settings = brief("mask_rcnn_fpn", iterations=4).resolved_schedule()
    rcnn = detector_named("mask_rcnn_fpn")
    images, stream = TrainingImages(data, rcnn, settings, seed=0), image_stream(data, settings, seed=0)

    def trained(compile):
        torch.manual_seed(0)
        network = new_detector(rcnn.name, NARROW, 4)
        tuner = FineTuner(network, rcnn, settings, ExecutionSettings("cpu", compile=compile), compiler="eager")
        for step in range(2):
            loader = make_batches(images.batch, map(stream.batch, range(step, step + 1)), 0)
            tuner.step(next(iter(loader)))
        tuner.reestimate(make_batches(images.batch, map(stream.batch, range(2)), 0))
        return tuner.network.state_dict()

    plain = trained(False)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = trained(True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert compiled.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, msg=name)


class OneNumber(torch.nn.Module):
    """A detector with the loss w²/2, whose gradient is w."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([3.0]))

    def forward(self, images, targets):
        return {"loss_a": self.weight.square().sum() / 2}


def test_step_is_sgd_by_hand():
    from socodet.finetuning.samples import DetectionBatch

    settings = ScheduleSettings(4, lr=0.1, warmup_iterations=0, drops=(0.5, 0.75), weight_decay=0.01, clip_norm=1.0)
    tuner = FineTuner(OneNumber(), detector_named("faster_rcnn_fpn"), settings, HERE)
    weight, momentum = 3.0, 0.0
    for rate in (0.1, 0.1, 0.01, 0.001):
        tuner.step(DetectionBatch([], []))
        gradient = min(weight, 1.0) + 0.01 * weight  # clipped, then decayed
        momentum = 0.9 * momentum + gradient
        weight -= rate * momentum
        assert tuner.network.weight.item() == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize("compared", [False, True])
def test_run_resumes_after_its_init_run_is_gone(compared, pretrained, data, tmp_path):
    """The sizes of the detector's modules came from that run, and no flag states them."""
    shutil.copytree(pretrained, tmp_path / "old")
    flags = ["--iterations", "2", "--batch-size", "2", "--device", "cpu", "--workers", "0", "--precise-bn", "0"]
    flags += ["--detector", "fcos_fpn", "--size", "32", "--val", str(data), "--output", str(tmp_path / "new")]
    flags += ["--init", f"mine={tmp_path / 'old'}", "--seeds", "0", "1"] if compared else ["--init", f"{tmp_path}/old"]
    main(["finetune", str(data), *flags, "--max-steps", "1"])
    (tmp_path / "old").rename(tmp_path / "gone")
    main(["finetune", str(data), *flags])
    runs = [RunFolder(run.parent) for run in (tmp_path / "new").rglob("run.json")]
    assert [load_detector(run.path).step for run in runs] == [2] * (2 if compared else 1)


def test_overwriting_the_init_of_a_run_is_refused(pretrained, data, tmp_path):
    """Not by the run itself, a comparison around it, or pretraining from a table inside its own run."""
    old = shutil.copytree(pretrained, tmp_path / "old")
    there = sorted(old.rglob("*"))
    for output in (old, tmp_path / "link"):
        output.exists() or output.symlink_to(old)
        with pytest.raises(InputError, match="would delete"):
            finetune(data, output, brief("fcos_fpn", iterations=1), init=old, overwrite=True, **QUIET)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(InputError, match="would delete"):
        compare(data, tmp_path, [str(old)], brief("fcos_fpn", iterations=1), val=data, overwrite=True, **QUIET)
    for given in ({"start_from": old}, {"proposals": old / "proposals.parquet"}):
        with pytest.raises(InputError, match="would delete"):
            pretrain(photographs(), recipe("tiny"), old, overwrite=True, **given)
    assert sorted(old.rglob("*")) == there


def test_online_proposals_are_not_taken_for_a_file_that_would_be_deleted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="batch"):  # larger than the set of images
        pretrain(photographs(), recipe("tiny").with_(epochs=0.01), ".", proposals="online", overwrite=True)


def test_run_beside_other_files_can_be_overwritten(data, tmp_path):
    settings = brief("fcos_fpn", iterations=1)
    run = RunFolder(finetune(data, tmp_path / "run", settings, **QUIET).run)
    (run.path / "notes.txt").write_text("mine")
    again = finetune(data, run.path, replace(settings, seed=1), overwrite=True, **QUIET)
    assert again.finished
    assert (run.path / "notes.txt").read_text() == "mine"


def test_run_resumes_after_it_and_its_init_were_moved(pretrained, data, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(pretrained, here / "soco")
    settings = brief("fcos_fpn", iterations=2)
    execution = replace(HERE, max_steps=1)
    asked = {**QUIET, "execution": execution, "model": None}
    assert finetune(data, here / "run", settings, init=here / "soco", **asked).steps == 1
    here.rename(there)
    shutil.copytree(there / "soco", there / "other")
    other = RunFolder(there / "other")
    state = other.load_checkpoint()
    other.save_checkpoint(state["step"], {**state, "step": state["step"] + 1})
    with pytest.raises(InputError, match="--init"):
        finetune(data, there / "run", settings, init=there / "other", **asked)
    assert finetune(data, there / "run", settings, init=there / "soco", **asked).finished
