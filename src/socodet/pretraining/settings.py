"""What a network is pretrained with: optimisation and schedules."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from socodet.runtime.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Range, Seed, Settings, Share

Momentum = Annotated[float, Range(0, below=1)]


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Optimisation; the defaults are section 4.1's, for 100 epochs."""

    epochs: PositiveFloat = 100
    """Passes over the images; the number of steps is this times images / batch size, rounded down."""
    batch_size: PositiveInt = 2048
    """Images a step, over all processes."""
    accumulate: PositiveInt = 1
    """Parts a batch is worked off in, for memory's sake; the step is that of their mean gradient. Batch norm takes its
    statistics from each part alone, which changes what is learned: so this belongs to the recipe."""
    base_lr: PositiveFloat = 1.0
    """Learning rate at batch 256; the rate used is this times batch size / 256."""
    warmup_epochs: NonNegativeFloat = 10
    """Epochs over which the learning rate rises linearly to its full value."""
    weight_decay: NonNegativeFloat = 1e-5
    """Of weights; biases and norms have none."""
    optimizer: Literal["lars", "sgd"] = "lars"
    """LARS as in section 4.1, or SGD with momentum."""
    momentum: Momentum = 0.9
    """The optimiser's momentum."""
    trust_coefficient: PositiveFloat = 0.001
    """LARS: the length of a layer's step as a share of the length of its weights, at rate 1."""
    trust_clip: bool = False
    """LARS: a layer's rate is never above the learning rate (LARC), instead of a multiple of it."""
    norm_lr: NonNegativeFloat = 1.0
    """Factor of the learning rate of norms and biases, whose steps LARS does not adapt; Barlow Twins has 0.024."""
    predictor_lr: PositiveFloat = 1.0
    """Factor of the learning rate of the predictor."""
    target_momentum: Momentum = 0.99
    """The target's momentum at the first step; it moves to `final_target_momentum` along a cosine."""
    final_target_momentum: Share = 1.0
    """The target's momentum at the end. With both at 0 the target is the online network itself."""
    seed: Seed = 0
    """Of the initial weights, the order of the images and every draw of a view."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = f"at least 1 and divide batch_size ({self.batch_size})"
        self._require(self.batch_size % self.accumulate == 0, "accumulate", rule)
        self._require(self.warmup_epochs <= self.epochs, "warmup_epochs", f"at most epochs ({self.epochs:g})")

    @property
    def lr(self) -> float:
        """The full learning rate: linear scaling with the batch (section 4.1)."""
        return self.base_lr * self.batch_size / 256

    def steps(self, epochs: float, images: int) -> int:
        """Optimiser steps in `epochs` passes over `images` images."""
        return math.floor(epochs * images / self.batch_size + 1e-9)  # 0.29 x 100 is 28.999…
