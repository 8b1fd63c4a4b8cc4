"""Features h (Eq. 1) of annotated objects, by a pretrained or a fresh network."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from socodet.models.encoders import ObjectEncoder, backbone_settings, build_encoder, encoder_class
from socodet.models.normalization import normalize
from socodet.models.settings import ModelSettings
from socodet.probing.pictures import ProbePictures, Shown, View, ViewsOfBatch, picture_loader, together
from socodet.runtime.progress import ProgressBar
from socodet.training.loop import loader_batches
from socodet.training.precise_bn import reestimate_statistics


@dataclass(frozen=True)
class ObjectFeatures:
    """Features of a set's N objects, in the order of the set, on the CPU."""

    labels: Tensor
    """(N,) int64, from 1."""
    plain: Tensor
    """(N, D) float32 h in the whole picture."""
    half: Tensor
    """(N, D) in the whole picture at half the side; (0, D) where only the plain view was asked for."""
    other: Tensor
    """(M, D) in the other view, of the M objects that it shows; (0, D) likewise."""
    in_other: Tensor
    """(N,) bool: which of the N these are."""
    unreadable: int
    """Pictures that could not be read."""


BODY = "backbone.body."


def box_encoder(
    settings: ModelSettings, weights: Mapping[str, Tensor] | None, seed: int = 0, *, backbone_alone: bool = False
) -> ObjectEncoder:
    """The encoder of boxes with these weights; without any, as a run of this seed begins.

    A whole-image network (Table 4's first row) has no vector of a box. Its backbone is given the head of the second
    row's: RoIAlign of C5, averaged. With `backbone_alone` so is the backbone of any other. InputError for C4, whose
    head is the backbone's last stage. The caller's random state is left alone.
    """
    of_backbone = backbone_alone or not encoder_class(settings).encodes_boxes
    asked = backbone_settings(settings) if of_backbone else settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is None:
            weights = build_encoder(settings).state_dict()
        if of_backbone:
            weights = {name: value for name, value in weights.items() if name.startswith(BODY)}
        encoder = build_encoder(asked)
    encoder.load_state_dict(weights)
    return encoder


def reestimate_on(encoder: ObjectEncoder, pictures: ProbePictures, workers: int, progress: ProgressBar) -> None:
    """Takes the batch-norm statistics from the plain views of these pictures: a fresh network has none of its own."""
    device = next(encoder.parameters()).device

    def forward(batch: ViewsOfBatch) -> None:
        encoder(normalize(batch.pixels), batch.rois)

    reestimate_statistics(
        encoder,
        forward,
        (together([one.plain for one in shown]).to(device) for shown in _readable(pictures, workers, progress)),
    )


@torch.no_grad()
def object_features(
    encoder: ObjectEncoder, pictures: ProbePictures, workers: int, progress: ProgressBar
) -> ObjectFeatures:
    """Features by running statistics, in float32; the encoder is left in evaluation mode."""
    encoder.eval()
    empty = torch.empty(0, encoder.representation_size)
    labels: list[Tensor] = [torch.empty(0, dtype=torch.int64)]
    plain, half, other = [empty], [empty], [empty]
    in_other: list[Tensor] = [torch.empty(0, dtype=torch.bool)]
    read = 0
    for shown in _readable(pictures, workers, progress):
        read += len(shown)
        labels.append(torch.from_numpy(np.concatenate([one.labels for one in shown])))
        plain.append(_encode(encoder, [one.plain for one in shown]))
        half.append(_encode(encoder, [one.half for one in shown if one.half is not None]))
        other.append(_encode(encoder, [one.other for one in shown if one.other is not None]))
        in_other += [torch.from_numpy(one.in_other) for one in shown if one.in_other is not None]
    return ObjectFeatures(
        labels=torch.cat(labels),
        plain=torch.cat(plain),
        half=torch.cat(half),
        other=torch.cat(other),
        in_other=torch.cat(in_other),
        unreadable=len(pictures) - read,
    )


def _readable(pictures: ProbePictures, workers: int, progress: ProgressBar) -> Iterator[list[Shown]]:
    for batch in loader_batches(picture_loader(pictures, workers)):
        shown = [one for one in batch if one is not None]
        if shown:
            yield shown
        progress.advance(len(batch))


def _encode(encoder: ObjectEncoder, views: list[View]) -> Tensor:
    """(N, D) of the boxes of these views, in their order."""
    views = [view for view in views if len(view.boxes)]
    if not views:
        return torch.empty(0, encoder.representation_size)
    batch = together(views).to(next(encoder.parameters()).device)
    features: Tensor = encoder(normalize(batch.pixels), batch.rois)
    return features.float().cpu()
