"""Exported weights with a ResNet-50's width, loaded into torchvision's own detectors."""

import pytest
import torch
from distinct_weights import a_run, assert_filled
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    retinanet_resnet50_fpn_v2,
)

from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError
from socodet.exporting import export_run
from socodet.models.settings import ModelSettings
from socodet.weights.load import load_pretrained

R50 = ModelSettings(hidden_size=8, embedding_size=4)


@pytest.fixture(scope="module")
def run_50(tmp_path_factory):
    """A run with torchvision's sizes, its network, and the file exported from it."""
    folder = tmp_path_factory.mktemp("r50")
    soco = a_run(folder / "run", R50)
    return folder / "run", soco, export_run(folder / "run", folder / "weights.pth").weights


def test_a_file_fills_torchvisions_mask_rcnn(run_50):
    _, soco, file = run_50
    assert_filled(maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None), file, soco)


def test_the_file_is_a_plain_state_dict_for_torch_alone(run_50):
    with torch.device("meta"):
        detector = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    weights = torch.load(run_50[2], weights_only=True)
    missing, unexpected = detector.load_state_dict(weights, strict=False, assign=True)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"rpn", "roi_heads"}
    assert not any(name.startswith("roi_heads.box_head") for name in missing)


def test_our_default_mask_rcnn_is_torchvisions_except_for_one_rpn_convolution():
    with torch.device("meta"):
        theirs = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
        ours = new_detector("mask_rcnn_fpn", ModelSettings(), 91)
    shapes, expected = ({name: value.shape for name, value in net.state_dict().items()} for net in (ours, theirs))
    second = {"rpn.head.conv.1.0.weight", "rpn.head.conv.1.0.bias"}  # Detectron2 has one
    assert shapes == {name: shape for name, shape in expected.items() if name not in second}


@pytest.mark.parametrize(
    ("build", "advice"),
    [
        (maskrcnn_resnet50_fpn, r"build_detector.*_fpn_v2"),
        (retinanet_resnet50_fpn_v2, r'build_detector\(RUN, detector="retinanet_fpn"\).*--format timm'),
    ],
)
def test_a_detector_without_batch_norm_in_its_fpn_is_refused_with_advice(run_50, build, advice):
    with torch.device("meta"):
        detector = build(weights=None, weights_backbone=None)
    with pytest.raises(InputError, match=rf"backbone\.fpn\..* has no place in \w+; .*{advice}") as caught:
        load_pretrained(detector, run_50[0])
    assert "\n" not in str(caught.value)
    assert build.__name__ not in str(caught.value)


def test_only_the_backbone_fits_torchvisions_retinanet(run_50, tmp_path):
    run, soco, _ = run_50
    file = export_run(run, tmp_path / "backbone.pth", format="timm").weights
    detector = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None)
    report = load_pretrained(detector, file, show_report=False)
    assert report.loaded_modules == {"backbone.body": 318}
    body = soco.online.encoder.backbone["body"].state_dict()
    assert all(torch.equal(value, body[name]) for name, value in detector.backbone.body.state_dict().items())
