"""RT-DETR, version 2: transformers' network, trained as its authors train it.

AdamW and its learning rates, gradient clipping, the moving average of weights, the augmentation and the image sizes are
those of the authors' configuration `rtdetrv2_r50vd_6x_coco` (github.com/lyuwenyu/RT-DETR). Differences: the whole
backbone is trained, as in our other detectors, its norms without weight decay, as in the authors' ResNet-18 and 34; of
a ResNet-50 they freeze norms and stem. Strong augmentation and multi-scale training continue to the end. Biases of
encoder and decoder have no weight decay.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.ops import box_convert
from torchvision.transforms import v2

from socodet.detection.detectors.detector import Detector
from socodet.detection.detectors.rt_detr_loss import LOSSES, float32_loss
from socodet.detection.detectors.schedules import ScheduleSettings
from socodet.detection.detectors.settings import InferenceSettings
from socodet.detection.detectors.torchvision_detector import as_float32
from socodet.detection.detectors.transform import Target, flipped, scale_image, scaled_size
from socodet.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from socodet.models.rt_detr import (
    STRIDES,
    depth_of,
    import_transformers,
    neutralize_extra_shortcut,
    reset_norms,
    rt_detr_config,
)
from socodet.models.settings import ModelSettings

SIDE = 640
"""Height and width to which images are scaled, whatever their aspect ratio."""
STEP = 32
"""Sides are multiples of this, the stride of the coarsest feature map."""
QUERIES = 300
"""Number of object queries; fewer if images are so small that their feature maps have fewer cells."""
LEAST_SIDE = 1.0
"""Minimum side in pixels; an object that augmentation or scaling makes smaller is left out."""
BACKBONE_RATE = 0.1
"""Relative learning rate of a backbone with 50 or more layers; smaller ones learn at the full rate."""


class RTDETR(nn.Module):
    """transformers' RT-DETR with the interface of torchvision's detectors. Its `detr` has transformers' tensor names.

    Images of any size are scaled to a square. In training, each step draws the side of the batch: a multiple of 32
    between three and five quarters of the usual side.
    """

    def __init__(self, config: Any, inference: InferenceSettings) -> None:
        super().__init__()
        self.detr = import_transformers("rt_detr").RTDetrV2ForObjectDetection(config)
        reset_norms(self.detr)
        neutralize_extra_shortcut(self.detr.model.backbone.model)
        self.detr.loss_function = float32_loss
        # bfloat16 under autocast would round coordinates of boxes, and of anchors, which have the type of feature maps
        model = self.detr.model
        for module in (model.enc_bbox_head, *self.detr.bbox_embed, *model.decoder_input_proj):
            module.register_forward_hook(as_float32)
        self.side = square(inference.short_side)
        self.training_sides = _training_sides(self.side)
        self.score_threshold, self.detections = inference.score_threshold, inference.detections
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD))

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Images (3, H_i, W_i), RGB in [0, 1] → losses in training mode, otherwise the detections of each image."""
        if self.training:
            assert targets is not None
            side = self.training_sides[int(torch.randint(len(self.training_sides), ()))]
            pixels = torch.stack([interpolate(image[None], (side, side), mode="bilinear")[0] for image in images])
            return self._losses(self.normalized(pixels), images, targets)
        pixels = torch.stack([scale_image(image, (self.side, self.side)) for image in images])
        output = self.detr(pixel_values=self.normalized(pixels))
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return [self._detections(*one) for one in zip(output.logits, output.pred_boxes, sizes, strict=True)]

    def normalized(self, pixels_b3hw: Tensor) -> Tensor:
        """Normalises RGB in [0, 1] for the network."""
        mean, std = self.get_buffer("pixel_mean"), self.get_buffer("pixel_std")
        return (pixels_b3hw - mean[:, None, None]) / std[:, None, None]

    def _losses(self, pixels: Tensor, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The three losses, each summed over the layers and denoising queries, averaged over the objects."""
        labels = []
        for image, target in zip(images, targets, strict=True):
            height, width = image.shape[-2:]
            boxes = box_convert(target["boxes"], "xyxy", "cxcywh") / target["boxes"].new_tensor([width, height] * 2)
            labels.append({"class_labels": target["labels"] - 1, "boxes": boxes})
        by_layer = self.detr(pixel_values=pixels, labels=labels).loss_dict
        share = _share_of_objects(sum(len(target["labels"]) for target in targets), pixels.device)
        losses = {
            loss: share * torch.stack([value for name, value in by_layer.items() if name.startswith(loss)]).sum()
            for loss in LOSSES
        }
        # a batch without objects has no denoising queries, but several processes expect a gradient of every parameter
        losses["loss_vfl"] = losses["loss_vfl"] + 0 * self.detr.model.denoising_class_embed.weight.sum()
        return losses

    def _detections(self, logits_qc: Tensor, boxes_q4: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The detections that score enough, for an image of this height and width."""
        (boxes,), (scores,), (labels,) = self.best(logits_qc[None], boxes_q4[None])
        kept = scores >= self.score_threshold
        height, width = size
        return {
            "boxes": boxes[kept] * boxes.new_tensor([width, height] * 2),
            "scores": scores[kept],
            "labels": labels[kept],
        }

    def best(self, logits_bqc: Tensor, boxes_bq4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each image's best D (query, class) pairs: boxes (B, D, 4), scores and labels (B, D), highest score first.

        Boxes are given as cxcywh and returned as xyxy, both as fractions of the image.
        """
        probabilities = logits_bqc.float().sigmoid().flatten(1)
        stable = {} if torch.jit.is_tracing() else {"stable": True}  # type: ignore[attr-defined,no-untyped-call]
        scores, index = probabilities.sort(descending=True, **stable)  # ONNX's sort is always stable
        scores, index = scores[:, : self.detections], index[:, : self.detections]
        classes = logits_bqc.shape[2]
        query = torch.div(index, classes, rounding_mode="floor")
        of_query = boxes_bq4.float().gather(1, query[..., None].expand(-1, -1, 4))
        boxes = box_convert(of_query.clamp(0, 1), "cxcywh", "xyxy").clamp(0, 1)
        return boxes, scores, index % classes + 1


class RTDETRDetector(Detector):
    """RT-DETR with a ResNet-d as deep as `ModelSettings.backbone`, and `fpn_channels` channels in its encoder."""

    name = "rt_detr"
    compiled = ("detr.model.backbone",)

    def build(self, model: ModelSettings, num_classes: int, inference: InferenceSettings) -> RTDETR:
        """A randomly initialised network; `num_classes` includes the background, for which it has no output."""
        config = rt_detr_config(
            depth_of(model.backbone),
            model.fpn_channels,
            num_labels=num_classes - 1,
            num_queries=min(QUERIES, _cells(min(_training_sides(square(inference.short_side))))),
            initializer_bias_prior_prob=0.01,
            freeze_backbone_batch_norms=False,
        )
        return RTDETR(config, inference)

    def schedule(self, name: str) -> ScheduleSettings:
        """The schedule's length; after 2,000 warm-up steps `lr` is constant. `coco_6x` has the authors' length."""
        return replace(
            super().schedule(name),
            lr=1e-4,
            weight_decay=1e-4,
            warmup_iterations=2000,
            drops=(),
            clip_norm=0.1,
            ema_decay=0.9999,
            ema_warmup=2000,
            short_sides=(SIDE,),
            test_short_side=SIDE,
            max_side=SIDE,
            precise_bn=0,
            detections=QUERIES,
            score_threshold=0.001,
        )

    def optimizer(self, network: nn.Module, settings: ScheduleSettings) -> torch.optim.Optimizer:
        """AdamW, without weight decay of norms and biases, and a lower rate for the backbone."""
        return _optimizer(network, settings)

    def earlier_optimizer(self, network: nn.Module, settings: ScheduleSettings) -> torch.optim.Optimizer:
        """Weight decay applied to the backbone's norms too."""
        return _optimizer(network, settings, decay_backbone_norms=True)

    def training_sample(
        self,
        pixels_hw3: NDArray[np.uint8],
        target_at: Callable[[tuple[int, int]], Target],
        settings: ScheduleSettings,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Target]:
        """Random colour distortion, zooming out, a crop that keeps objects, and a flip; then scaling to a square.

        An image larger than twice the square's side is first shrunk to that size.
        """
        side = square(settings.short_sides[0])
        size = (pixels_hw3.shape[0], pixels_hw3.shape[1])
        if max(size) > 2 * side:
            size = scaled_size(size, 2 * side, 2 * side)
        image = scale_image(torch.from_numpy(pixels_hw3).permute(2, 0, 1), size).contiguous()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator.integers(2**63)))
            image, target = _augmented(image, target_at(size))
            flip = bool(torch.rand(()) < 0.5)
        height, width = image.shape[-2:]
        boxes = target["boxes"] * torch.tensor([side / width, side / height] * 2)
        kept = (boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE).all(dim=1)
        image = scale_image(image, (side, side)).contiguous()
        target = {"boxes": boxes[kept], "labels": target["labels"][kept]}
        return flipped(image, target) if flip else (image, target)


def _optimizer(
    network: nn.Module, settings: ScheduleSettings, *, decay_backbone_norms: bool = False
) -> torch.optim.Optimizer:
    assert isinstance(network, RTDETR)
    bottleneck = network.detr.config.backbone_config.layer_type == "bottleneck"
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        in_backbone = name.startswith("detr.model.backbone.")
        rate = BACKBONE_RATE if in_backbone and bottleneck else 1.0
        decays = parameter.ndim > 1 or (in_backbone and decay_backbone_norms)
        groups.setdefault((rate, settings.weight_decay if decays else 0.0), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr_factor": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        lr=settings.lr,
    )


def _augmented(image_3hw: Tensor, target: Target) -> tuple[Tensor, Target]:
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=image_3hw.shape[-2:])  # type: ignore[call-overload]
    steps: list[nn.Module] = [v2.RandomPhotometricDistort(p=0.5), v2.RandomZoomOut(fill=0)]
    if len(boxes):  # without objects, no crop keeps any
        steps.append(v2.RandomApply([v2.RandomIoUCrop()], p=0.8))
    sample = v2.Compose([*steps, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=LEAST_SIDE)])(
        {"image": tv_tensors.Image(image_3hw), "boxes": boxes, "labels": target["labels"]}
    )
    image, boxes = (sample[name].as_subclass(Tensor) for name in ("image", "boxes"))
    return image, {"boxes": boxes.reshape(-1, 4), "labels": sample["labels"]}


def square(side: int) -> int:
    """The multiple of 32 nearest to `side`, at least 32."""
    return max(STEP, round(side / STEP) * STEP)


def _training_sides(side: int) -> list[int]:
    """The multiples of 32 from three to five quarters of `side`, with `side` itself three times as likely."""
    first, last = -(-3 * side // (4 * STEP)), 5 * side // (4 * STEP)
    return [STEP * n for n in range(max(1, first), last + 1)] + [side, side]


def _cells(side: int) -> int:
    """Total number of cells in the three feature maps of a square image."""
    return sum((side // stride) ** 2 for stride in STRIDES)


def _share_of_objects(here: int, device: torch.device) -> float | Tensor:
    """Factor for a process's losses that makes their mean over processes normalised by the total number of objects."""
    if not dist.is_initialized():
        return 1.0
    everywhere = torch.tensor(float(here), device=device)
    dist.all_reduce(everywhere)
    return dist.get_world_size() * max(here, 1) / everywhere.clamp_min(1)
