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
    """Everything that differs between detectors. A new one is a subclass in a file of its own, listed in `by_name.py`;
    or anywhere else, and named `module:name`.

    Its networks are called like torchvision's detectors: with a list of images (3, H, W), RGB in [0, 1], and in
    training mode a list of targets (`Target`). They return losses by name, or in evaluation mode one dict per image:
    `boxes` (N, 4) xyxy in its pixels, `scores` (N,), `labels` (N,) and, from a detector with masks, `masks`
    (N, 1, H, W). Pretrained weights are loaded into `backbone.body`, `backbone.fpn` and `roi_heads.box_head`, as far as
    a network has these.
    """

    name: str
    boxes_only: ClassVar[str | None] = None
    """For a detector with masks, the name of its counterpart without."""
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
        """A randomly initialised network; `num_classes` counts the background, label 0."""

    def schedule(self, name: str) -> ScheduleSettings:
        """The schedule of that name with this detector's own rates and sizes. SettingError for an unknown one."""
        return schedule(name)

    def optimizer(self, network: nn.Module, settings: ScheduleSettings) -> torch.optim.Optimizer:
        """An optimizer for the network; `lr_factor` of a parameter group multiplies the schedule's learning rate.

        By default SGD with momentum over `parameter_groups`; on a CPU in one pass, which takes a third of the time.
        """
        fused = all(parameter.device.type == "cpu" for parameter in network.parameters()) or None
        return torch.optim.SGD(parameter_groups(network, settings), settings.lr, settings.momentum, fused=fused)

    def training_sample(
        self,
        pixels_hw3: NDArray[np.uint8],
        target_at: Callable[[tuple[int, int]], Target],
        settings: ScheduleSettings,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Target]:
        """One random augmentation of an image (H, W, 3): uint8 (3, H', W'), and its target.

        `target_at` gives the target of the image scaled to a (height, width).
        """
        return scaled_and_flipped(pixels_hw3, target_at, settings, generator)

    def compile(self, network: nn.Module, backend: str = "inductor") -> None:
        """Compiles the network's heaviest modules in place, for images of any size; their names stay."""
        for name in self.compiled:
            network.get_submodule(name).compile(backend=backend, dynamic=True)


def parameter_groups(network: nn.Module, settings: ScheduleSettings) -> list[dict[str, Any]]:
    """Weights, norms and biases as in Detectron2's and MMDetection's schedules, each with its decay and `lr_factor`."""
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
