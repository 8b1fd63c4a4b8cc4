"""R-CNNs on C4: Tables 2 and 3."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from socodet.detection.detectors.mask_heads import MaskRoIHeads, build_mask_predictor
from socodet.detection.detectors.pooling import roi_pooling
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.torchvision_detector import RCNN
from socodet.models.backbones import STRIDES, NormLayer, split_backbone
from socodet.models.region_proposals import ANCHOR_SIDES, ASPECT_RATIOS
from socodet.models.settings import ModelSettings

POOLED = 14
"""RoIAlign's cells per side; the fifth block halves them."""
MASK_CHANNELS = 256


def shared_head(fifth_block: nn.Module, channels: int, norm_layer: NormLayer = nn.BatchNorm2d) -> nn.Sequential:
    """The fifth block followed by a batch norm, as in MoCo's C4 recipe (`Res5ROIHeadsExtraNorm`).

    The outputs of a self-supervised network's last block may have any scale; the norm normalises them.
    """
    return nn.Sequential(OrderedDict([*fifth_block.named_children(), ("norm", norm_layer(channels))]))


class SharedRoIHeads(MaskRoIHeads):
    """Boxes and masks from the features of one shared head, like Detectron2's `Res5ROIHeads`.

    In training, the features of a positive box are computed once and used for its class and its mask.
    """

    def vectors(self, box_features: Tensor) -> Tensor:
        """Averaged over cells."""
        return box_features.mean(dim=(2, 3))

    def mask_features(self, features: dict[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """The box head's output for each box."""
        return self.box_features(features, boxes, shapes)

    def positive_mask_features(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        shapes: list[tuple[int, int]],
        box_features: Tensor,
        positive: Tensor,
    ) -> Tensor:
        """The features already computed for the box predictor."""
        return box_features[positive]


class FasterRCNNC4(RCNN):
    """Faster R-CNN on C4, with the fifth block as box head.

    Thresholds are torchvision's and Detectron2's, which agree; numbers of proposals are Detectron2's for C4.
    """

    name = "faster_rcnn_c4"

    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> GeneralizedRCNN:
        """An R-CNN of torchvision's parts for boxes and, if the detector has them, masks."""
        body, fifth_block, channels = split_backbone(model.backbone, self.norm_layer)
        c4_channels = channels // 2
        anchors = AnchorGenerator((ANCHOR_SIDES,), (ASPECT_RATIOS,))
        rpn = RegionProposalNetwork(
            anchors,
            RPNHead(c4_channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 12000, "testing": 6000},
            post_nms_top_n={"training": 2000, "testing": inference.proposals},
            nms_thresh=0.7,
        )
        roi_heads = SharedRoIHeads(
            roi_pooling({"0": STRIDES[2]}, POOLED, inference.pooling),
            shared_head(fifth_block, channels, self.norm_layer),
            FastRCNNPredictor(channels, num_classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=inference.rois_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=inference.score_threshold,
            nms_thresh=0.5,
            detections_per_img=inference.detections,
            mask_predictor=build_mask_predictor(channels, MASK_CHANNELS, num_classes) if self.has_masks else None,
        )
        backbone = nn.Sequential(OrderedDict(body=body))  # the stages up to the third: images → {"0": C4}
        return GeneralizedRCNN(backbone, rpn, roi_heads, None)  # `build` gives it its transform


class MaskRCNNC4(FasterRCNNC4):
    """Faster R-CNN on C4, with masks from the same fifth block."""

    name = "mask_rcnn_c4"
    boxes_only = FasterRCNNC4.name
