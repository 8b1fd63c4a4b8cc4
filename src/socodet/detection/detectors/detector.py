"""The interface of a detector: how its network is built, trained and fed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from socodet.detection.detectors.schedules import ScheduleSettings, schedule
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.transform import Target, scaled_and_flipped
from socodet.models.settings import ModelSettings

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Detector(ABC):
    """Everything that differs between detectors. A new detector is a subclass in its own file, listed in `by_name.py`,
    or a subclass anywhere else, named as `module:name`.

    Its networks are called like torchvision's detectors: with a list of images (3, H, W), RGB in [0, 1], and in
    training mode a list of targets (`Target`). They return losses by name, or in evaluation mode one dict per image:
    `boxes` (N, 4) xyxy in pixels of the image, `scores` (N,), `labels` (N,) and, if the detector has masks, `masks`
    (N, 1, H, W). Pretrained weights are loaded into `backbone.body`, `backbone.fpn` and `roi_heads.box_head`, as far as
    the network has them.
    """

    name: str
    boxes_only: ClassVar[str | None] = None
    """For a detector with masks, the name of its counterpart without masks."""
    has_box_head: ClassVar[bool] = False
    """Whether a second stage classifies pooled boxes, so that `rois_per_image` and the choice of pooling apply."""
    compiled: ClassVar[tuple[str, ...]] = ("backbone.body",)
    """Modules that `compile` compiles."""

    @property
    def has_masks(self) -> bool:
        """Whether it learns and predicts masks."""
        return self.boxes_only is not None

    @abstractmethod
    def build(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> nn.Module:
        """A randomly initialised network; `num_classes` includes the background, label 0."""

    def schedule(self, name: str) -> ScheduleSettings:
        """The schedule of this name with the detector's own learning rates and image sizes. SettingError if unknown."""
        return schedule(name)

    def optimizer(self, network: nn.Module, settings: ScheduleSettings) -> torch.optim.Optimizer:
        """An optimizer for the network; `lr_factor` of a parameter group multiplies the schedule's learning rate.

        By default SGD with momentum over `parameter_groups`, fused on a CPU, which takes a third of the time.
        """
        fused = all(parameter.device.type == "cpu" for parameter in network.parameters()) or None
        return torch.optim.SGD(parameter_groups(network, settings), settings.lr, settings.momentum, fused=fused)

    def earlier_optimizer(self, network: nn.Module, settings: ScheduleSettings) -> torch.optim.Optimizer | None:
        """The optimizer with the parameter groups of an earlier version, with which its runs resume; None if none."""
        return None

    def training_sample(
        self,
        pixels_hw3: NDArray[np.uint8],
        target_at: Callable[[tuple[int, int]], Target],
        settings: ScheduleSettings,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Target]:
        """One random augmentation of an image (H, W, 3): uint8 (3, H', W'), and its target.

        `target_at` returns the target for the image scaled to a given (height, width).
        """
        return scaled_and_flipped(pixels_hw3, target_at, settings, generator)

    def compile(self, network: nn.Module, backend: str = "inductor") -> None:
        """Compiles the network's heaviest modules in place, for images of any size; tensor names do not change."""
        for name in self.compiled:
            network.get_submodule(name).compile(backend=backend, dynamic=True)


def parameter_groups(network: nn.Module, settings: ScheduleSettings) -> list[dict[str, Any]]:
    """Groups of weights, norms and biases with their weight decay and `lr_factor`, as in Detectron2 and MMDetection."""
    norms = [p for module in network.modules() if isinstance(module, NORMS) for p in module.parameters(recurse=False)]
    of_norms = {id(p) for p in norms}
    rest = [(n, p) for n, p in network.named_parameters() if id(p) not in of_norms and p.requires_grad]
    biases = [p for name, p in rest if name.endswith("bias")]
    weights = [p for name, p in rest if not name.endswith("bias")]
    decay = settings.weight_decay
    groups = [
        {"params": weights, "weight_decay": decay, "lr_factor": 1.0},
        {"params": norms, "weight_decay": decay * settings.decay_norms, "lr_factor": 1.0},
        {"params": biases, "weight_decay": decay * settings.decay_biases, "lr_factor": settings.bias_lr},
    ]
    return [group for group in groups if group["params"]]
