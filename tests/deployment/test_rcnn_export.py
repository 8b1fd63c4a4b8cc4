"""A fine-tuned R-CNN under Detectron2's and MMDetection's names, compared with facts from their public code.

Detectron2: StandardRPNHead, FastRCNNOutputLayers (K classes, the background last, boxes of K classes),
MaskRCNNConvUpsampleHead. MMDetection 3.x: RPNHead, ConvFCBBoxHead (likewise), FCNMaskHead, `init_detector`'s meta.
"""

import io
import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml

import socodet
from socodet.deployment.rcnn import detectron2_files, mmdetection_files
from socodet.deployment.torchvision import torchvision_files
from socodet.detection.detectors.rcnn_fpn import MaskRCNNFPN
from socodet.detection.detectors.transform import scaled_size
from socodet.errors import InputError
from socodet.runtime.extensions import register

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LEAVES = ("weight", "bias")


def heads(conv, norm, rpn, box, mask):
    """Their names → (our name, our rows in their order), for three classes; our background is 0."""
    facts = {}
    for theirs, ours in zip(rpn, ("conv.0.0", "cls_logits", "bbox_pred"), strict=True):
        facts |= {f"{theirs}.{leaf}": (f"rpn.head.{ours}.{leaf}", None) for leaf in LEAVES}
    for theirs, ours, rows in zip(box, ("cls_score", "bbox_pred"), ([1, 2, 3, 0], list(range(4, 16))), strict=True):
        facts |= {f"{theirs}.{leaf}": (f"roi_heads.box_predictor.{ours}.{leaf}", rows) for leaf in LEAVES}
    for number in range(4):
        facts[f"{conv(number)}.weight"] = (f"roi_heads.mask_head.{number}.0.weight", None)
        facts |= {f"{norm(number)}.{leaf}": (f"roi_heads.mask_head.{number}.1.{leaf}", None) for leaf in BN}
    for theirs, ours, rows in zip(mask, ("conv5_mask", "mask_fcn_logits"), (None, [1, 2, 3]), strict=True):
        facts |= {f"{theirs}.{leaf}": (f"roi_heads.mask_predictor.{ours}.{leaf}", rows) for leaf in LEAVES}
    return facts


DETECTRON2 = heads(
    lambda number: f"roi_heads.mask_head.mask_fcn{number + 1}",
    lambda number: f"roi_heads.mask_head.mask_fcn{number + 1}.norm",
    [f"proposal_generator.rpn_head.{part}" for part in ("conv", "objectness_logits", "anchor_deltas")],
    ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
    ["roi_heads.mask_head.deconv", "roi_heads.mask_head.predictor"],
)
MMDETECTION = heads(
    lambda number: f"roi_head.mask_head.convs.{number}.conv",
    lambda number: f"roi_head.mask_head.convs.{number}.bn",
    [f"rpn_head.{part}" for part in ("rpn_conv", "rpn_cls", "rpn_reg")],
    ["roi_head.bbox_head.fc_cls", "roi_head.bbox_head.fc_reg"],
    ["roi_head.mask_head.upsample", "roi_head.mask_head.conv_logits"],
)


def check(weights, facts, ours):
    for name, (own, rows) in facts.items():
        expected = ours[own] if rows is None else ours[own][rows]
        assert torch.equal(torch.as_tensor(weights[name]), expected), name
    transferred = [name for name in ours if name.startswith(("backbone.", "roi_heads.box_head."))]
    assert len(weights) == len(facts) + len(transferred) == len(ours)


@pytest.fixture(scope="module")
def run(detector_run):
    return detector_run("mask_rcnn_fpn")


@pytest.fixture(scope="module")
def ours(run):
    return socodet.load_detector(run, device="cpu").network.state_dict()


def test_detectron2_gets_every_tensor_and_its_config(run, ours, tmp_path):
    socodet.export_detector(run, tmp_path / "d.pkl", format="detectron2")
    content = pickle.load(io.BytesIO((tmp_path / "d.pkl").read_bytes()))
    check(content["model"], DETECTRON2, ours)
    config = yaml.safe_load((tmp_path / "d-detectron2" / "detector.yaml").read_text())
    model = config["MODEL"]
    assert (model["ROI_HEADS"]["NUM_CLASSES"], model["MASK_ON"]) == (3, True)
    assert (config["INPUT"]["MIN_SIZE_TEST"], config["INPUT"]["MAX_SIZE_TEST"]) == (96, 160)
    assert (model["RPN"]["PRE_NMS_TOPK_TEST"], model["ROI_HEADS"]["SCORE_THRESH_TEST"]) == (64, 0.05)
    assert {model[part]["NORM"] for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")} == {"BN"}
    card = (tmp_path / "d-detectron2.md").read_text()
    assert "DefaultPredictor" in card
    assert "- 0: animal\n- 1: person\n- 2: rocket\n" in card  # in the order of pred_classes


def test_mmdetection_gets_every_tensor_its_classes_and_its_config(run, ours, tmp_path):
    socodet.export_detector(run, tmp_path / "d.pth", format="mmdetection")
    content = torch.load(tmp_path / "d.pth", weights_only=True)
    assert content["meta"]["dataset_meta"]["classes"] == ["animal", "person", "rocket"]
    check(content["state_dict"], MMDETECTION, ours)
    config = {}
    exec((tmp_path / "d-mmdetection" / "detector.py").read_text(), config)
    heads = config["model"]["roi_head"]
    assert (heads["bbox_head"]["num_classes"], heads["mask_head"]["num_classes"]) == (3, 3)
    assert config["model"]["rpn_head"] == {"in_channels": 16, "feat_channels": 16}
    assert heads["bbox_head"]["norm_cfg"] == {"type": "BN", "requires_grad": True}
    assert config["model"]["test_cfg"]["rcnn"] == {"score_thr": 0.05, "max_per_img": 100}
    assert config["test_dataloader"]["dataset"]["pipeline"][1]["scale"] == (160, 96)
    assert "- 0: animal\n- 1: person\n- 2: rocket\n" in (tmp_path / "d-mmdetection.md").read_text()


def test_configs_have_the_limits_of_the_detector(run, tmp_path):
    """Not those of the frameworks for COCO."""
    detector = socodet.load_detector(run, device="cpu")
    schedule = replace(detector.recipe.schedule, score_threshold=0.01, detections=300)
    detector.recipe = replace(detector.recipe, schedule=schedule)
    (text,) = detectron2_files(detector, tmp_path / "d.pkl").configs.values()
    theirs = yaml.safe_load(text)
    assert (theirs["TEST"]["DETECTIONS_PER_IMAGE"], theirs["MODEL"]["ROI_HEADS"]["SCORE_THRESH_TEST"]) == (300, 0.01)
    (text,) = mmdetection_files(detector, tmp_path / "d.pth").configs.values()
    config = {}
    exec(text, config)
    assert config["model"]["test_cfg"] == {
        "rpn": {"nms_pre": 64, "max_per_img": 64},
        "rcnn": {"score_thr": 0.01, "max_per_img": 300},
    }


def test_a_short_side_above_the_limit_does_not_raise_it(run, tmp_path):
    """MMDetection takes the larger number as the longer side, in either order."""
    detector = socodet.load_detector(run, device="cpu")
    schedule = replace(detector.recipe.schedule, test_short_side=200)
    detector.recipe = replace(detector.recipe, schedule=schedule)
    (text,) = mmdetection_files(detector, tmp_path / "d.pth").configs.values()
    config = {}
    exec(text, config)
    scale = config["test_dataloader"]["dataset"]["pipeline"][1]["scale"]
    for height, width in ((300, 400), (100, 90)):
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))  # mmcv.rescale_size
        size = detector.recipe.inference.short_side, detector.recipe.inference.max_side
        assert scaled_size((height, width), *size) == (int(height * factor + 0.5), int(width * factor + 0.5))


def test_a_box_detector_is_exported_without_a_mask_head(detector_run, tmp_path):
    run = detector_run("faster_rcnn_fpn")
    socodet.export_detector(run, tmp_path / "d.pth", format="mmdetection")
    text = (tmp_path / "d-mmdetection" / "detector.py").read_text()
    assert "faster-rcnn_r50_fpn_1x_coco.py" in text
    assert "mask" not in text
    assert not any("mask" in name for name in torch.load(tmp_path / "d.pth", weights_only=True)["state_dict"])


@pytest.mark.parametrize(("format", "suffix"), [("detectron2", "pkl"), ("mmdetection", "pth")])
def test_other_detectors_and_suffixes_are_refused(format, suffix, detector_run, tmp_path):
    with pytest.raises(InputError, match="takes R-CNNs on a pyramid, not fcos_fpn; use format onnx"):
        socodet.export_detector(detector_run("fcos_fpn"), tmp_path / f"d.{suffix}", format=format)
    with pytest.raises(InputError, match=rf"\.{suffix}"):
        socodet.export_detector(detector_run("mask_rcnn_fpn"), tmp_path / "d.onnx", format=format)
    assert list(tmp_path.iterdir()) == []


class OtherHead(MaskRCNNFPN):
    """Builds a network that the frameworks' configs cannot describe."""

    def assemble(self, model, num_classes, inference):
        network = super().assemble(model, num_classes, inference)
        network.roi_heads.nms_thresh = 0.9
        return network


class OtherNorms(MaskRCNNFPN):
    """Their epsilon is in no tensor."""

    norm_layer = partial(torch.nn.BatchNorm2d, eps=1e-2)


class OtherSchedule(MaskRCNNFPN):
    """Builds the same network as its base class."""

    def schedule(self, name):
        return replace(super().schedule(name), lr=0.5)


@pytest.mark.parametrize(("format", "suffix"), [("detectron2", "pkl"), ("mmdetection", "pth"), ("torchvision", "pt")])
def test_a_users_detector_is_exported_only_if_its_network_is_a_standard_one(format, suffix, detector_run, tmp_path):
    detector = socodet.load_detector(detector_run("mask_rcnn_fpn"), device="cpu")
    recipe = detector.recipe
    files = {"detectron2": detectron2_files, "mmdetection": mmdetection_files, "torchvision": torchvision_files}[format]
    detector.recipe = replace(recipe, settings=replace(recipe.settings, detector=register(OtherSchedule)))
    assert files(detector, tmp_path / f"d.{suffix}").weights
    for other in (OtherHead, OtherNorms):
        detector.recipe = replace(recipe, settings=replace(recipe.settings, detector=register(other)))
        with pytest.raises(InputError, match=f"{other.__name__}; use --format onnx"):
            files(detector, tmp_path / f"d.{suffix}")


def test_the_card_of_an_rt_detr_describes_its_processing(detector_run, tmp_path):
    """Images are resized to squares, and there is no non-maximum suppression."""
    run = detector_run("rt_detr", "timm/resnet18d")
    socodet.export_detector(run, tmp_path / "d", format="transformers")
    card = (tmp_path / "d" / "README.md").read_text()
    assert "- Images are scaled to 96x96 pixels" in card
    assert "shorter side" not in card
    assert "without non-maximum suppression" in card
