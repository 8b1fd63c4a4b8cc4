"""RT-DETR in the same training loop: trained from a run, resumed bit for bit, scored, loaded and used."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from socodet.deployment.export import export_detector
from socodet.errors import InputError
from socodet.finetuning.detector import load_detector
from socodet.finetuning.finetune import finetune
from socodet.finetuning.settings import EvaluationSettings, FinetuneSettings
from socodet.models.architectures import build_encoder
from socodet.models.soco import SoCo
from socodet.pretraining.recipes import Recipe
from socodet.runtime.serialization import to_json
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

HERE = ExecutionSettings(device="cpu", workers=0, log_every=1)
SETTINGS = FinetuneSettings("rt_detr", iterations=2, batch_size=2, size=64)
MODEL = replace(NARROW, backbone="timm/resnet18d")


def saved_run(folder, model):
    torch.manual_seed(1)
    run = RunFolder(folder)
    run.write_description({"recipe": to_json(Recipe("custom", model=model))})
    run.save_checkpoint(1, {"step": 1, "model": SoCo(build_encoder(model), model).state_dict()})
    return run.path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return coco_file(folder / "set.json", masks=False), coco_file(
        folder / "val.json", ("hopper", "chelsea"), masks=False
    )


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    pretrained = saved_run(folder / "pretrained", MODEL)
    result = finetune(
        sets[0],
        folder / "run",
        SETTINGS,
        val=sets[1],
        init=pretrained,
        execution=HERE,
        evaluation=EvaluationSettings(save_predictions=True),
        show_progress=False,
    )
    return pretrained, result


def test_rt_detr_loads_a_runs_modules_and_is_scored(whole):
    _, result = whole
    assert result.finished
    assert result.report.loaded_modules.keys() == {"model.backbone", "model.encoder_input_proj"}
    assert not {"model.backbone", "model.encoder_input_proj"} & result.report.fresh_modules.keys()
    assert 0 <= result.evaluation.scores["box_AP"] <= 100
    line = next(iter(RunFolder(result.run).log_lines()))
    assert {"loss", "loss_vfl", "loss_bbox", "loss_giou"} <= line.keys()
    schedule = RunFolder(result.run).describe()["recipe"]["schedule"]
    assert (schedule["clip_norm"], schedule["ema_decay"], schedule["lr"]) == (0.1, 0.9999, 1e-4 * 2 / 16)


def test_resumed_rt_detr_run_equals_an_uninterrupted_one(sets, whole, tmp_path):
    pretrained, result = whole
    asked = {"val": sets[1], "init": pretrained, "show_progress": False}
    half = ExecutionSettings("cpu", workers=0, max_steps=1)
    assert finetune(sets[0], tmp_path / "run", SETTINGS, execution=half, **asked).steps == 1
    again = finetune(sets[0], tmp_path / "run", SETTINGS, execution=HERE, **asked)
    one, other = (RunFolder(run).load_checkpoint() for run in (result.run, again.run))
    for part in ("detector", "average"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    assert again.evaluation.scores == result.evaluation.scores


def test_loaded_rt_detr_predicts_what_was_scored(sets, whole):
    _, result = whole
    detector = load_detector(result.run, device="cpu")
    images = json.loads(sets[1].read_text())["images"]
    kept = json.loads((result.run / "predictions.json").read_text())
    for image in images:
        (found,) = detector.predict([sets[1].parent / image["file_name"]])
        theirs = [one for one in kept if one["image_id"] == image["id"]]
        assert [round(float(score), 4) for score in found.scores] == pytest.approx(
            sorted((one["score"] for one in theirs), reverse=True), abs=1e-3
        )


def test_exported_rt_detr_detects_the_same_in_transformers(whole, tmp_path):
    """With transformers' own processor; the image has the detector's side, so that nothing is scaled."""
    _, result = whole
    folder = export_detector(result.run, tmp_path / "model", format="transformers", checkpoint="last")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (found,) = load_detector(result.run, device="cpu", checkpoint="last").predict([pixels])
    model, processor = AutoModelForObjectDetection.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model.eval()(**processor(Image.fromarray(pixels), return_tensors="pt"))
    (theirs,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(64, 64)])
    for score, box, label in zip(found.scores[:20], found.boxes, found.labels, strict=False):
        close = (theirs["boxes"].clamp(0, 64) - torch.from_numpy(box)).abs().amax(1) < 0.01
        close &= (theirs["scores"] - float(score)).abs() < 1e-4  # nearly equal scores may be in another order
        assert label in {model.config.id2label[one] for one in theirs["labels"][close].tolist()}
    assert "object-detection" in (folder / "README.md").read_text()


def test_run_with_torchvisions_resnet_is_refused_in_one_line(sets, tmp_path):
    run = saved_run(tmp_path / "pretrained", NARROW)
    with pytest.raises(InputError, match="--backbone timm/resnet50d"):
        finetune(sets[0], tmp_path / "run", SETTINGS, init=run, execution=HERE, show_progress=False)
