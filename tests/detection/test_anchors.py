"""Anchor positions against Detectron2's formula: one stride apart at every level, for any image size."""

import pytest
import torch
from narrow_models import NARROW
from torchvision.models.detection.image_list import ImageList

from socodet.detection.detectors.by_name import new_detector

pytestmark = pytest.mark.usefixtures("narrow_networks")


def detectron2s_centres(stride, rows, columns):
    """`_create_grid_offsets` of its anchor_generator.py, with its default offset of 0."""
    x, y = torch.arange(0, columns * stride, stride), torch.arange(0, rows * stride, stride)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], dim=-1).float()


@pytest.mark.parametrize(
    ("name", "strides", "sides", "per_cell"),
    [
        ("mask_rcnn_fpn", (4, 8, 16, 32, 64), (32, 64, 128, 256, 512), 3),
        ("retinanet_fpn", (8, 16, 32, 64, 128), (32, 64, 128, 256, 512), 9),
        ("fcos_fpn", (8, 16, 32, 64, 128), (8, 16, 32, 64, 128), 1),
        ("faster_rcnn_c4", (16,), (32,), 15),
    ],
)
@pytest.mark.parametrize("size", [(160, 224), (32, 800)])  # P5 and P6 have odd sides
def test_anchors_are_one_stride_apart(name, strides, sides, per_cell, size):
    network = new_detector(name, NARROW, 4).eval()
    images = torch.zeros(1, 3, *size)
    with torch.no_grad():
        maps = list(network.backbone(images).values())
    generator = getattr(network, "rpn", network).anchor_generator
    (anchors,) = generator(ImageList(images, [size]), maps)
    for one, stride, side in zip(maps, strides, sides, strict=True):
        rows, columns = one.shape[-2:]
        here, anchors = anchors[: rows * columns * per_cell], anchors[rows * columns * per_cell :]
        here = here.reshape(rows, columns, per_cell, 4)
        centres = (here[..., :2] + here[..., 2:]) / 2
        assert torch.equal(centres, detectron2s_centres(stride, rows, columns)[:, :, None].expand_as(centres))
        areas = (here[0, 0, :, 2:] - here[0, 0, :, :2]).prod(-1).sqrt()
        assert areas.min().item() == pytest.approx(side, rel=0.02)
    assert not len(anchors)
