"""An RPN head pretrained together with SoCo: it learns to find the proposals of the first view.

Selective search's boxes take the place of ground truth, as in AlignDet (Li et al. 2023) and in Dong et al. 2022
(arXiv 2211.09022). The head and its loss are those of torchvision's Faster R-CNN on FPN, and the anchors those of our
detectors, so that fine-tuning can begin with it.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool2d, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers
from torchvision.ops import box_iou

from socodet.models.anchors import StridedAnchors

ANCHOR_SIDES = (32, 64, 128, 256, 512)
"""In pixels, for P2 to P6; a detector on C4 has all of them on that one map."""
ANCHOR_STRIDES = (4, 8, 16, 32, 64)
"""Strides of P2 to P6."""
ASPECT_RATIOS = (0.5, 1.0, 2.0)
FOREGROUND, BACKGROUND = 0.7, 0.3
"""Minimum IoU of a positive anchor, and the IoU below which an anchor is negative."""
SAMPLED = 256
"""Anchors per image that a detector's RPN learns from in a step, at most half of them positive."""
BETA = 1 / 9
"""Where the smooth L1 loss becomes linear."""
_CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


def rpn_anchors() -> StridedAnchors:
    """The anchors of a detector's RPN on P2 to P6."""
    return StridedAnchors([(side,) for side in ANCHOR_SIDES], [ASPECT_RATIOS] * len(ANCHOR_SIDES), ANCHOR_STRIDES)


def build_rpn_head(channels: int) -> RPNHead:
    """The head of a detector's RPN on a pyramid of that many channels."""
    return RPNHead(channels, num_anchors=len(ASPECT_RATIOS), conv_depth=1)


def rpn_loss(head: RPNHead, levels: Sequence[Tensor], boxes_bp4: Tensor, sampled: int = SAMPLED) -> Tensor:
    """Objectness and regression loss of an RPN: a scalar, in float32 at least, averaged over images.

    levels: P2 to P5, (B, C, h, w) each; P6 is made of P5. boxes_bp4: (B, P, 4) xyxy in pixels of the image; boxes
    without area are ignored, and the loss of an image without boxes is 0.

    torchvision draws `sampled` anchors of each image at random, up to half of them positive; this loss is the
    expectation over its draws, so nothing is drawn here. Each image's loss is its sum over the anchors divided by
    `sampled`, so that parts of a batch, in other processes too, average to the loss of the whole.
    """
    maps = [*levels, max_pool2d(levels[-1], 1, 2)]
    objectness, deltas = head(maps)
    logits, moves = concat_box_prediction_layers(objectness, deltas)
    anchors = _anchors(tuple((one.shape[2], one.shape[3]) for one in maps), maps[0].device)
    exact = torch.promote_types(logits.dtype, torch.float32)
    logits, moves = logits.to(exact).reshape(len(boxes_bp4), -1), moves.to(exact).reshape(len(boxes_bp4), -1, 4)
    weights, positive, matched = _targets(anchors, boxes_bp4, sampled)
    with torch.autocast(logits.device.type, enabled=False):
        found = binary_cross_entropy_with_logits(logits, positive.to(exact), weight=weights, reduction="sum")
        goal = _CODER.encode_single(matched.flatten(0, 1), anchors.repeat(len(matched), 1)).view_as(moves)
        placed = smooth_l1_loss(
            moves, torch.where(positive[..., None], goal, moves.detach()), beta=BETA, reduction="none"
        )
        return (found + (placed.sum(dim=2) * weights).sum()) / (sampled * len(boxes_bp4))


@lru_cache(maxsize=8)
def _anchors(grids: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """(A, 4) anchors of all levels, finest first; cached, so that no step waits for a copy."""
    generator = rpn_anchors()
    generator.set_cell_anchors(torch.float32, device)
    return torch.cat(generator.grid_anchors([list(grid) for grid in grids], []))


@torch.no_grad()
def _targets(anchors: Tensor, boxes_bp4: Tensor, sampled: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each image and anchor: its expected number of draws (B, A), whether it is positive, and its box (B, A, 4)."""
    pairs = [_matched(anchors, boxes) for boxes in boxes_bp4]
    positive, negative, matched = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    positives = positive.sum(dim=1, keepdim=True).float()
    negatives = negative.sum(dim=1, keepdim=True).float()
    drawn = positives.clamp_max(sampled // 2)
    others = negatives.minimum(sampled - drawn)
    weights = positive * (drawn / positives.clamp_min(1)) + negative * (others / negatives.clamp_min(1))
    return weights, positive, matched


def _matched(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of one image: positive and negative anchors (A,), and the box that each overlaps most (A, 4)."""
    overlaps = box_iou(boxes, anchors)
    best, which = overlaps.max(dim=0)
    best_of_box = overlaps.max(dim=1, keepdim=True).values
    # A box that no anchor fits well gets the anchors that fit it best.
    positive = (best >= FOREGROUND) | ((overlaps == best_of_box) & (overlaps > 0)).any(dim=0)
    there = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).any()
    return positive, (best < BACKGROUND) & ~positive & there, boxes[which]
