"""Does a network find the same object in another view? Recall@1, cosines and similarity maps."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from socodet.models.encoders import ObjectEncoder
from socodet.models.normalization import normalize
from socodet.views.batch import Batch, group_by_level

MEASURED, DRAWS = 48, 4
"""Number of a pretraining run's own images on which recall@1 is measured, and of random draws of their views. As many
other images give batch norm its statistics."""
FIRST_DRAW = 10**6
"""Recall is measured on views of this epoch and later ones, which no run reaches."""
BATCH_SIZE = 16
MAP_CELLS = 16
"""Rows and columns of a similarity map."""
_ROWS = 1024  # queries at once


@torch.no_grad()
def box_features(encoder: ObjectEncoder, batch: Batch, view: int) -> Tensor:
    """Unit-length h (Eq. 1) of every box of one view, with running statistics, in (image, box) order: (B·K, C)."""
    was_training = encoder.training
    encoder.eval()
    device = next(encoder.parameters()).device
    chosen = batch.views[view].to(device)
    features = unit(encoder(normalize(chosen.pixels), chosen.rois).float(), dim=1)
    encoder.train(was_training)
    return features


def recall_at_1(encoder: ObjectEncoder, draws: Iterable[Sequence[Batch]], query: int = 0, gallery: int = 1) -> float:
    """Share of objects whose most similar box among all boxes of another view is the same object.

    draws: independent random draws of the views of the same images, each in as many batches as needed; a query is
    compared with all boxes of its draw. query, gallery: indices of the views. If the first view has more boxes than the
    gallery, only those that the gallery shows are queries. An object that was repeated to fill K boxes counts once.
    """
    found = count = 0
    for batches in draws:
        queries = torch.cat(
            [_shown_in(batch, query, gallery, box_features(encoder, batch, query)) for batch in batches]
        )
        candidates = torch.cat([box_features(encoder, batch, gallery) for batch in batches])
        once = torch.cat([is_first_occurrence(batch.views[gallery].boxes).flatten() for batch in batches])
        once = once.to(queries.device)
        found += int(_is_retrieved(queries[once], candidates[once]).sum())
        count += int(once.sum())
    return found / count


def is_first_occurrence(boxes: Tensor) -> Tensor:
    """(..., K) bool: whether each of an image's boxes (..., K, 4) differs from all before it."""
    same = (boxes[..., :, None, :] == boxes[..., None, :, :]).all(dim=-1)
    return ~torch.tril(same, diagonal=-1).any(dim=-1)


def _shown_in(batch: Batch, query: int, gallery: int, features: Tensor) -> Tensor:
    """The rows of one view's box features, in (image, box) order, of objects that another view also shows."""
    one, other = batch.views[query], batch.views[gallery]
    start = other.partner - one.partner  # of the first view's boxes
    per_image = features.reshape(len(one.pixels), -1, features.shape[1])
    return per_image[:, start : start + other.boxes.shape[1]].flatten(0, 1)


@torch.no_grad()
def similarity_map(encoder: ObjectEncoder, batch: Batch, box: int) -> Tensor:
    """Cosine between the first image's object `box` in the first view and boxes of its size all over the second view.

    Returns (MAP_CELLS, MAP_CELLS), row by row from the top left. A box is centred on each cell of a grid over the
    second view and clipped to the view; it has the object's size and pyramid level in that view.
    """
    device = next(encoder.parameters()).device
    object_feature = box_features(encoder, batch, 0)[box]
    there = batch.views[1]
    size = there.pixels.shape[-1]
    x1, y1, x2, y2 = there.boxes[0, box].tolist()
    centre = (torch.arange(MAP_CELLS) + 0.5) * size / MAP_CELLS
    cy, cx = torch.meshgrid(centre, centre, indexing="ij")
    half_w, half_h = (x2 - x1) / 2, (y2 - y1) / 2
    sliding = torch.stack([cx - half_w, cy - half_h, cx + half_w, cy + half_h], dim=-1).reshape(1, -1, 4)
    sliding = sliding.clamp(0, size)
    level = there.levels[0, box].item()
    rois = group_by_level(sliding, torch.full(sliding.shape[:2], int(level))).to(device)
    was_training = encoder.training
    encoder.eval()
    dense = unit(encoder(normalize(there.pixels[:1].to(device)), rois).float(), dim=1)
    encoder.train(was_training)
    return (dense @ object_feature).reshape(MAP_CELLS, MAP_CELLS).cpu()


def recall_of_rows(queries_nd: Tensor, gallery_nd: Tensor) -> float:
    """Share of queries whose most similar gallery row by cosine has the same index; (N, D) vectors of any length."""
    return float(_is_retrieved(unit(queries_nd, dim=1), unit(gallery_nd, dim=1)).double().mean())


def _is_retrieved(queries_nd: Tensor, gallery_nd: Tensor) -> Tensor:
    """(N,) bool: whether the most similar gallery row has the query's index; takes unit vectors."""
    nearest = torch.cat([(rows @ gallery_nd.T).argmax(dim=1) for rows in torch.split(queries_nd, _ROWS)])
    return nearest == torch.arange(len(nearest), device=nearest.device)


def mean_cosines(one_nd: Tensor, other_nd: Tensor) -> tuple[float, float | None]:
    """Mean cosine of rows with the same index, and of rows with different ones; None if there is only one row."""
    one, other = unit(one_nd.double(), dim=1), unit(other_nd.double(), dim=1)
    same, count = float((one * other).sum()), len(one)
    if count < 2:
        return same / count, None
    return same / count, (float(one.sum(dim=0) @ other.sum(dim=0)) - same) / (count * (count - 1))
