"""Features h (Eq. 1) of annotated objects, by a pretrained or an untrained network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from socodet.models.architectures import backbone_settings, build_encoder, encoder_class
from socodet.models.encoders import ObjectEncoder
from socodet.models.normalization import normalize
from socodet.models.settings import ModelSettings
from socodet.probing.retrieval import is_first_occurrence
from socodet.probing.samples import ProbeBatch, ProbeDataset, ProbeSample, View, collate_views, probe_batches
from socodet.runtime.progress import ProgressBar
from socodet.training.learner import StoppedEarlyError
from socodet.training.precise_bn import reestimate_statistics
from socodet.views.batch import ViewBatch


@dataclass(frozen=True)
class ObjectFeatures:
    """Features of a dataset's N objects, in its order, on the CPU."""

    labels: Tensor
    """(N,) int64, from 1."""
    plain: Tensor
    """(N, D) float32 h in the whole image."""
    half: Tensor
    """(N, D) h in the whole image at half the size; (0, D) if the dataset has plain views only."""
    other: Tensor
    """(M, D) h of the M objects that the other view shows; (0, D) if the dataset has plain views only."""
    in_other: Tensor
    """(N,) bool: whether the other view shows the object."""
    once: Tensor
    """(M,) bool: False if an earlier object of the same image has the same box in the other view."""
    unreadable: int
    """Number of images that could not be read."""


BODY = "backbone.body."


def box_encoder(
    settings: ModelSettings, weights: Mapping[str, Tensor] | None, seed: int = 0, *, backbone_alone: bool = False
) -> ObjectEncoder:
    """An encoder of boxes with these weights, or initialised as in a run with this seed if there are none.

    A whole-image network (Table 4's first row) has no box features, so its backbone gets the second row's head:
    RoIAlign of C5, averaged. With `backbone_alone` every other backbone gets this head too. Raises InputError for C4,
    whose head is the backbone's last stage. The caller's random state is unchanged.
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


def reestimate_on(encoder: ObjectEncoder, dataset: ProbeDataset, workers: int, progress: ProgressBar) -> None:
    """Re-estimates the batch norm statistics on the plain views of these images."""
    batches = _readable(dataset, workers, progress)
    reestimate_on_views(encoder, (collate_views([sample.plain for sample in samples]) for samples in batches))


def reestimate_on_views(encoder: ObjectEncoder, views: Iterable[ProbeBatch | ViewBatch]) -> None:
    """Re-estimates the batch norm statistics on these views (`reestimate_statistics`).

    An untrained network has none, and a comparison is fair only if all networks have statistics of the same images.
    """
    device = next(encoder.parameters()).device
    batches = (view.to(device) for view in views)
    reestimate_statistics(encoder, lambda batch: encoder(normalize(batch.pixels), batch.rois), batches)


@torch.no_grad()
def object_features(
    encoder: ObjectEncoder, dataset: ProbeDataset, workers: int, progress: ProgressBar, stop: Sequence[str] = ()
) -> ObjectFeatures:
    """The features of all objects in float32, using running statistics; leaves the encoder in evaluation mode.

    Raises StoppedEarlyError once the list `stop` has an element.
    """
    encoder.eval()
    empty = torch.empty(0, encoder.representation_size)
    labels: list[Tensor] = [torch.empty(0, dtype=torch.int64)]
    plain, half, other = [empty], [empty], [empty]
    in_other: list[Tensor] = [torch.empty(0, dtype=torch.bool)]
    once: list[Tensor] = [torch.empty(0, dtype=torch.bool)]
    read = 0
    for samples in _readable(dataset, workers, progress):
        if stop:
            raise StoppedEarlyError
        read += len(samples)
        labels.append(torch.from_numpy(np.concatenate([sample.labels for sample in samples])))
        plain.append(_encode(encoder, [sample.plain for sample in samples]))
        half.append(_encode(encoder, [sample.half for sample in samples if sample.half is not None]))
        others = [sample.other for sample in samples if sample.other is not None]
        other.append(_encode(encoder, others))
        once += [is_first_occurrence(view.boxes) for view in others]
        in_other += [torch.from_numpy(sample.in_other) for sample in samples if sample.in_other is not None]
    return ObjectFeatures(
        labels=torch.cat(labels),
        plain=torch.cat(plain),
        half=torch.cat(half),
        other=torch.cat(other),
        in_other=torch.cat(in_other),
        once=torch.cat(once),
        unreadable=len(dataset) - read,
    )


def _readable(dataset: ProbeDataset, workers: int, progress: ProgressBar) -> Iterator[list[ProbeSample]]:
    with closing(probe_batches(dataset, workers)) as batches:
        for batch in batches:
            samples = [sample for sample in batch if sample is not None]
            if samples:
                yield samples
            progress.advance(len(batch))


def _encode(encoder: ObjectEncoder, views: list[View]) -> Tensor:
    """(N, D) features of the boxes of these views, in their order."""
    views = [view for view in views if len(view.boxes)]
    if not views:
        return torch.empty(0, encoder.representation_size)
    batch = collate_views(views).to(next(encoder.parameters()).device)
    features: Tensor = encoder(normalize(batch.pixels), batch.rois)
    return features.float().cpu()
