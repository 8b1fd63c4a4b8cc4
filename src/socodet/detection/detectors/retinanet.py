"""RetinaNet, with P6 made from C5 as MMDetection has it.

As in torchvision, the loss of a batch is the mean over its images of each image's loss.
"""

from torchvision.models.detection import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from socodet.detection.detectors.pyramid import PyramidBackbone
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.single_stage import SingleStage
from socodet.models.backbones import SINGLE_STAGE_FINEST, build_backbone
from socodet.models.settings import ModelSettings


class RetinaNetFPN(SingleStage):
    """RetinaNet on P3 to P7."""

    name = "retinanet_fpn"

    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> RetinaNet:
        """Torchvision's RetinaNet on our pyramid."""
        c5_channels = build_backbone(model.backbone)[1][-1]
        return RetinaNet(
            PyramidBackbone(
                model,
                self.norm_layer,
                finest=SINGLE_STAGE_FINEST,
                extra_blocks=LastLevelP6P7(c5_channels, model.fpn_channels),
            ),
            num_classes,
            score_thresh=inference.score_threshold,
            detections_per_img=inference.detections,
        )
