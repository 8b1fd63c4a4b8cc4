"""RT-DETR starting from a detector saved by transformers: at first it detects the same, then it is trained."""

from dataclasses import replace

import pytest
import torch
from narrow_models import NARROW
from photograph_sets import coco_file
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrImageProcessor, RTDetrV2ForObjectDetection

from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.errors import InputError
from socodet.finetuning.finetune import finetune
from socodet.finetuning.run import FinetuneRecipe
from socodet.finetuning.settings import FinetuneSettings
from socodet.models.rt_detr import rt_detr_config
from socodet.training.run_folder import RunFolder
from socodet.training.settings import ExecutionSettings
from socodet.weights.load import load_pretrained
from socodet.weights.pretrained_run import model_settings

pytestmark = pytest.mark.usefixtures("narrow_networks")

SIDE = 64
SEEN = InferenceSettings(short_side=SIDE, max_side=SIDE, score_threshold=0.0, detections=20)
MODEL = replace(NARROW, backbone="timm/resnet18d")


def saved(folder, version, labels=3):
    """Saves a transformers detector with frozen norms and unnormalised pixels, like the original."""
    torch.manual_seed(3)
    config = rt_detr_config(18, 16, num_labels=labels, num_queries=84)
    if version == 1:
        fields = config.to_dict()
        known = RTDetrConfig().to_dict().keys() & fields.keys() - {"backbone_config", "model_type"}
        sizes = {name: fields[name] for name in known}
        model = RTDetrForObjectDetection(RTDetrConfig(backbone_config=config.backbone_config, **sizes))
    else:
        model = RTDetrV2ForObjectDetection(config)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith(("running_var", "norm.weight", "normalization.weight")) and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    RTDetrImageProcessor(do_normalize=False, size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("version", [1, 2])
def test_detections_match_transformers_before_training(tmp_path, version):
    theirs = saved(tmp_path / "model", version)
    network = new_detector("rt_detr", model_settings(tmp_path / "model"), 4, inference=SEEN).eval()
    report = load_pretrained(network, tmp_path / "model", show_report=False)
    assert not any(name for name in report.fresh if "n_points_scale" not in name)
    image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    processor = RTDetrImageProcessor.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        output = theirs(pixel_values=image[None])
        (answer,) = network([image])
    (found,) = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(SIDE, SIDE)])
    torch.testing.assert_close(answer["scores"], found["scores"][:20], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer["boxes"], found["boxes"][:20].clamp(0, SIDE), atol=0.01, rtol=1e-3)


def test_other_classes_get_fresh_heads_and_are_trained(tmp_path):
    saved(tmp_path / "model", 2, labels=80)
    data = coco_file(tmp_path / "set.json", masks=False)
    settings = FinetuneSettings("rt_detr", iterations=1, batch_size=2, size=SIDE)
    execution = ExecutionSettings(device="cpu", workers=0)
    result = finetune(
        data, tmp_path / "run", settings, init=tmp_path / "model", execution=execution, show_progress=False
    )
    assert result.finished
    heads = {"model.enc_score_head", "model.denoising_class_embed", "model.decoder"}
    assert heads <= result.report.fresh_modules.keys()
    assert "model.decoder_input_proj" in result.report.loaded_modules
    recipe = FinetuneRecipe.of_run(RunFolder(result.run))
    assert (recipe.model.backbone, recipe.model.fpn_channels) == ("timm/resnet18d", 16)
    state = RunFolder(result.run).load_checkpoint()["detector"]
    assert torch.equal(state["pixel_mean"], torch.zeros(3))


def test_folder_that_is_not_a_detector_is_one_line(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="neither a ResNet nor"):
        model_settings(tmp_path / "model")
    network = new_detector("rt_detr", MODEL, 4, inference=SEEN)
    with pytest.raises(InputError, match="no weights"):
        load_pretrained(network, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="transformers reads no detector there"):
        load_pretrained(network, tmp_path / "model")
