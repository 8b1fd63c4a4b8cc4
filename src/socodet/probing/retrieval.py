"""Does a network find the same object in another view? Recall@1, and the similarity picture."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from socodet.models.encoders import ObjectEncoder
from socodet.models.normalization import normalize
from socodet.views.batch import Batch, group_by_level


@torch.no_grad()
def box_features(encoder: ObjectEncoder, batch: Batch, view: int) -> Tensor:
    """Unit-length h (Eq. 1) of every box of one view, in (image, box) order: (B·K, C). Uses running statistics."""
    was_training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    chosen = batch.views[view].to(device)
    features = unit(encoder(normalize(chosen.pixels), chosen.rois).float(), dim=1)
    encoder.train(was_training)
    return features


def recall_at_1(encoder: ObjectEncoder, draws: Iterable[Sequence[Batch]], query: int = 0, gallery: int = 1) -> float:
    """Share of objects whose most similar box among all of another view's boxes is the same object.

    `draws` are independent draws of the views of one image set, each in as many batches as it takes; every
    query searches all boxes of its draw. Views count from 0. Of a first view with more boxes than the gallery's
    view, those that the gallery shows are asked for.
    """
    found = asked = 0
    for batches in draws:
        queries = torch.cat(
            [_shown_in(batch, query, gallery, box_features(encoder, batch, query)) for batch in batches]
        )
        candidates = torch.cat([box_features(encoder, batch, gallery) for batch in batches])
        nearest = (queries @ candidates.T).argmax(dim=1)
        found += int((nearest == torch.arange(len(queries), device=nearest.device)).sum())
        asked += len(queries)
    return found / asked


def _shown_in(batch: Batch, query: int, gallery: int, features: Tensor) -> Tensor:
    """Of features of the boxes of one view, (image, box) order, those of the objects of another."""
    one, other = batch.views[query], batch.views[gallery]
    start = other.partner - one.partner  # of the first view's boxes
    per_image = features.reshape(len(one.pixels), -1, features.shape[1])
    return per_image[:, start : start + other.boxes.shape[1]].flatten(0, 1)


@torch.no_grad()
def similarity_map(
    encoder: ObjectEncoder,
    batch: Batch,
    image: int,
    box: int,
    *,
    query: int = 0,
    view: int = 1,
    cells: int = 16,
) -> Tensor:
    """Cosine of one object's h in view `query` with a box of its size at every place of view `view`.

    Returns (cells, cells), row by row from the top left. The box slides with its centre on a grid over the
    view, cut off at the border; it has the size and the pyramid level that the object has in that view.
    """
    device = next(encoder.parameters()).device
    features = box_features(encoder, batch, query)
    boxes_per_image = batch.views[query].boxes.shape[1]
    object_feature = features[image * boxes_per_image + box]
    there = batch.views[view]
    size = there.pixels.shape[-1]
    x1, y1, x2, y2 = there.boxes[image, box].tolist()
    centre = (torch.arange(cells) + 0.5) * size / cells
    cy, cx = torch.meshgrid(centre, centre, indexing="ij")
    half_w, half_h = (x2 - x1) / 2, (y2 - y1) / 2
    sliding = torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1).reshape(1, -1, 4)
    sliding = sliding.clamp(0, size)
    level = there.levels[image, box].item()
    rois = group_by_level(sliding, torch.full(sliding.shape[:2], int(level))).to(device)
    was_training = encoder.training
    encoder.eval()
    dense = unit(encoder(normalize(there.pixels[image : image + 1].to(device)), rois).float(), dim=1)
    encoder.train(was_training)
    return (dense @ object_feature).reshape(cells, cells).cpu()
