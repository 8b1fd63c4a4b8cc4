import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork, roi_align

from socodet.models.pyramid import pool_boxes, pyramid_levels
from socodet.views.batch import group_by_level

CHANNELS, SIZES = [4, 6, 8, 10], [28, 14, 7, 4]


def features() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, c, s, s) for c, s in zip(CHANNELS, SIZES, strict=True)]


def test_needed_levels_match_torchvisions_pyramid():
    maps = features()
    for needed in (
        [True] * 4,
        [False, True, False, True],
        [False, False, False, True],
        [True, False, False, False],
    ):
        fpn = FeaturePyramidNetwork(CHANNELS, 5, norm_layer=nn.BatchNorm2d).eval()
        expected = list(fpn({str(i): m for i, m in enumerate(maps)}).values())
        for level, (ours, theirs) in enumerate(zip(pyramid_levels(fpn, maps, needed), expected, strict=True)):
            if needed[level]:
                torch.testing.assert_close(ours, theirs)
            else:
                assert ours is None


def test_unused_outputs_are_not_computed():
    fpn = FeaturePyramidNetwork(CHANNELS, 5, norm_layer=nn.BatchNorm2d).train()
    pyramid_levels(fpn, features(), [False, False, True, False])
    ran = {name for name, buffer in fpn.named_buffers() if name.endswith("num_batches_tracked") and int(buffer)}
    assert ran == {f"{block}.1.num_batches_tracked" for block in ("inner_blocks.2", "inner_blocks.3", "layer_blocks.2")}


def test_boxes_are_pooled_from_their_levels_in_image_and_box_order():
    torch.manual_seed(1)
    maps = [torch.randn(2, 3, s, s) for s in SIZES]
    boxes = torch.tensor(
        [
            [[0, 0, 30, 40], [10, 5, 100, 90], [3, 3, 60, 50]],
            [[50, 60, 112, 112], [0, 0, 112, 112], [1, 2, 20, 30]],
        ]
    ).float()
    levels = torch.tensor([[2, 3, 0], [1, 3, 0]])
    pooled = pool_boxes(maps, group_by_level(boxes, levels), 7)
    assert pooled.shape == (6, 3, 7, 7)
    for image in range(2):
        for k in range(3):
            level = int(levels[image, k])
            alone = roi_align(maps[level][image][None], [boxes[image, k][None]], 7, 1 / 4 / 2**level, -1, True)
            torch.testing.assert_close(pooled[image * 3 + k], alone[0])
