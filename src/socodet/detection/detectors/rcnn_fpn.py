"""R-CNNs on a feature pyramid: Tables 1, 4, 5, 6, 8, 9 and 10."""

from typing import Any

from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.roi_heads import RoIHeads

from socodet.detection.detectors.mask_heads import MaskRoIHeads, build_mask_predictor
from socodet.detection.detectors.pooling import roi_pooling
from socodet.detection.detectors.pyramid import PyramidBackbone
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.torchvision_detector import RCNN
from socodet.models.backbones import STRIDES, NormLayer
from socodet.models.blocks import fuse_relu
from socodet.models.encoders import build_box_head
from socodet.models.region_proposals import build_rpn_head, rpn_anchors
from socodet.models.settings import ModelSettings

MASK_CHANNELS = 256
MASK_POOLED = 14
LEVELS = {str(level): stride for level, stride in enumerate(STRIDES)}


class FasterRCNNFPN(RCNN):
    """Faster R-CNN on P2 to P6 with the pretrained box head."""

    name = "faster_rcnn_fpn"

    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> FasterRCNN:
        """Torchvision's Faster R-CNN of these parts."""
        return FasterRCNN(
            PyramidBackbone(model, self.norm_layer), **_box_parts(model, num_classes, inference, self.norm_layer)
        )


class MaskRCNNFPN(FasterRCNNFPN):
    """Faster R-CNN on FPN with a mask head of four convolutions with batch norm."""

    name = "mask_rcnn_fpn"
    boxes_only = FasterRCNNFPN.name

    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> MaskRCNN:
        """Torchvision's Mask R-CNN of these parts."""
        network = MaskRCNN(
            PyramidBackbone(model, self.norm_layer),
            mask_roi_pool=roi_pooling(LEVELS, MASK_POOLED, inference.pooling),
            mask_head=fuse_relu(MaskRCNNHeads(model.fpn_channels, [MASK_CHANNELS] * 4, 1, norm_layer=self.norm_layer)),
            mask_predictor=build_mask_predictor(MASK_CHANNELS, MASK_CHANNELS, num_classes),
            **_box_parts(model, num_classes, inference, self.norm_layer),
        )
        network.roi_heads = aligned_masks(network.roi_heads)
        return network


def aligned_masks(heads: RoIHeads) -> MaskRoIHeads:
    """`MaskRoIHeads` with the same parts and settings."""
    sampler = heads.fg_bg_sampler
    return MaskRoIHeads(
        heads.box_roi_pool,
        heads.box_head,
        heads.box_predictor,
        heads.proposal_matcher.high_threshold,
        heads.proposal_matcher.low_threshold,
        sampler.batch_size_per_image,
        sampler.positive_fraction,
        heads.box_coder.weights,
        heads.score_thresh,
        heads.nms_thresh,
        heads.detections_per_img,
        heads.mask_roi_pool,
        heads.mask_head,
        heads.mask_predictor,
    )


def _box_parts(
    model: ModelSettings, num_classes: int, inference: InferenceSettings, norm_layer: NormLayer
) -> dict[str, Any]:
    """The parts that both have; default numbers of proposals are those of Detectron2's FPN base configuration."""
    return {
        "rpn_anchor_generator": rpn_anchors(),
        "rpn_head": build_rpn_head(model.fpn_channels),
        "rpn_pre_nms_top_n_train": inference.training_pre_nms,
        "rpn_pre_nms_top_n_test": inference.proposals,
        "rpn_post_nms_top_n_train": 1000,
        "rpn_post_nms_top_n_test": inference.proposals,
        "box_roi_pool": roi_pooling(LEVELS, model.pooled_size, inference.pooling),
        "box_head": build_box_head(model, norm_layer),
        "box_predictor": FastRCNNPredictor(model.representation_size, num_classes),
        "box_batch_size_per_image": inference.rois_per_image,
        "box_score_thresh": inference.score_threshold,
        "box_detections_per_img": inference.detections,
    }
