"""What R-CNNs have in common."""

from socodet.detection.detectors.torchvision_detector import TorchvisionDetector


class RCNN(TorchvisionDetector):
    """A detector whose box head classifies the proposals of a first stage, and may predict masks."""

    has_box_head = True
    compiled = ("backbone.body", "roi_heads.box_head")

    @property
    def float32_outputs(self) -> tuple[str, ...]:
        """The region proposal network's outputs and the predictors'."""
        outputs = ("backbone", "rpn.head", "roi_heads.box_predictor")
        return (*outputs, "roi_heads.mask_predictor") if self.has_masks else outputs
