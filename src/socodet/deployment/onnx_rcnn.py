"""R-CNNs in the form of ONNX graphs: proposals and detections for a whole batch at once."""

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import _topk_min
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import permute_and_flatten
from torchvision.ops import clip_boxes_to_image

from socodet.deployment.onnx_steps import IMPOSSIBLE, SelectBoxes, counts, prepare_images, top_boxes_per_image
from socodet.detection.detectors.rcnn_c4 import SharedRoIHeads
from socodet.detection.detectors.transform import paste_masks
from socodet.detection.inference import MASK_THRESHOLD

LEAST_PROPOSAL, LEAST_BOX = 1e-3, 1e-2
"""Minimum side in pixels of proposals and of detections, as in torchvision."""


class RCNNGraph(nn.Module):
    """Faster and Mask R-CNN, on a pyramid or C4. All images are padded to the largest number of proposals."""

    takes_batches = True

    def __init__(self, network: GeneralizedRCNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_bhw3: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs as in `graph_of`."""
        heads = self.network.roi_heads
        padded, size, scale = prepare_images(self.network.transform, images_bhw3)
        maps = self.network.backbone(padded)
        proposals, there = self._proposals(padded, size, list(maps.values()))
        batch, most = there.shape
        of_image = torch.arange(0, batch, device=there.device)[:, None].expand(batch, most).flatten()
        logits, deltas = heads.box_predictor(self._box_features(maps, of_image, proposals.flatten(0, 1)))
        classes = heads.box_predictor.cls_score.out_features - 1
        boxes = heads.box_coder.decode_single(deltas, proposals.flatten(0, 1)).reshape(batch, most, classes + 1, 4)
        boxes = clip_boxes_to_image(boxes[:, :, 1:], size).transpose(1, 2)
        scores = logits.softmax(-1).reshape(batch, most, classes + 1)[:, :, 1:].transpose(1, 2)
        scores = torch.where(there[:, None] & _large(boxes, LEAST_BOX), scores, torch.full_like(scores, IMPOSSIBLE))
        chosen = cast(
            Tensor,
            SelectBoxes.apply(boxes.flatten(0, 1), scores.flatten(0, 1)[:, None], heads.nms_thresh, heads.score_thresh),
        )
        image, label = torch.div(chosen[:, 0], classes, rounding_mode="floor"), chosen[:, 0] % classes
        best = top_boxes_per_image(image, scores[image, label, chosen[:, 2]], batch, heads.detections_per_img)
        image, label, which = image[best], label[best], chosen[:, 2][best]
        found = boxes[image, label, which]
        answer = found * scale, scores[image, label, which], label + 1, image
        if heads.mask_predictor is None:
            return answer
        masks = self._masks(maps, image, found)[torch.arange(0, image.shape[0], device=image.device), label + 1]
        height, width = images_bhw3.shape[1:3]
        pasted = paste_masks(masks[:, None], answer[0], (height, width))
        return *answer, pasted[:, 0] > MASK_THRESHOLD

    def _proposals(self, padded: Tensor, size: tuple[int, int], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, P, 4) the proposals of each image, and (B, P) which of them are not padding."""
        rpn = self.network.rpn
        anchors = rpn.anchor_generator(ImageList(padded, [size]), maps)[0]
        objectness, deltas = rpn.head(maps)
        first, levels = 0, []
        for level, (of_anchors, moves) in enumerate(zip(objectness, deltas, strict=True)):
            batch, per_cell, height, width = of_anchors.shape
            flat = permute_and_flatten(of_anchors, batch, per_cell, 1, height, width).flatten(1)
            moved = permute_and_flatten(moves, batch, per_cell, 4, height, width)
            best, index = flat.topk(_topk_min(flat, rpn.pre_nms_top_n(), 1))
            here = anchors[first : first + flat.shape[1]][index]
            first = first + flat.shape[1]
            moved = moved.gather(1, index[..., None].expand(-1, -1, 4))
            boxes = rpn.box_coder.decode_single(moved.flatten(0, 1), here.flatten(0, 1)).reshape(batch, -1, 4)
            levels.append((boxes, best.sigmoid(), torch.full_like(index, level)))
        boxes, scores, of_level = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        boxes = clip_boxes_to_image(boxes, size)
        scores = torch.where(_large(boxes, LEAST_PROPOSAL), scores, torch.full_like(scores, IMPOSSIBLE))
        chosen = SelectBoxes.of_classes(boxes, scores, of_level, len(levels), rpn.nms_thresh, IMPOSSIBLE / 2)
        image, which = chosen[:, 0], chosen[:, 2]
        best = top_boxes_per_image(image, scores[image, which], boxes.shape[0], rpn.post_nms_top_n())
        image, which = image[best], which[best]
        number = counts(image, boxes.shape[0])
        place = torch.arange(0, cast(int, number.max()), device=image.device)
        there = place < number[:, None]
        index = torch.where(there, (number.cumsum(0) - number)[:, None] + place, image.shape[0])
        kept = torch.cat([boxes[image, which], boxes.new_zeros(1, 4)])  # the last one is the padding
        return kept[index], there

    def _box_features(self, maps: dict[str, Tensor], image: Tensor, boxes: Tensor) -> Tensor:
        heads = self.network.roi_heads
        features: Tensor = heads.box_head(heads.box_roi_pool.pooled(maps, _rois(image, boxes)))
        return features.mean(dim=(2, 3)) if isinstance(heads, SharedRoIHeads) else features

    def _masks(self, maps: dict[str, Tensor], image: Tensor, boxes: Tensor) -> Tensor:
        """(N, classes, 28, 28) mask probabilities."""
        heads = self.network.roi_heads
        if isinstance(heads, SharedRoIHeads):
            features = heads.box_head(heads.box_roi_pool.pooled(maps, _rois(image, boxes)))
        else:
            features = heads.mask_head(heads.mask_roi_pool.pooled(maps, _rois(image, boxes)))
        masks: Tensor = heads.mask_predictor(features).sigmoid()
        return masks


def _rois(image: Tensor, boxes: Tensor) -> Tensor:
    return torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)


def _large(boxes: Tensor, least: float) -> Tensor:
    """Whether both sides of boxes (…, 4) are at least `least` pixels long."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)
