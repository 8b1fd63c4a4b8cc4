"""Detectors in the form of ONNX graphs: from a batch of images to the boxes of all images, in traceable steps.

Where a detector's own code selects boxes image by image, they are selected for the whole batch at once, so that the
graph takes any number of images.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import _topk_min
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import clip_boxes_to_image

from socodet.deployment.onnx_rcnn import RCNNGraph
from socodet.deployment.onnx_steps import SelectBoxes, interpolation, prepare_images, top_boxes_per_image
from socodet.detection.detectors.mask_heads import MaskRoIHeads
from socodet.detection.detectors.pooling import AlignedRoIAlign
from socodet.detection.detectors.rcnn_c4 import SharedRoIHeads
from socodet.detection.detectors.rt_detr import RTDETR
from socodet.detection.detectors.transform import DetectorTransform, boxes_with_area
from socodet.detection.inference import MASK_THRESHOLD


def graph_of(network: nn.Module) -> nn.Module | None:
    """Images uint8 (B, H, W, 3) RGB → boxes (N, 4), scores, labels, image indices (N,), and perhaps masks (N, H, W).

    The module's `takes_batches` says whether B may differ from 1. None for an unknown type of network.
    """
    if isinstance(network, RTDETR):
        return RTDETRGraph(network).eval()
    if not isinstance(getattr(network, "transform", None), DetectorTransform):
        return None
    if type(network) in (RetinaNet, FCOS):
        return SingleStageGraph(network).eval()
    if isinstance(network, GeneralizedRCNN) and _has_known_parts(network):
        return RCNNGraph(network).eval()
    return OneImageGraph(network).eval()


def _has_known_parts(network: GeneralizedRCNN) -> bool:
    """Whether the network selects boxes in the way `RCNNGraph` does; a subclass may do anything."""
    heads = network.roi_heads
    known = type(network.rpn) is RegionProposalNetwork and type(heads) in (RoIHeads, MaskRoIHeads, SharedRoIHeads)
    return known and type(heads.box_roi_pool) is AlignedRoIAlign and getattr(heads, "keypoint_predictor", None) is None


class OneImageGraph(nn.Module):
    """A user's own detector, run by its own code."""

    takes_batches = False

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_bhw3: Tensor) -> tuple[Tensor, ...]:
        """Inputs and outputs as in `graph_of`, for one image."""
        (found,) = self.network([images_bhw3[0].permute(2, 0, 1).float() / 255])
        kept = torch.nonzero(found["labels"] > 0).squeeze(1)  # some detectors also return the background
        boxes, scores, labels = (found[name][kept] for name in ("boxes", "scores", "labels"))
        answer = boxes, scores, labels, torch.zeros_like(labels)
        return (*answer, found["masks"][kept, 0] > MASK_THRESHOLD) if "masks" in found else answer


class SingleStageGraph(nn.Module):
    """RetinaNet and FCOS: the best candidates of each level, then non-maximum suppression, for all images at once."""

    takes_batches = True

    def __init__(self, network: RetinaNet | FCOS) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_bhw3: Tensor) -> tuple[Tensor, ...]:
        """As `graph_of` says."""
        network = self.network
        padded, size, scale = prepare_images(network.transform, images_bhw3)
        maps = list(network.backbone(padded).values())
        anchors = network.anchor_generator(ImageList(padded, [size]), maps)[0]
        first, levels = 0, []
        for one in maps:
            outputs = network.head([one])
            count = outputs["cls_logits"].shape[1]
            levels.append(self._candidates(outputs, anchors[first : first + count]))
            first = first + count
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
        boxes = clip_boxes_to_image(boxes, size)
        image, kept = self._selected(boxes, scores, labels)
        return boxes[image, kept] * scale, scores[image, kept], labels[image, kept], image

    def _candidates(self, outputs: dict[str, Tensor], anchors_a4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The (anchor, class) pairs with the highest scores of one level: boxes (B, K, 4), scores, labels."""
        scores = outputs["cls_logits"].sigmoid()
        if "bbox_ctrness" in outputs:
            scores = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
        classes = scores.shape[2]
        flat = scores.flatten(1)
        best, index = flat.topk(_topk_min(flat, self.network.topk_candidates, 1))
        anchor = torch.div(index, classes, rounding_mode="floor")
        moved = outputs["bbox_regression"].gather(1, anchor[..., None].expand(-1, -1, 4)).flatten(0, 1)
        from_anchors = anchors_a4[anchor].flatten(0, 1)
        coder = self.network.box_coder
        decode = coder.decode if isinstance(self.network, FCOS) else coder.decode_single
        return decode(moved, from_anchors).reshape(best.shape[0], -1, 4), best, index % classes

    def _selected(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Image and candidate index of each detection, with decreasing scores within an image."""
        network = self.network
        chosen = SelectBoxes.of_classes(
            boxes,
            scores,
            labels,
            network.head.classification_head.num_classes,
            network.nms_thresh,
            network.score_thresh,
        )
        image, candidate = chosen[:, 0], chosen[:, 2]
        best = top_boxes_per_image(image, scores[image, candidate], boxes.shape[0], network.detections_per_img)
        image, candidate = image[best], candidate[best]
        is_object = (labels[image, candidate] > 0) & boxes_with_area(
            boxes[image, candidate]
        )  # class 0 is the background
        kept = torch.nonzero(is_object).squeeze(1)
        return image[kept], candidate[kept]


class RTDETRGraph(nn.Module):
    """RT-DETR, which resizes images to squares."""

    takes_batches = True

    def __init__(self, network: RTDETR) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_bhw3: Tensor) -> tuple[Tensor, ...]:
        """As `graph_of` says."""
        network = self.network
        images = images_bhw3.permute(0, 3, 1, 2).float() / 255
        sides, side = torch._shape_as_tensor(images)[-2:], torch.tensor(network.side)
        rows, columns = (interpolation(sides[axis], side) for axis in (0, 1))
        output = network.detr(pixel_values=network.normalized(rows @ images @ columns.T))
        boxes, scores, labels = network.best(output.logits, output.pred_boxes)
        image, kept = torch.nonzero(scores >= network.score_threshold).unbind(1)
        scale = sides.flip(0).float().repeat(2)
        return boxes[image, kept] * scale, scores[image, kept], labels[image, kept], image
