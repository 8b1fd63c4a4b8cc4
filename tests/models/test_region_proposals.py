"""The RPN head's loss, against torchvision's RPN: ours is the mean over its random samples of anchors."""

import pytest
import torch
from torch.nn.functional import max_pool2d
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork
from torchvision.ops import box_iou

from socodet.detection.detectors.by_name import new_detector
from socodet.models.region_proposals import (
    ANCHOR_SIDES,
    ANCHOR_STRIDES,
    ASPECT_RATIOS,
    BACKGROUND,
    FOREGROUND,
    SAMPLED,
    _matched,
    build_rpn_head,
    rpn_loss,
)
from socodet.models.settings import ModelSettings

SIDE = 64
BOXES = [
    torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 62.0, 60.0], [1.0, 2.0, 9.0, 8.0]]),
    torch.tensor([[0.0, 0.0, 64.0, 64.0]]),
    torch.tensor([[30.0, 30.0, 50.0, 45.0], [31.0, 28.0, 52.0, 46.0]]),
]


@pytest.fixture(scope="module")
def maps():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 8, side, side, generator=generator) for side in (16, 8, 4, 2)]


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(1)
    made = build_rpn_head(8)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # a fresh head's outputs are almost zero
    return made


def padded(boxes):
    return torch.stack([torch.cat([one, torch.zeros(5 - len(one), 4)]) for one in boxes])


def torchvision_loss(head, maps, sampled, boxes=BOXES):
    """The loss of torchvision's RPN on the same maps with its own samples, as a sum over the sampled anchors."""
    drawn = 0

    class CountingSampler(BalancedPositiveNegativeSampler):
        def __call__(self, labels):
            nonlocal drawn
            chosen = super().__call__(labels)
            drawn = sum(int(part.sum()) for side in chosen for part in side)
            return chosen

    anchors = AnchorGenerator(tuple((side,) for side in ANCHOR_SIDES), ((0.5, 1.0, 2.0),) * 5)
    rpn = RegionProposalNetwork(anchors, head, 0.7, 0.3, sampled, 0.5, *[{"training": 9, "testing": 9}] * 2, 0.7)
    rpn.fg_bg_sampler = CountingSampler(sampled, 0.5)
    images = ImageList(torch.zeros(len(boxes), 3, SIDE, SIDE), [(SIDE, SIDE)] * len(boxes))
    every = dict(enumerate([*maps, max_pool2d(maps[-1], 1, 2)]))
    return sum(rpn(images, every, [{"boxes": one} for one in boxes])[1].values()) * drawn


def test_rpn_loss_without_sampling_matches_torchvision(head, maps):
    many = 10_000  # all anchors
    mine, theirs = rpn_loss(head, maps, padded(BOXES), many) * many * 3, torchvision_loss(head, maps, many)
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    for parameter in head.parameters():
        (one,), (other,) = (torch.autograd.grad(loss, parameter, retain_graph=True) for loss in (mine, theirs))
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
        assert other.abs().max() > 0


@pytest.mark.parametrize("sampled", [16, 256])
def test_rpn_loss_is_the_mean_over_torchvisions_samples(head, maps, sampled):
    """With 16, more anchors are positive than may be sampled."""
    torch.manual_seed(2)
    with torch.no_grad():
        draws = torch.stack([torchvision_loss(head, maps, sampled) for _ in range(150)])
        mine = rpn_loss(head, maps, padded(BOXES), sampled) * sampled * 3
    assert abs(mine - draws.mean()) < 4 * draws.std() / 150**0.5


def test_rpn_loss_averages_over_images_and_is_zero_without_boxes(head, maps):
    boxes = padded([*BOXES[:2], torch.zeros(0, 4)])
    with torch.no_grad():
        whole = rpn_loss(head, maps, boxes)
        parts = [rpn_loss(head, [one[k : k + 1] for one in maps], boxes[k : k + 1]) for k in range(3)]
    assert whole.item() == pytest.approx(sum(parts).item() / 3, rel=1e-5)
    assert parts[2].item() == 0 < parts[0].item()


def test_anchors_at_the_limits_are_those_of_torchvisions_matcher():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    anchors = torch.tensor([[0.0, 0.0, 10.0, side] for side in (10, 7, 6.9, 3, 2.9)])
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(box, anchors))
    positive, negative, _ = _matched(anchors, box)
    assert positive.tolist() == (theirs >= 0).tolist() == [True, True, False, False, False]
    assert negative.tolist() == (theirs == Matcher.BELOW_LOW_THRESHOLD).tolist() == [False, False, False, False, True]


def test_rpn_anchors_and_head_are_those_of_the_detector():
    model = ModelSettings(backbone="resnet18", fpn_channels=8, head_channels=8, head_convs=1, representation_size=8)
    rpn = new_detector("faster_rcnn_fpn", model, num_classes=2).rpn
    assert rpn.anchor_generator.sizes == tuple((side,) for side in ANCHOR_SIDES)
    assert rpn.anchor_generator.aspect_ratios == (ASPECT_RATIOS,) * 5
    assert rpn.anchor_generator.strides == ANCHOR_STRIDES
    assert rpn.fg_bg_sampler.batch_size_per_image == SAMPLED
    assert (rpn.proposal_matcher.high_threshold, rpn.proposal_matcher.low_threshold) == (FOREGROUND, BACKGROUND)
    shapes, others = ({k: v.shape for k, v in one.state_dict().items()} for one in (rpn.head, build_rpn_head(8)))
    assert shapes == others
