"""What the detectors put together from torchvision's parts have in common."""

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
"""Modules of torchvision's detectors whose outputs are float32: bfloat16 under autocast would round box coordinates."""


class TorchvisionDetector(Detector):
    """Gives the network our transform, and the outputs of its `in_float32` modules full precision."""

    in_float32: ClassVar[tuple[str, ...]] = IN_FLOAT32
    """Names of these modules; a detector whose boxes come from others names them."""
    norm_layer: ClassVar[NormLayer] = FusedBatchNorm2d
    """Batch norm of backbone, pyramid and heads. With `nn.BatchNorm2d` names, weights and outputs are the same."""

    @abstractmethod
    def assemble(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> nn.Module:
        """Torchvision's network of these parts, with its own transform."""

    def build(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> nn.Module:
        """A randomly initialised network; `num_classes` counts the background, label 0."""
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
