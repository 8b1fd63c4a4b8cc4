"""Nearest neighbours: the objects of other images that a network finds most similar."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from socodet.probing.retrieval import FIRST_DRAW
from socodet.reports.drawing import panel_image
from socodet.reports.images import Boxes, ShownImage, medium_box
from socodet.reports.networks import Network
from socodet.reports.page import Grid, PageImage, Section
from socodet.reports.panels import object_panel
from socodet.reports.theme import object_colour
from socodet.views.sample import sample_rng

QUERIES = 4
"""Number of objects whose neighbours are shown, each from a different image."""
OBJECTS = 8
"""Number of proposals per image that are searched."""
NEIGHBOURS = 5


def neighbour_section(networks: Sequence[Network], images: Sequence[ShownImage]) -> Section | None:
    """Objects of a few images, and their nearest neighbours in all other images according to each network.

    None if fewer than two images have a proposal.
    """
    images = [replace(image, boxes=_some_boxes(image)) for image in images if len(image.boxes)]
    if len(images) < 2:
        return None
    image_of = np.repeat(np.arange(len(images)), [len(image.boxes) for image in images])
    boxes = np.concatenate([image.boxes for image in images])
    features = {network.name: network.object_features(images) for network in networks}
    grids = []
    for place, image in enumerate(images[:QUERIES]):
        query = int(np.flatnonzero(image_of == place)[medium_box(image.boxes, *image.pixels.shape[:2])])
        asked = _crop(image, boxes[query], object_colour(0), "query", f"an object of {image.key}")
        rows = []
        for name, of_network in features.items():
            nearest, cosines = nearest_elsewhere(of_network, image_of, query, NEIGHBOURS)
            row = []
            for rank, (found, cosine) in enumerate(zip(nearest.tolist(), cosines.tolist(), strict=True), 1):
                there = images[image_of[found]]
                alt = f"neighbour {rank} by {name}: an object of {there.key}, cosine {cosine:.2f}"
                row.append(_crop(there, boxes[found], object_colour(1), f"{cosine:.2f}", alt))
            rows.append((name, row))
        grids.append(Grid(rows, asked, narrow=NEIGHBOURS))
    return Section(
        "Nearest neighbours",
        f"An object, and the {NEIGHBOURS} most similar of {len(boxes):,} proposals in {len(images)} images by the "
        "cosine of h (Eq. 1), which is printed below; at most one per image, and none from the object's own image. A "
        "good run finds objects of the same class or parts of them; an untrained network finds similar colours and "
        "sizes.",
        grids,
    )


def nearest_elsewhere(
    features: NDArray[np.float32], image_of: NDArray[np.int64], query: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Finds the objects most similar to the object `query`, at most one per image and none from its own image.

    features: (N, D) of unit length. image_of: (N,) the image of each object. Returns up to `count` row numbers and
    their cosines, highest first; on a tie the lower row comes first.
    """
    cosines = features @ features[query]
    found: list[int] = []
    seen = {int(image_of[query])}
    for row in np.argsort(-cosines, kind="stable").tolist():
        if len(found) == count:
            break
        if int(image_of[row]) not in seen:
            seen.add(int(image_of[row]))
            found.append(row)
    rows = np.array(found, np.int64)
    return rows, cosines[rows]


def _some_boxes(image: ShownImage) -> Boxes:
    return sample_rng(0, FIRST_DRAW, image.index).permutation(image.boxes)[:OBJECTS]


def _crop(image: ShownImage, box: Boxes, colour: str, title: str, alt: str) -> PageImage:
    return panel_image(object_panel(image.pixels, box, colour, title=title, alt=alt), height=120, zoom=1.25)
