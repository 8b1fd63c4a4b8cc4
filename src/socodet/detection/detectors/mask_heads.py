"""RoI heads with half-pixel aligned mask targets, like the pooling of boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference
from torchvision.ops import roi_align

from socodet.detection.detectors.transform import Target


def build_mask_predictor(channels: int, hidden: int, num_classes: int) -> MaskRCNNPredictor:
    """Torchvision's mask predictor with Detectron2's initialisation of the last layer: every mask starts near 0.5.

    torchvision's initial weights grow as the number of classes falls: with one class, the first loss is three times as
    large.
    """
    predictor = MaskRCNNPredictor(channels, hidden, num_classes)
    nn.init.normal_(predictor.mask_fcn_logits.weight, std=0.001)
    nn.init.zeros_(predictor.mask_fcn_logits.bias)
    return predictor


class MaskRoIHeads(RoIHeads):  # type: ignore[misc]
    """torchvision's RoI heads, except that masks are trained with `mask_targets`.

    torchvision samples an object's mask half a pixel off its box, so the masks that it learns are shifted as well.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Detections of each image, or in training mode the losses."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets or [])
        logits, deltas = self.box_predictor(self.vectors(self.box_features(features, proposals, image_shapes)))
        kept = self.postprocess_detections(logits, deltas, proposals, image_shapes)
        found = [{"boxes": b, "scores": s, "labels": n} for b, s, n in zip(*kept, strict=True)]
        if self.mask_predictor is not None:
            masks = self.mask_predictor(self.mask_features(features, kept[0], image_shapes))
            for one, probabilities in zip(found, maskrcnn_inference(masks, kept[2]), strict=True):
                one["masks"] = probabilities
        return found, {}

    def box_features(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """The box head's output for each box."""
        found: Tensor = self.box_head(self.box_roi_pool(features, boxes, shapes))
        return found

    def vectors(self, box_features: Tensor) -> Tensor:
        """The features in the form that the box predictor takes: (N, D)."""
        return box_features

    def mask_features(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """The mask predictor's input for each box."""
        found: Tensor = self.mask_head(self.mask_roi_pool(features, boxes, shapes))
        return found

    def positive_mask_features(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        shapes: list[tuple[int, int]],
        box_features: Tensor,
        positive: Tensor,
    ) -> Tensor:
        """`mask_features` of the positive `boxes` in training; `positive` marks their rows in `box_features`."""
        return self.mask_features(features, boxes, shapes)

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: list[Target],
    ) -> dict[str, Tensor]:
        boxes, matched, labels, regression = self.select_training_samples(proposals, targets)
        box_features = self.box_features(features, boxes, shapes)
        logits, deltas = self.box_predictor(self.vectors(box_features))
        classifier, box = fastrcnn_loss(logits, deltas, labels, regression)
        losses = {"loss_classifier": classifier, "loss_box_reg": box}
        if self.mask_predictor is not None:
            positive = [one > 0 for one in labels]
            boxes, matched, labels = (
                [one[p] for one, p in zip(some, positive, strict=True)] for some in (boxes, matched, labels)
            )
            of_masks = self.positive_mask_features(features, boxes, shapes, box_features, torch.cat(positive))
            losses["loss_mask"] = mask_loss(self.mask_predictor(of_masks), targets, boxes, labels, matched)
        return losses

    def has_mask(self) -> bool:
        """Whether targets must have masks."""
        return self.mask_predictor is not None


def mask_loss(
    logits_ncmm: Tensor,
    targets: Sequence[Target],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    matched: Sequence[Tensor],
) -> Tensor:
    """Binary cross-entropy of each box's mask for its class, averaged over cells and boxes.

    logits_ncmm: (N, classes, M, M). For each image: boxes (N_i, 4), and each one's class and object index.
    """
    if logits_ncmm.shape[0] == 0:
        return logits_ncmm.sum() * 0
    side = logits_ncmm.shape[-1]
    wanted = torch.cat(
        [
            mask_targets(target["masks"], some, objects, side)
            for target, some, objects in zip(targets, boxes, matched, strict=True)
        ]
    )
    every = torch.arange(logits_ncmm.shape[0], device=logits_ncmm.device)
    return binary_cross_entropy_with_logits(logits_ncmm[every, torch.cat(list(labels))], wanted)


def mask_targets(masks_ohw: Tensor, boxes_n4: Tensor, objects_n: Tensor, side: int) -> Tensor:
    """(N, side, side) in [0, 1]: RoIAlign of each box on its object's mask, among an image's masks (O, H, W).

    It is half-pixel aligned, so that `paste_masks` restores a mask to its place.
    """
    rois = torch.cat([objects_n.to(boxes_n4)[:, None], boxes_n4], dim=1)
    cells: Tensor = roi_align(masks_ohw[:, None].to(rois), rois, (side, side), 1.0, aligned=True)
    return cells[:, 0]
