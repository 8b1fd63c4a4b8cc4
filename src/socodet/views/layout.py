"""Where each view's boxes are in the one array that holds all of a sample's boxes; the same for every sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BoxLayout:
    """N boxes, view after view: S·K in the first view (S sets of K objects), K in each other view."""

    sets: tuple[NDArray[np.intp], ...]
    """For each set of objects, the views that show it, the first view first."""
    partners: tuple[int, ...]
    """For each view, the index of its first object among the S·K."""
    sizes: NDArray[np.float64]
    """(V, 1, 1) width and height of each view, pixels."""
    view_of: NDArray[np.intp]
    """(N,) the view of each box."""
    object_of: NDArray[np.intp]
    """(N,) the object of each box, 0..S·K - 1."""
    size_of: NDArray[np.float64]
    """(N, 1) the size of the box's view."""
    own: tuple[slice, ...]
    """For each view, its slice of the N boxes."""


def box_layout(sizes: Sequence[int], object_sets: Sequence[int], boxes_per_image: int) -> BoxLayout:
    """The layout of views of these sizes; view v > 0 shows set `object_sets[v]` of K = `boxes_per_image` objects."""
    partners = tuple(number * boxes_per_image for number in object_sets)
    counts = [max(partners) + boxes_per_image, *[boxes_per_image] * (len(partners) - 1)]
    ends = np.cumsum(counts).tolist()
    view_of = np.repeat(np.arange(len(counts)), counts)
    return BoxLayout(
        sets=tuple(
            np.array([0, *(v for v in range(1, len(object_sets)) if object_sets[v] == number)])
            for number in range(max(object_sets) + 1)
        ),
        partners=partners,
        sizes=np.array(sizes, np.float64)[:, None, None],
        view_of=view_of,
        object_of=np.concatenate([np.arange(at, at + count) for at, count in zip(partners, counts, strict=True)]),
        size_of=np.array(sizes, np.float64)[view_of, None],
        own=tuple(slice(end - count, end) for end, count in zip(ends, counts, strict=True)),
    )
