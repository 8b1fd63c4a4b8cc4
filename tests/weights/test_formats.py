"""Tensor names in every format: each tensor of our networks makes a round trip."""

import pytest
import torch

from socodet.detection.detectors.by_name import DETECTORS, new_detector
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.models.architectures import build_encoder
from socodet.models.settings import ModelSettings
from socodet.models.soco import SoCo
from socodet.weights.formats import (
    Layout,
    backbone,
    detectron2,
    in_words,
    mmdetection,
    module_of,
    public_code,
    run_of,
    torchvision,
    torchvision_of,
)

with torch.device("meta"):
    FPN, C4 = (
        tuple(SoCo(build_encoder(settings), settings).state_dict())
        for settings in (ModelSettings(), ModelSettings(architecture="c4"))
    )


def plain_names(own):
    names = run_of(own)
    return [plain for name in own if (plain := names.to_plain(name))]


TORCHVISION = [name for name, detector in DETECTORS.items() if isinstance(detector, TorchvisionDetector)]


@pytest.mark.parametrize("own", [FPN, C4], ids=["FPN", "C4"])
def test_every_tensor_of_the_online_network_and_the_predictor_has_one_plain_name(own):
    names, plain = run_of(own), plain_names(own)
    ours = [name for name in own if not name.startswith("target.")]
    assert [names.from_plain(name) for name in plain] == ours
    assert len({*plain}) == len(ours)
    assert {module_of(name) for name in plain} == {"backbone", "projector", "predictor"} | (
        {"pyramid", "box head"} if own is FPN else set()
    )


FORMATS = {
    "torchvision": (torchvision(Layout()), torchvision(Layout(c4=True))),
    "a wrapped detector": (torchvision(Layout(), "module."), torchvision(Layout(c4=True), "module.")),
    "RetinaNet": (torchvision(Layout(finest=3)), torchvision(Layout(finest=3, c4=True))),
    "the public code": (public_code(), public_code()),
    "timm": (backbone(), backbone()),
    "Detectron2": (detectron2(pyramid=True, c4=False), detectron2(pyramid=False, c4=True)),
    "Detectron2, backbone": (detectron2(pyramid=False, c4=False), detectron2(pyramid=False, c4=False)),
    "MMDetection": (mmdetection(), mmdetection(c4=True)),
    "MMDetection, single-stage": (mmdetection(3), mmdetection(3)),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("own", [FPN, C4], ids=["FPN", "C4"])
def test_a_format_names_each_tensor_once_and_reads_its_own_names(name, own):
    names = FORMATS[name][own is C4]
    there = {plain: names.from_plain(plain) for plain in plain_names(own)}
    placed = {plain: theirs for plain, theirs in there.items() if theirs is not None}
    assert len({*placed.values()}) == len(placed)
    assert {plain: names.to_plain(theirs) for plain, theirs in placed.items()} == {plain: plain for plain in placed}
    assert all(plain in placed for plain in there if plain.startswith("body."))


def test_a_pyramid_beginning_at_p3_has_no_place_for_p2():
    for names in (torchvision(Layout(finest=3)), mmdetection(3)):
        assert names.from_plain("output.2.conv.weight") is None
    assert torchvision(Layout(finest=3)).to_plain("backbone.fpn.layer_blocks.0.0.weight") == "output.3.conv.weight"
    assert mmdetection(3).from_plain("output.3.norm.bias") == "neck.fpn_convs.0.bn.bias"


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        ("lateral.2.norm.bias", "module.neck.lateral_convs.0.bn.bias"),
        ("output.5.conv.weight", "module.neck.fpn_convs.3.conv.weight"),
        ("head.conv.4.norm.running_var", "module.head.bn4.running_var"),
        ("head.fc.bias", "module.head.fc1.bias"),
        ("projector.3.weight", "module.projector.linear2.weight"),
        ("body.layer4.0.downsample.1.bias", "module.encoder.layer4.0.downsample.1.bias"),
    ],
)
def test_names_of_the_public_code_are_translated(own, theirs):
    assert public_code("module.").to_plain(theirs) == own
    module, part, rest = theirs.split(".", 2)
    assert public_code("module.").to_plain(f"{module}.{part}_k.{rest}") is None


@pytest.mark.parametrize("detector", TORCHVISION)
def test_detectors_are_named_by_their_own_layout(detector):
    with torch.device("meta"):
        own = tuple(new_detector(detector, ModelSettings(head_convs=3), 4).state_dict())
    names = torchvision_of(own)
    plain = {name: names.to_plain(name) for name in own}
    assert plain["backbone.body.layer3.5.bn3.bias"] == "body.layer3.5.bn3.bias"
    if "c4" in detector:
        assert plain["roi_heads.box_head.2.bn3.bias"] == "body.layer4.2.bn3.bias"
        assert plain["roi_heads.box_head.norm.bias"] is None
    else:
        finest = 2 if "rcnn" in detector else 3
        assert plain["backbone.fpn.inner_blocks.0.1.bias"] == f"lateral.{finest}.norm.bias"
        assert plain.get("roi_heads.box_head.4.bias") == ("head.fc.bias" if "rcnn" in detector else None)
    assert all(name is None for own, name in plain.items() if own.startswith(("rpn.", "head.")))


def test_modules_are_described_in_words():
    names = ("output.3.conv.weight", "lateral.2.norm.bias", "head.fc.bias", "body.fc.weight", "predictor.0.bias")
    words = ["P3's output convolution", "P2's lateral convolution", "box head", "fc", "predictor"]
    assert [in_words(name) for name in names] == words
