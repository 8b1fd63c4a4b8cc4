"""What detectors made of torchvision's parts have in common."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.transform import DetectorTransform
from socodet.models.backbones import NormLayer
from socodet.models.fused_norm import FusedBatchNorm2d
from socodet.models.settings import ModelSettings

IN_FLOAT32 = ("backbone", "head", "rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor")
"""Modules of torchvision's detectors whose outputs must be float32, as bfloat16 would round box coordinates."""


class TorchvisionDetector(Detector):
    """Gives the network our transform, and converts the outputs of its `in_float32` modules to float32."""

    in_float32: ClassVar[tuple[str, ...]] = IN_FLOAT32
    """Names of these modules; a detector whose boxes come from other modules overrides them."""
    norm_layer: ClassVar[NormLayer] = FusedBatchNorm2d
    """Batch norm of backbone, pyramid and heads. Names, weights and outputs are those of `nn.BatchNorm2d`."""

    @abstractmethod
    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> nn.Module:
        """Torchvision's network with these sizes and torchvision's own transform."""

    def build(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> nn.Module:
        """A randomly initialised network; `num_classes` includes the background, label 0."""
        network = self.assemble(model, num_classes, inference)
        network.transform = DetectorTransform(inference)
        for name, module in network.named_modules():
            if name in self.in_float32:
                module.register_forward_hook(as_float32)
        return network


class RCNN(TorchvisionDetector):
    """A detector whose box head classifies the proposals of a first stage, and may predict masks."""

    has_box_head = True
    compiled = ("backbone.body", "roi_heads.box_head")


def as_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """The output with every tensor in float32."""
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: as_float32(_module, _inputs, value) for name, value in output.items()}
    return type(output)(as_float32(_module, _inputs, value) for value in output)
