"""RT-DETR's loss as in its authors' code, computed with transformers' network and criterion."""

import math
from typing import Any

import torch
from torch import Tensor

LOSSES = ("loss_vfl", "loss_bbox", "loss_giou")
Layer = dict[str, Tensor]
"""Class logits (B, Q, C) and boxes (B, Q, 4), cxcywh as fractions of the image."""


def float32_loss(
    logits_bqc: Tensor,
    labels: list[dict[str, Tensor]],
    device: torch.device,
    boxes_bq4: Tensor,
    config: Any,
    of_layers_blqc: Tensor,
    boxes_blq4: Tensor,
    enc_topk_logits: Tensor,
    enc_topk_bboxes: Tensor,
    denoising_meta_values: dict[str, Any] | None = None,
    **_more: Any,
) -> tuple[Tensor, dict[str, Tensor], None]:
    """The loss in float32, whatever the network's precision, and its parts by name; called by transformers.

    If denoising queries precede the detection queries, each layer's loss is that of the detection queries, and the
    denoising queries have a separate loss. Older releases of transformers include them in the last layer's loss. The
    matcher then prefers them, because they lie near the objects, and the detection queries learn to find nothing.
    """
    from transformers.loss.loss_rt_detr import RTDetrLoss

    given = logits_bqc, boxes_bq4, of_layers_blqc, boxes_blq4, enc_topk_logits, enc_topk_bboxes
    if not all(bool(value.isfinite().all()) for value in given):  # otherwise the matcher raises a ValueError
        nan = torch.stack([value.float().sum() for value in given]).sum() * math.nan
        return nan, dict.fromkeys(LOSSES, nan), None
    with torch.autocast(device.type, enabled=False):
        logits, boxes = of_layers_blqc.float(), look_forward_twice(boxes_blq4.float())
        outputs: dict[str, Any] = {}
        if denoising_meta_values is not None:
            split = denoising_meta_values["dn_num_split"]
            (of_noise, logits), (noise, boxes) = (torch.split(every, split, dim=2) for every in (logits, boxes))
            outputs = {"dn_auxiliary_outputs": _layers(of_noise, noise), "denoising_meta_values": denoising_meta_values}
        *others, last = _layers(logits, boxes)
        of_encoder = {"logits": enc_topk_logits.float(), "pred_boxes": enc_topk_bboxes.float()}
        by_name = RTDetrLoss(config).to(device)({**last, "auxiliary_outputs": [*others, of_encoder], **outputs}, labels)
        return torch.stack([*by_name.values()]).sum(), by_name, None


def look_forward_twice(boxes_blq4: Tensor) -> Tensor:
    """The boxes of all layers, first to last, with gradients that also reach the previous layer.

    Each layer refines the boxes of the previous one: σ(δ + σ⁻¹(box)). transformers stops the gradient there; the
    authors' code does not ("look forward twice", Zhang et al. 2023, DINO). The values do not change.
    """
    before = torch.logit(boxes_blq4[:, :-1], eps=1e-5)
    slope = (boxes_blq4[:, 1:] * (1 - boxes_blq4[:, 1:])).detach()
    return torch.cat([boxes_blq4[:, :1], boxes_blq4[:, 1:] + slope * (before - before.detach())], dim=1)


def _layers(logits_blqc: Tensor, boxes_blq4: Tensor) -> list[Layer]:
    pairs = zip(logits_blqc.unbind(1), boxes_blq4.unbind(1), strict=True)
    return [{"logits": logits, "pred_boxes": boxes} for logits, boxes in pairs]
