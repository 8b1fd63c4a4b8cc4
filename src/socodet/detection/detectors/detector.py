"""What a detector of the registry says of itself: how it is built, trained and fed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from socodet.detection.detectors.optimizers import sgd
from socodet.detection.detectors.schedules import ScheduleSettings, schedule
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.transform import Target, scaled_and_flipped
from socodet.models.settings import ModelSettings


class Detector(ABC):
    """All that differs between detectors; the networks are built by `build`.

    A network is called as torchvision's detectors are: a list of images (3, H, W), RGB in [0, 1], and in training mode
    a list of targets; it returns losses by name, or in evaluation mode a dict for each image with `boxes`, `scores`,
    `labels` and, of a detector of masks, `masks`. Pretrained weights are loaded into its `backbone.body`,
    `backbone.fpn` and `roi_heads.box_head`, so far as it has them.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names that are accepted for it."""
    boxes_only: ClassVar[str | None] = None
    """For a detector of masks, the name of the same one without them."""
    has_box_head: ClassVar[bool] = False
    """Whether a second stage classifies proposals, so that settings of its boxes apply."""
    compiled: ClassVar[tuple[str, ...]] = ("backbone.body",)
    """Modules that torch.compile is worth its while for."""

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
        """The optimizer of a network; each parameter group's `lr_factor` multiplies the schedule's learning rate."""
        return sgd(network, settings)

    def training_sample(
        self,
        pixels_hw3: NDArray[np.uint8],
        target_at: Callable[[tuple[int, int]], Target],
        settings: ScheduleSettings,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Target]:
        """An augmented training image, uint8 (3, H, W), and its target, as one draw shows them.

        `target_at` gives the image's target at another (height, width).
        """
        return scaled_and_flipped(pixels_hw3, target_at, settings, generator)

    def compile(self, network: nn.Module, backend: str = "inductor") -> None:
        """Compiles the network's heaviest modules, in place and under their own names, for images of any size."""
        for name in self.compiled:
            network.get_submodule(name).compile(backend=backend, dynamic=True)
