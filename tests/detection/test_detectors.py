"""Every detector, with narrow networks: it learns, predicts, and pools boxes as in pretraining."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign, roi_align

from socodet.detection.detectors.by_name import DETECTORS, new_detector
from socodet.detection.detectors.pooling import AlignedRoIAlign
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.torchvision_detector import TorchvisionDetector
from socodet.detection.detectors.transform import DetectorTransform, scale_image, scaled_size
from socodet.errors import InputError
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("narrow_networks")

TORCHVISION = [name for name, detector in DETECTORS.items() if isinstance(detector, TorchvisionDetector)]
NARROW = ModelSettings(
    backbone="resnet18", fpn_channels=16, head_convs=1, head_channels=16, representation_size=24, pooled_size=7
)
SMALL = InferenceSettings(short_side=64, max_side=96, score_threshold=0.0, detections=5, rois_per_image=16)


def a_target(masks):
    target = {"boxes": torch.tensor([[4.0, 6, 40, 50], [20, 10, 60, 60]]), "labels": torch.tensor([1, 3])}
    if masks:
        target["masks"] = torch.zeros(2, 64, 80, dtype=torch.uint8)
        target["masks"][0, 6:50, 4:40] = 1
        target["masks"][1, 10:60, 20:60] = 1
    return target


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_learn_and_predict_at_the_images_own_size(name):
    torch.manual_seed(0)
    detector = new_detector(name, NARROW, 4, inference=SMALL)
    masks = DETECTORS[name].has_masks
    losses = detector([torch.rand(3, 64, 80)], [a_target(masks)])
    assert ("loss_mask" in losses) == masks
    assert all(0 < loss.item() < math.inf for loss in losses.values()), losses
    sum(losses.values()).backward()
    without = [n for n, p in detector.named_parameters() if p.grad is None]
    assert without == []
    detector.eval()
    with torch.no_grad():
        (answer,) = detector([torch.rand(3, 200, 150)])
    assert 0 < len(answer["boxes"]) <= 5
    assert ("masks" in answer) == masks
    if masks:
        assert answer["masks"].shape == (len(answer["boxes"]), 1, 200, 150)
    assert bool((answer["boxes"] >= 0).all())
    assert bool((answer["boxes"] <= torch.tensor([150.0, 200, 150, 200]) + 1e-3).all())


@pytest.mark.parametrize("name", TORCHVISION)
def test_fused_norms_change_neither_names_nor_weights(name, monkeypatch):
    fused = new_detector(name, NARROW, 4, inference=SMALL)
    monkeypatch.setattr(type(DETECTORS[name]), "norm_layer", nn.BatchNorm2d)
    plain = new_detector(name, NARROW, 4, inference=SMALL)
    theirs = fused.state_dict()
    assert all(torch.equal(theirs.pop(key), value) for key, value in plain.state_dict().items())
    assert not theirs
    kinds = [{type(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} for network in (plain, fused)]
    assert kinds == [{nn.BatchNorm2d}, {FusedBatchNorm2d}]
    losses = []
    for network in (plain, fused):
        torch.manual_seed(0)  # for the image and the sampled regions
        found = network([torch.rand(3, 64, 80)], [a_target(DETECTORS[name].has_masks)])
        losses.append({part: loss.item() for part, loss in found.items()})
    assert losses[1] == losses[0]


@pytest.mark.parametrize("name", ["faster_rcnn_fpn", "faster_rcnn_c4"])
def test_box_head_sees_the_requested_number_of_boxes(name):
    inference = InferenceSettings(short_side=64, max_side=96, rois_per_image=3)
    detector = new_detector(name, NARROW, 4, inference=inference)
    seen = []
    detector.roi_heads.box_predictor.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    detector([torch.rand(3, 64, 80)] * 2, [a_target(masks=False)] * 2)
    with torch.no_grad():
        detector.eval()([torch.rand(3, 64, 80)])
    assert seen == [2 * 3, 6]


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (16, 2), (28, 2), (100, 10), (256, 32)])
def test_group_norms_of_fcos_divide_its_channels(channels, groups):
    """Eight channels per group as in the original, or the fewest more that divide evenly."""
    detector = new_detector("fcos_fpn", replace(NARROW, fpn_channels=channels), 4)
    norms = [module for module in detector.head.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_channels, norm.num_groups) for norm in norms} == {(channels, groups)}


def test_default_numbers_of_boxes_are_detectron2s():
    for name, before, after in (
        ("mask_rcnn_fpn", (2000, 1000), (1000, 1000)),
        ("mask_rcnn_c4", (12000, 6000), (2000, 1000)),
    ):
        detector = new_detector(name, NARROW, 4)
        assert detector.roi_heads.fg_bg_sampler.batch_size_per_image == 512
        assert tuple(detector.rpn._pre_nms_top_n.values()) == before
        assert tuple(detector.rpn._post_nms_top_n.values()) == after


def test_fewer_boxes_mean_fewer_proposals():
    detector = new_detector("faster_rcnn_fpn", NARROW, 4, inference=InferenceSettings(rois_per_image=64))
    assert detector.rpn._pre_nms_top_n == {"training": 256, "testing": 128}
    assert detector.rpn._post_nms_top_n == {"training": 1000, "testing": 128}
    with pytest.raises(InputError, match="rois_per_image must be at least 1"):
        InferenceSettings(rois_per_image=0)


@pytest.mark.parametrize("name", TORCHVISION)
def test_coordinates_stay_float32_under_bfloat16_autocast(name):
    detector = new_detector(name, NARROW, 4, inference=SMALL)
    seen = []
    generator = detector.rpn.anchor_generator if hasattr(detector, "rpn") else detector.anchor_generator
    generator.register_forward_hook(lambda _m, _i, anchors: seen.append(anchors[0].dtype))
    masks = DETECTORS[name].has_masks
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector([torch.rand(3, 64, 80)], [a_target(masks)])
    assert seen == [torch.float32]
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(math.isfinite(loss.item()) for loss in losses.values())


def test_seed_determines_the_detector_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = new_detector("fcos_fpn", NARROW, 4, seed=5)
    assert torch.equal(torch.rand(2), expected)
    second, other = (new_detector("fcos_fpn", NARROW, 4, seed=seed) for seed in (5, 6))
    name = "backbone.body.conv1.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    with pytest.raises(InputError, match="detector 'yolo': unknown; choose one of mask_rcnn_fpn"):
        new_detector("yolo", NARROW, 4)


def test_boxes_are_pooled_from_their_levels_as_in_pretraining():
    torch.manual_seed(0)
    strides = {"0": 4, "1": 8, "2": 16, "3": 32}
    maps = {name: torch.randn(2, 3, 512 // stride, 512 // stride) for name, stride in strides.items()}
    sides = torch.tensor([20.0, 111, 112, 223, 224, 400, 447.9, 448, 500])
    boxes = torch.stack([torch.full_like(sides, 3.0), torch.full_like(sides, 7.0), 3 + sides, 7 + sides], dim=1)
    given = [boxes[:4], boxes[4:]]
    levels = [0, 0, 1, 1, 2, 2, 2, 3, 3]  # k = floor(4 + log2(side / 224)): P2 below 112, P5 from 448
    pooled = AlignedRoIAlign(strides, 7)(maps, given, [(512, 512)] * 2)
    for index, level in enumerate(levels):
        image = 0 if index < 4 else 1
        roi = torch.cat([torch.tensor([float(image)]), boxes[index]])[None]
        alone = roi_align(maps[str(level)], roi, 7, 1 / 4 / 2**level, sampling_ratio=0, aligned=True)
        torch.testing.assert_close(pooled[index : index + 1], alone)
    theirs = MultiScaleRoIAlign(list(strides), 7, sampling_ratio=2)
    theirs(maps, given, [(512, 512)] * 2)
    assert theirs.map_levels(given).tolist() == levels
    none = AlignedRoIAlign(strides, 7)(maps, [torch.zeros(0, 4)] * 2, [(512, 512)] * 2)
    assert none.shape == (0, 3, 7, 7)


def test_shared_heads_predict_the_boxes_of_torchvisions_heads():
    """Without masks, averaging the shared features is an ordinary box head for torchvision's RoIHeads."""
    detector = new_detector("faster_rcnn_c4", NARROW, 4, inference=SMALL).eval()
    ours = detector.roi_heads
    averaged = nn.Sequential(ours.box_head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    theirs = RoIHeads(ours.box_roi_pool, averaged, ours.box_predictor, 0.5, 0.5, 512, 0.25, None, 0.0, 0.5, 5).eval()
    features, proposals = {"0": torch.rand(1, 256 // 8, 4, 5)}, [torch.tensor([[0.0, 0, 30, 40], [10, 10, 70, 60]])]
    with torch.no_grad():
        (one,), _ = ours(features, proposals, [(64, 80)])
        (other,), _ = theirs(features, proposals, [(64, 80)])
    for field in ("boxes", "scores", "labels"):
        torch.testing.assert_close(one[field], other[field])


def test_shared_mask_features_are_those_of_the_positive_boxes():
    """The mask branch takes the positive boxes' rows of the shared features."""
    torch.manual_seed(0)
    detector = new_detector("mask_rcnn_c4", NARROW, 4, inference=SMALL)
    heads = detector.roi_heads
    kept = []
    heads.mask_predictor.register_forward_hook(lambda _m, inputs, _o: kept.append(inputs[0]))
    heads.box_head.register_forward_hook(lambda _m, _i, output: kept.append(output))
    target = a_target(masks=True)
    far = torch.tensor([[0.0, 0, 3, 3]])
    detector.roi_heads({"0": torch.rand(1, 256 // 8, 4, 5)}, [far], [(64, 80)], [target])
    shared, of_masks = kept  # one pass of the head serves boxes and masks
    assert len(shared) == 3
    assert torch.equal(of_masks, shared[1:])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((400, 1200), (444, 1333)),
        ((1000, 700), (1143, 800)),
        ((1, 4000), (1, 1333)),
        ((4000, 1), (1333, 1)),
    ],
)
def test_images_are_scaled_to_the_short_side_within_the_limit_of_the_long_one(size, expected):
    assert scaled_size(size, 800, 1333) == expected


def test_only_images_to_predict_on_are_scaled_by_the_network():
    transform, image = DetectorTransform(SMALL), torch.rand(3, 40, 50)
    for training, size in ((True, (40, 50)), (False, (64, 80))):
        images, _ = transform.train(training)([image], [a_target(masks=False)] if training else None)
        assert images.image_sizes == [size]


def test_scaling_keeps_means_and_does_not_alias():
    stripes = torch.zeros(3, 64, 64)
    stripes[:, :, ::2] = 1
    small = scale_image(stripes, (16, 16))
    torch.testing.assert_close(small[:, :, 1:-1], torch.full((3, 16, 14), 0.5), atol=0.02, rtol=0)
    assert scale_image(stripes, (64, 64)) is stripes


@pytest.mark.parametrize("after", [(160, 1), (400, 1), (160, 2), (1, 160), (1, 1)])
@pytest.mark.parametrize("before", [(300, 1), (300, 3), (1, 300), (2, 1)])
def test_long_strips_are_scaled_as_by_pillow(before, after):
    """Down to one pixel wide."""
    strip = np.random.default_rng(0).random(before, np.float32)
    expected = np.asarray(Image.fromarray(strip).resize(after[::-1], Image.Resampling.BILINEAR))
    given = torch.from_numpy(strip).expand(3, -1, -1)
    for image in (given.contiguous(), given.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        np.testing.assert_allclose(scale_image(image, after)[1], expected, atol=1e-5)
