"""Does a network find the same object in another view? Recall@1 and similarity maps."""

from collections.abc import Mapping, Sequence

from socodet.probing.retrieval import DRAWS, FIRST_DRAW, similarity_map
from socodet.reports.drawing import panel_image
from socodet.reports.images import ShownImage, medium_box
from socodet.reports.networks import Network
from socodet.reports.page import Grid, PageImage, Section, Table
from socodet.reports.panels import Panel, similarity_panels

MAPS = 3
"""Number of images shown with similarity maps."""


def retrieval_section(
    networks: Sequence[Network],
    images: Sequence[ShownImage],
    recall: Mapping[str, Sequence[float]],
    seed: int,
    text: str,
) -> Section:
    """Each network's recall@1 from V1 to the other views, and similarity maps of one object per image."""
    with_objects = [image for image in images if len(image.boxes)]
    galleries = range(len(next(iter(recall.values()))))
    return Section(
        "The same object in another view",
        f"Up to {networks[0].question.boxes_per_image} objects of V1 in each of {len(images)} images are searched for "
        f"among all objects of the other view, in {DRAWS} draws of the views. {text}\n\n"
        "The maps show an object in V1, and V2 coloured by the cosine of the object's features h (Eq. 1) with those of "
        "a box of its size at every location. Each map has its own colour range, printed on it. The box marks the "
        "object in V2 and the cross the most similar location; the text below says whether the cross is inside the "
        "box, as it should be.",
        [
            Table(
                ("Network", *(f"V1 → V{g + 2}" for g in galleries)),
                [(name, *(f"{share:.1%}" for share in shares)) for name, shares in recall.items()],
                caption="Recall@1",
            ),
            Grid([("", _similarity_row(networks, image, seed)) for image in with_objects[:MAPS]], narrow=5),
        ],
    )


def _similarity_row(networks: Sequence[Network], image: ShownImage, seed: int) -> list[PageImage]:
    """One object in its own view, and another view overlaid with each network's map."""
    panels: list[Panel] = []
    for network in networks:
        draw = network.draw([image], seed, FIRST_DRAW)
        query, view = (draw.views[v].pixels[0].permute(1, 2, 0).contiguous().numpy() for v in (0, 1))
        chosen = medium_box(draw.views[1].boxes[0].numpy(), *view.shape[:2])
        boxes = [draw.views[v].boxes[0, chosen].numpy() for v in (0, 1)]
        cosine = similarity_map(network.encoder, draw, chosen).numpy()
        asked, found = similarity_panels(query, boxes[0], view, boxes[1], cosine, title=network.name)
        panels += [found] if panels else [asked, found]
    return [panel_image(panel, 240, 1.2) for panel in panels]
