"""What a network is pretrained with: optimisation and schedules."""

import math
from dataclasses import dataclass
from typing import Literal

from socodet.errors import SettingError


@dataclass(frozen=True)
class TrainingSettings:
    """Optimisation; the defaults are section 4.1's, for 100 epochs."""

    epochs: float = 100
    """Passes over the images; the number of steps is this times images / batch size, rounded down."""
    batch_size: int = 2048
    """Images a step, over all processes."""
    accumulate: int = 1
    """Parts a batch is worked off in, for memory's sake; the step is that of their mean gradient. Batch norm takes its
    statistics from each part alone, which changes what is learned: so this belongs to the recipe."""
    base_lr: float = 1.0
    """Learning rate at batch 256; the rate used is this times batch size / 256."""
    warmup_epochs: float = 10
    """Epochs over which the learning rate rises linearly to its full value."""
    weight_decay: float = 1e-5
    """Of weights; biases and norms have none."""
    optimizer: Literal["lars", "sgd"] = "lars"
    """LARS as in section 4.1, or SGD with momentum."""
    momentum: float = 0.9
    """The optimiser's momentum."""
    trust_coefficient: float = 0.001
    """LARS: the length of a layer's step as a share of the length of its weights, at rate 1."""
    trust_clip: bool = False
    """LARS: a layer's rate is never above the learning rate (LARC), instead of a multiple of it."""
    norm_lr: float = 1.0
    """Factor of the learning rate of norms and biases, whose steps LARS does not adapt; Barlow Twins has 0.024."""
    predictor_lr: float = 1.0
    """Factor of the learning rate of the predictor."""
    target_momentum: float = 0.99
    """The target's momentum at the first step; it moves to `final_target_momentum` along a cosine."""
    final_target_momentum: float = 1.0
    """The target's momentum at the end. With both at 0 the target is the online network itself."""
    seed: int = 0
    """Of the initial weights, the order of the images and every draw of a view."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "base_lr", "trust_coefficient", "predictor_lr")
        for field in positive:
            if not 0 < getattr(self, field) < math.inf:
                raise SettingError(f"{field} must be above 0 and finite, not {getattr(self, field)}")
        for field in ("warmup_epochs", "weight_decay", "norm_lr"):
            if not 0 <= getattr(self, field) < math.inf:
                raise SettingError(f"{field} must be at least 0 and finite, not {getattr(self, field)}")
        if not 0 <= self.seed < 2**63:
            raise SettingError(f"seed must be at least 0 and below 2^63, not {self.seed}")
        for field in ("momentum", "target_momentum"):
            if not 0 <= getattr(self, field) < 1:
                raise SettingError(f"{field} must be in [0, 1), not {getattr(self, field)}")
        if not 0 <= self.final_target_momentum <= 1:
            raise SettingError(f"final_target_momentum must be in [0, 1], not {self.final_target_momentum}")
        if self.optimizer not in ("lars", "sgd"):
            raise SettingError(f"optimizer must be one of lars, sgd, not {self.optimizer!r}")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise SettingError(
                f"accumulate must be at least 1 and divide batch_size ({self.batch_size}), not {self.accumulate}"
            )
        if self.warmup_epochs > self.epochs:
            raise SettingError(
                f"warmup_epochs must be at most epochs ({self.epochs:g}), not {self.warmup_epochs:g}; set both"
            )

    @property
    def lr(self) -> float:
        """The full learning rate: linear scaling with the batch (section 4.1)."""
        return self.base_lr * self.batch_size / 256

    def steps(self, epochs: float, images: int) -> int:
        """Optimiser steps in `epochs` passes over `images` images."""
        return math.floor(epochs * images / self.batch_size + 1e-9)  # 0.29 x 100 is 28.999…
