"""Where in another view is this object? One embedding against every place, as a heat map."""

import numpy as np
from numpy.typing import NDArray

from socodet.reports.drawing import Panel
from socodet.reports.theme import object_colour


def similarity_panels(
    query_image: NDArray[np.uint8],
    query_box: NDArray[np.float32],
    view_image: NDArray[np.uint8],
    view_box: NDArray[np.float32],
    similarity: NDArray[np.float32],
    *,
    object_index: int = 0,
    limits: tuple[float, float] | None = None,
    title: str = "another view",
) -> tuple[Panel, Panel]:
    """The object in its own view, and beside it the other view under the map of similarities.

    query_image: (H, W, 3) and view_image: (H', W', 3) RGB. query_box and view_box: (4,) xyxy, the object in
    either picture. similarity: (h, w) cosines of the object's embedding with that of each place, a grid over
    the whole of view_image. The most similar place is marked by a cross. `object_index` picks the object's
    colour; `limits` are the cosines drawn darkest and brightest, by default the map's own: give the same to
    maps that are to be compared.
    """
    height, width = view_image.shape[:2]
    row, column = np.unravel_index(int(similarity.argmax()), similarity.shape)
    peak = ((column + 0.5) * width / similarity.shape[1], (row + 0.5) * height / similarity.shape[0])
    x1, y1, x2, y2 = view_box
    where = "inside" if x1 <= peak[0] <= x2 and y1 <= peak[1] <= y2 else "outside"
    colours = (object_colour(object_index),)
    asked = Panel(
        title="the object",
        image=query_image,
        boxes=query_box.reshape(1, 4),
        colours=colours,
        alt="an object, marked by a box, in its own view",
    )
    found = Panel(
        title=title,
        image=view_image,
        boxes=view_box.reshape(1, 4),
        colours=colours,
        heat=similarity,
        heat_range=limits or (float(similarity.min()), float(similarity.max())),
        mark=peak,
        alt=f"{title}: the most similar place lies {where} the object's box, cosine {similarity.max():.2f}",
    )
    return asked, found
