"""Settings of pretraining: optimiser and schedules."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from socodet.runtime.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Range, Seed, Settings, Share

Momentum = Annotated[float, Range(0, below=1)]
LONGEST = 1e9
"""Maximum number of a run's epochs, and of the hours it is planned for."""


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Optimisation; the defaults are section 4.1's, for 100 epochs."""

    epochs: PositiveFloat = 100
    """Passes over the images; the number of steps is epochs * images / batch size, rounded down."""
    batch_size: PositiveInt = 2048
    """Images per step, over all processes."""
    accumulate: PositiveInt = 1
    """Micro-batches that a batch is split into, to save memory; each step uses their mean gradient. Batch norm takes
    its statistics from each micro-batch alone, which changes what is learned, so this is part of the recipe."""
    norm_group: PositiveInt | None = None
    """Number of processes that share batch norm statistics, such as those of one machine; by default all. It must
    divide the number of processes, and changes what is learned, so it is part of the recipe."""
    base_lr: PositiveFloat = 1.0
    """Learning rate at batch size 256; it scales linearly with the batch size."""
    warmup_epochs: NonNegativeFloat = 10
    """Epochs over which the learning rate rises linearly to its full value."""
    weight_decay: NonNegativeFloat = 1e-5
    """Weight decay; biases and norms have none."""
    optimizer: Literal["lars", "sgd"] = "lars"
    """LARS as in section 4.1, or SGD with momentum."""
    momentum: Momentum = 0.9
    """The optimiser's momentum."""
    trust_coefficient: PositiveFloat = 0.001
    """For LARS: size of a layer's step relative to the norm of its weights, at learning rate 1."""
    trust_clip: bool = False
    """For LARS: clip each layer's rate at the learning rate (LARC), instead of multiplying by it."""
    norm_lr: NonNegativeFloat = 1.0
    """Factor on the learning rate of norms and biases, which LARS does not adapt; 0.024 in Barlow Twins."""
    predictor_lr: PositiveFloat = 1.0
    """Factor on the learning rate of the predictor."""
    backbone_lr: NonNegativeFloat = 1.0
    """Factor on the learning rate of the backbone, without the FPN. Below 1, the backbone stays closer to its initial
    weights, such as ImageNet's; at 0, only its norms' running statistics change."""
    target_momentum: Momentum = 0.99
    """Momentum of the target network at the first step; it follows a cosine to its final value."""
    final_target_momentum: Share = 1.0
    """Momentum of the target network at the end. If both are 0, the target is the online network itself."""
    seed: Seed = 0
    """Random seed for the initial weights, the order of the images and every view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.epochs <= LONGEST, "epochs", f"at most {LONGEST:,.0f}")
        rule = f"at least 1 and divide batch_size ({self.batch_size})"
        self._require(self.batch_size % self.accumulate == 0, "accumulate", rule)
        self._require(self.warmup_epochs <= self.epochs, "warmup_epochs", f"at most epochs ({self.epochs:g})")

    def warmup_for(self, epochs: float) -> float:
        """Warm-up epochs of a run of this length: at most a tenth of it, if it is shorter."""
        return min(self.warmup_epochs, epochs / 10) if 0 < epochs < self.epochs else self.warmup_epochs

    @property
    def lr(self) -> float:
        """The full learning rate: linear scaling with the batch (section 4.1)."""
        return self.base_lr * self.batch_size / 256

    def steps(self, epochs: float, images: int) -> int:
        """Optimiser steps in `epochs` passes over `images` images."""
        return math.floor(epochs * images / self.batch_size + 1e-9)  # 0.29 x 100 is 28.999…
