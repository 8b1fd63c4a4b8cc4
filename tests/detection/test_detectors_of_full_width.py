"""Detectors of ResNet-50's width, on the meta device: names and shapes compared with torchvision's."""

import torch
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn

from socodet.detection.detectors.by_name import new_detector
from socodet.detection.detectors.rcnn_c4 import SharedRoIHeads
from socodet.models.settings import ModelSettings


def test_single_stage_pyramids_are_torchvisions_except_for_batch_norm_and_the_input_of_p6():
    full = ModelSettings()
    for name, theirs in (("retinanet_fpn", retinanet_resnet50_fpn), ("fcos_fpn", fcos_resnet50_fpn)):
        with torch.device("meta"):  # only names and shapes matter
            ours = new_detector(name, full, 91)
            reference = theirs(weights=None, weights_backbone=None).state_dict()
            levels = list(ours.backbone(torch.zeros(1, 3, 64, 64)))
        shapes = {n: p.shape for n, p in ours.state_dict().items()}
        other = {n: p.shape for n, p in reference.items()}
        # theirs has a convolution bias where ours has a batch norm
        norms = {n for n in shapes if n.startswith("backbone.fpn.") and "_blocks." in n and n.split(".")[4] == "1"}
        biases = {n for n in other if n.startswith("backbone.fpn.") and n.endswith(".0.bias")}
        assert shapes.keys() - norms == other.keys() - biases
        assert len(biases) == 6
        different = {n for n in shapes.keys() & other.keys() if shapes[n] != other[n]}
        assert different == ({"backbone.fpn.extra_blocks.p6.weight"} if name.startswith("retina") else set())
        assert levels == ["1", "2", "3", "p6", "p7"]


def test_extra_norm_follows_the_fifth_stage():
    with torch.device("meta"):
        detector = new_detector("faster_rcnn_c4", ModelSettings(), 5)
    head = detector.roi_heads.box_head
    assert [name for name, _ in head.named_children()] == ["0", "1", "2", "norm"]
    assert head.norm.num_features == 2048
    assert isinstance(detector.roi_heads, SharedRoIHeads)
    with torch.no_grad():
        assert head.eval()(torch.rand(2, 1024, 14, 14, device="meta")).shape == (2, 2048, 7, 7)
