"""Recipes that are not in the paper: for fewer than sixteen GPUs."""

import dataclasses

from socodet.models.settings import ModelSettings
from socodet.pretraining.recipes.recipe import Recipe
from socodet.pretraining.settings import TrainingSettings
from socodet.views.settings import PhotometricSettings, SampleSettings, three_views


def fpn_single_gpu() -> Recipe:
    """SoCo-R50-FPN with batches of 256 on one GPU, 100 epochs; not among the paper's experiments.

    The learning rate scales with the batch, as in the paper. The target momentum is raised to 1 - 0.01 x 256 / 2048, so
    that the target averages over as many images as with batches of 2048. If the GPU has too little memory for 256
    images, `--accumulate 4` splits a batch into four micro-batches of 64. Optimiser, target and schedules still take
    one step per batch, but batch norm uses the statistics of each micro-batch, so it is not quite the same run.

    socodet pretrain IMAGES --recipe fpn_single_gpu --output runs/fpn_single_gpu
    """
    training = TrainingSettings(batch_size=256, target_momentum=1 - 0.01 * 256 / 2048)
    return Recipe("fpn_single_gpu", training=training)


def rt_detr_100ep() -> Recipe:
    """RT-DETR's ResNet-50-d, input projections and hybrid encoder, batches of 256, 100 epochs; not in the paper.

    SoCo's principle for a current detector: boxes are pooled from the hybrid encoder's three maps (strides 8, 16, 32),
    those of up to 96 pixels from the first. Rates and momentum are `fpn_single_gpu`'s. Needs timm and transformers.

    socodet pretrain IMAGES --recipe rt_detr_100ep --output runs/rt_detr
    socodet finetune SET --detector rt_detr --init runs/rt_detr --output runs/detector
    """
    model = ModelSettings(architecture="rt_detr", backbone="timm/resnet50d")
    return dataclasses.replace(fpn_single_gpu(), name="rt_detr_100ep", model=model)


def tiny() -> Recipe:
    """ResNet-18-FPN on small views: the same code path in minutes on two CPU cores.

    Views of 96 and 48 pixels, with the blur scaled to them; narrower pyramid, head and MLPs. The level limits give
    every pyramid level its share of the boxes (section 3.3's, scaled, would leave P5 nearly empty). The learning rate
    is high because LARS changes a layer's weights by a fixed share of their norm per step, and a short run has few
    steps.

    socodet pretrain IMAGES --recipe tiny --output runs/tiny
    """
    return Recipe(
        "tiny",
        sample=SampleSettings(
            views=three_views(96, PhotometricSettings(blur_sigma=(0.1, 0.9))),
            level_limits=(20, 32, 48),
            min_box_side=6,
        ),
        model=ModelSettings(
            backbone="resnet18",
            fpn_channels=64,
            head_channels=64,
            representation_size=256,
            hidden_size=512,
            embedding_size=128,
        ),
        training=TrainingSettings(epochs=100, warmup_epochs=5, batch_size=12, base_lr=1.0 * 256 / 12),
    )
