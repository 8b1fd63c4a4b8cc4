"""Backbones by name: timm's networks in the encoders, and names that are refused."""

import sys

import pytest
import timm
import torch
import torchvision
from torch import nn

from socodet.detection.detectors.by_name import new_detector
from socodet.errors import InputError, SettingError
from socodet.models.architectures import build_encoder
from socodet.models.backbones import STRIDES, build_backbone, stage_outputs
from socodet.models.encoders import FPNEncoder
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.settings import ModelSettings
from socodet.pretraining.lars import parameter_groups
from socodet.runtime import extensions
from socodet.training.distributed import synchronize_batch_norm
from socodet.views.batch import group_by_level

NARROW = {"fpn_channels": 8, "head_convs": 1, "head_channels": 8, "representation_size": 12}
CONVNEXT = ModelSettings(backbone="timm/convnext_atto", **NARROW)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return FPNEncoder(CONVNEXT)


def test_convnext_pyramid_has_the_right_strides_and_all_gradients(encoder):
    pixels = torch.randn(2, 3, 64, 96)
    assert [tuple(p.shape) for p in encoder.pyramid(pixels)] == [
        (2, 8, 64 // stride, 96 // stride) for stride in (4, 8, 16, 32)
    ]
    boxes = torch.tensor([[[0.0, 0, 20, 20], [4, 4, 60, 60]], [[8, 8, 40, 50], [1, 0, 90, 64]]])
    h = encoder(pixels, group_by_level(boxes, torch.tensor([[0, 1], [2, 3]])))
    assert h.shape == (4, 12)
    h.square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    assert encoder.backbone["body"]["stages_0"].blocks[0].gamma.grad.abs().sum() > 0
    encoder.zero_grad()


def test_convnext_body_is_timms_with_its_names(encoder):
    prefix = "backbone.body."
    body = {name.removeprefix(prefix): v for name, v in encoder.state_dict().items() if name.startswith(prefix)}
    theirs = timm.create_model("convnext_atto", features_only=True)
    theirs.load_state_dict(body)  # strict: all names and shapes
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, wanted in zip(encoder.stages(pixels), theirs(pixels), strict=True):
            torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "efficientnet_b0"])
def test_networks_with_five_levels_give_the_last_four(name):
    body, channels = build_backbone(f"timm/{name}")
    assert body.training
    outputs = stage_outputs(body, torch.randn(2, 3, 64, 64))
    assert [tuple(output.shape) for output in outputs] == [
        (2, width, 64 // stride, 64 // stride) for width, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    timm.create_model(name, features_only=True).load_state_dict(body.state_dict())


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_resnets_are_torchvisions_without_the_classifier(depth):
    with torch.device("meta"):
        body, channels = build_backbone(f"resnet{depth}")
        theirs = torchvision.models.get_model(f"resnet{depth}")
    shapes = {name: value.shape for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in body.state_dict().items()} == shapes
    assert channels[-1] == theirs.fc.in_features


def test_mask_rcnn_takes_the_encoders_weights(encoder):
    detector = new_detector("mask_rcnn_fpn", CONVNEXT, 3).eval()
    theirs = detector.state_dict()
    for name, value in encoder.state_dict().items():
        theirs[f"roi_heads.{name}" if name.startswith("box_head.") else name].copy_(value)
    encoder.eval()
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels = detector.backbone(pixels)
        for level, ours in enumerate(encoder.pyramid(pixels)):
            torch.testing.assert_close(levels[str(level)], ours)
        assert levels["pool"].shape == (1, 8, 1, 2)
        assert set(detector([torch.rand(3, 70, 90)])[0]) == {"boxes", "labels", "scores", "masks"}
    encoder.train()


def test_layer_norms_biases_and_layer_scales_get_neither_decay_nor_trust_ratio(encoder):
    weights, rest = parameter_groups(encoder, 0.1)
    spared = {id(p) for p in rest["params"]}
    kinds = dict.fromkeys(("gamma", "LayerNorm", "bias", "matrix"), 0)
    for module in encoder.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, nn.LayerNorm | nn.BatchNorm2d)
            kind = "LayerNorm" if is_norm else name if name in ("gamma", "bias") else "matrix"
            kinds[kind] += 1
            assert (id(parameter) in spared) == (kind != "matrix"), (module, name)
    assert kinds["gamma"] == 12  # one per block, 2 + 2 + 6 + 2
    assert kinds["LayerNorm"] == 2 * (1 + 3 + 12 + 8 + 1)  # stem, downsampling, blocks; batch norms of FPN and head
    assert len(weights["params"]) + len(rest["params"]) == sum(kinds.values())


def test_synchronised_batch_norm_leaves_layer_norms_alone():
    network = FPNEncoder(CONVNEXT)
    before = {name: module for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)}
    synchronize_batch_norm(network)
    after = dict(network.named_modules())
    assert len(before) == 16
    assert all(after[name] is module for name, module in before.items())
    assert sum(isinstance(module, FusedBatchNorm2d) and module.synchronized for module in after.values()) == 9


def test_timm_networks_keep_layer_norms_and_fused_batch_norms_synchronise():
    network = FPNEncoder(CONVNEXT, FusedBatchNorm2d)
    before = dict(network.named_modules())
    assert sum(isinstance(module, nn.LayerNorm) for module in before.values()) == 16
    synchronize_batch_norm(network)
    assert before == dict(network.named_modules())
    norms = [module for module in before.values() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 9
    assert all(norm.synchronized for norm in norms)


@pytest.mark.parametrize("architecture", ["c5", "image"])
def test_architectures_of_table_4_run_on_convnext(architecture):
    encoder = build_encoder(ModelSettings(architecture=architecture, backbone="timm/convnext_atto"))
    rois = group_by_level(torch.tensor([[[0.0, 0, 50, 60]]] * 2), torch.zeros(2, 1, dtype=torch.int64))
    assert encoder(torch.randn(2, 3, 64, 64), rois).shape == (2, 320)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"backbone": "resnet5"}, r"not resnet5; did you mean resnet50"),
        ({"backbone": "timm/convnext_tinny"}, r"did you mean timm/convnext_tiny"),
        ({"backbone": "timm/convnext_tiny.fb_in1k"}, r"without the tag of pretrained weights.*timm/convnext_tiny"),
        ({"backbone": "convnext_tiny"}, r"must be one of resnet18.* timm/NAME, or module:name, not convnext_tiny"),
        ({"backbone": "timm/convnext_tiny", "architecture": "c4"}, r"architecture c4 must have a ResNet"),
    ],
)
def test_unknown_backbones_are_refused_in_one_line(fields, problem):
    with pytest.raises(SettingError, match=problem) as caught:
        ModelSettings(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("vit_tiny_patch16_224", "gives no feature maps of 64x96 images"),
        ("swin_tiny_patch4_window7_224", "gives no feature maps of 64x96 images"),
    ],
)
def test_networks_without_feature_maps_are_refused_in_one_line(name, problem):
    with pytest.raises(InputError, match=problem) as caught:
        build_backbone(f"timm/{name}")
    assert "\n" not in str(caught.value)


class Maps(nn.Module):
    """Maps of these strides."""

    def __init__(self, *strides):
        super().__init__()
        self.strides = strides

    def forward(self, pixels):
        return [pixels[:, :, ::stride, ::stride] for stride in self.strides]


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (2, 4, 8, 16), (8, 16, 32), (4, 8, 16, 64)])
def test_backbones_need_maps_of_the_four_strides(strides, monkeypatch):
    monkeypatch.setattr(extensions, "_REGISTERED", {"mine:maps": lambda: Maps(*strides)})
    if strides == STRIDES:
        assert build_backbone("mine:maps")[1] == [3] * 4
        return
    with pytest.raises(InputError, match="strides 4, 8, 16 and 32"):
        build_backbone("mine:maps")


def test_missing_timm_is_an_error_that_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'socodet\[timm\]'"):
        ModelSettings(backbone="timm/convnext_tiny")
    assert ModelSettings(backbone="resnet34").backbone == "resnet34"
