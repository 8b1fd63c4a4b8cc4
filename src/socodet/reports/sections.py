"""Sections of a page that need pictures and networks: proposals, views, and what networks make of objects in them."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from socodet.errors import UnreadableImageError
from socodet.images.decode import decode_image
from socodet.images.source import ImageSource
from socodet.models.encoders import ObjectEncoder
from socodet.models.normalization import normalize, reestimate_batch_norm
from socodet.probing.pictures import View, together
from socodet.probing.retrieval import recall_at_1, similarity_map
from socodet.reports.drawing import Panel, proposal_panel, sample_panels
from socodet.reports.inspect import panel_picture
from socodet.reports.neighbours import nearest_elsewhere, object_panel
from socodet.reports.page import Gallery, Grid, Picture, Section, Table
from socodet.reports.pca import cells_png, principal_colours
from socodet.reports.similarity import similarity_panels
from socodet.reports.theme import object_colour
from socodet.views import make_sample, sample_rng
from socodet.views.batch import Batch, collate
from socodet.views.geometry import WHOLE
from socodet.views.photometric import UNCHANGED
from socodet.views.rendering import render, show_window
from socodet.views.sample import box_levels
from socodet.views.settings import SampleSettings

LONGEST = 640
"""Pictures are kept at most so many pixels long: there may be many, of any size, and none is shown larger."""
SHOWN, SAMPLES, MAPS, QUERIES, COLOURED = 12, 3, 3, 4, 4
"""Pictures shown: with proposals, with views, with similarity maps, as the question to others, as colours."""
MEASURED, DRAWS = 48, 4
"""Pictures that recall is measured on, and draws of their views."""
OBJECTS, NEIGHBOURS = 8, 5
"""Objects of a picture that can be found, and how many are shown."""
AT_ONCE = 16
"""Pictures a batch."""
LATER = 10**6
"""Draws are of training's own kind, from epochs no run reaches; the first ones give batch norm its statistics."""

Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class ShownPicture:
    """One picture of a set, with its proposals."""

    index: int
    """In the source."""
    key: str
    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    boxes: Boxes
    """(N, 4) xyxy in pixels; N may be 0."""


@dataclass(frozen=True)
class Network:
    """A network under the name that the page gives it."""

    name: str
    encoder: ObjectEncoder
    question: SampleSettings
    """The views that it is asked about; the first is the one that objects are taken from."""

    def draw(self, pictures: Sequence[ShownPicture], seed: int, epoch: int) -> Batch:
        """One draw of the views of every picture."""
        return collate(
            [(p.index, make_sample(p.pixels, p.boxes, self.question, _rng(seed, epoch, p))) for p in pictures]
        )

    def take_statistics(self, pictures: Sequence[ShownPicture], seed: int) -> None:
        """Takes its batch norms' statistics from these pictures."""
        device = next(self.encoder.parameters()).device
        draws = (self.draw(pictures, seed, epoch).to(device) for epoch in range(DRAWS))
        reestimate_batch_norm(self.encoder, (view for draw in draws for view in draw.views))


def _rng(seed: int, epoch: int, picture: ShownPicture) -> np.random.Generator:
    return sample_rng(seed, epoch, picture.index)


def readable_pictures(
    source: ImageSource, boxes_of: Callable[[str, NDArray[np.uint8]], Boxes], limit: int
) -> Iterator[ShownPicture]:
    """The first `limit` images of a fixed shuffle that can be read; `boxes_of` a key and pixels gives the proposals."""
    found = 0
    for index in np.random.default_rng(0).permutation(len(source)).tolist():
        try:
            pixels = decode_image(source.read(index))
        except (UnreadableImageError, OSError):
            continue
        key = source.key(index)
        yield _shrunk(ShownPicture(index, key, pixels, boxes_of(key, pixels)))
        found += 1
        if found == limit:
            return


def _shrunk(picture: ShownPicture) -> ShownPicture:
    height, width = picture.pixels.shape[:2]
    if max(height, width) <= LONGEST:
        return picture
    size = [max(1, round(edge * LONGEST / max(height, width))) for edge in (width, height)]
    pixels = np.asarray(Image.fromarray(picture.pixels).resize((size[0], size[1]), Image.Resampling.BOX))
    factor = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return replace(picture, pixels=pixels, boxes=picture.boxes * factor)


def proposal_pictures(pictures: Sequence[ShownPicture]) -> Gallery:
    """Their proposals drawn on them."""
    return Gallery([panel_picture(proposal_panel(p.key, p.pixels, p.boxes), zoom=1.3) for p in pictures])


def view_pictures(pictures: Sequence[ShownPicture], sample: SampleSettings, seed: int) -> list[Gallery]:
    """A row a picture: its objects, and one draw of its views."""
    samples = [make_sample(p.pixels, p.boxes, sample, _rng(seed, 0, p)) for p in pictures]
    return [
        Gallery([panel_picture(panel, 230, 1.4) for panel in sample_panels(p.key, p.pixels, s)], size="small")
        for p, s in zip(pictures, samples, strict=True)
    ]


def retrieval(networks: Sequence[Network], pictures: Sequence[ShownPicture], seed: int) -> dict[str, list[float]]:
    """Of each network recall@1 from the first view's objects to each other view, over `DRAWS` draws."""
    found = {}
    for network in networks:
        draws = [[network.draw(part, seed, LATER + draw) for part in _parts(pictures)] for draw in range(DRAWS)]
        galleries = range(1, len(network.question.views))
        found[network.name] = [recall_at_1(network.encoder, draws, 0, gallery) for gallery in galleries]
    return found


def retrieval_section(
    networks: Sequence[Network], pictures: Sequence[ShownPicture], recall: dict[str, list[float]], seed: int, text: str
) -> Section:
    """The table of `recall`, and the similarity maps of an object of each of a few pictures."""
    shown = [p for p in pictures if len(p.boxes)][:MAPS]
    rows = [_similarity_row(networks, picture, seed) for picture in shown]
    galleries = range(len(next(iter(recall.values()))))
    return Section(
        "The same object in another view",
        f"Each of {networks[0].question.boxes_per_image} objects of V1 in {len(pictures)} pictures searches all boxes "
        f"of the other view, over {DRAWS} draws of the views. {text}\n\n"
        "The maps: an object in V1, and beside it V2 under the cosine of the object's vector h (Eq. 1) with that of a "
        "box of its size at every place, each in a colour range of its own that is printed on it. The box marks where "
        "the object is in V2, the cross the most similar place. In a good run the bright spot is small and in the box.",
        [
            Table(
                ("Network", *(f"V1 → V{g + 2}" for g in galleries)),
                [(name, *(f"{share:.1%}" for share in shares)) for name, shares in recall.items()],
                caption="Recall@1",
            ),
            Grid([("", row) for row in rows], narrow=5),
        ],
    )


def _similarity_row(networks: Sequence[Network], picture: ShownPicture, seed: int) -> list[Picture]:
    """One object: in its own view, and the other view under the map of each network."""
    panels: list[Panel] = []
    for network in networks:
        draw = network.draw([picture], seed, LATER)
        query, view = (draw.views[v].pixels[0].permute(1, 2, 0).contiguous().numpy() for v in (0, 1))
        chosen = _middling(draw.views[1].boxes[0].numpy(), *view.shape[:2])
        boxes = [draw.views[v].boxes[0, chosen].numpy() for v in (0, 1)]
        cosine = similarity_map(network.encoder, draw, 0, chosen).numpy()
        asked, found = similarity_panels(query, boxes[0], view, boxes[1], cosine, title=network.name)
        panels += [asked, found] if not panels else [found]
    return [panel_picture(panel, 240, 1.2) for panel in panels]


def neighbour_section(networks: Sequence[Network], pictures: Sequence[ShownPicture]) -> Section:
    """Objects of a few pictures, and what each network finds most alike in all the others."""
    pictures = [replace(p, boxes=_some_boxes(p)) for p in pictures if len(p.boxes)]
    image_of = np.repeat(np.arange(len(pictures)), [len(p.boxes) for p in pictures])
    objects = np.concatenate([p.boxes for p in pictures])
    features = {network.name: _object_features(network, pictures) for network in networks}
    grids = []
    for image in range(min(QUERIES, len(pictures))):
        query = int(
            np.flatnonzero(image_of == image)[_middling(pictures[image].boxes, *pictures[image].pixels.shape[:2])]
        )
        alt = f"an object of {pictures[image].key}"
        asked = _cut(pictures[image], objects[query], object_colour(0), "asked for", alt)
        rows = []
        for name, of_network in features.items():
            nearest, cosines = nearest_elsewhere(of_network, image_of, query, NEIGHBOURS)
            row = []
            for place, (found, cosine) in enumerate(zip(nearest.tolist(), cosines.tolist(), strict=True), 1):
                there = pictures[image_of[found]]
                alt = f"neighbour {place} by {name}: an object of {there.key}, cosine {cosine:.2f}"
                row.append(_cut(there, objects[found], object_colour(1), f"{cosine:.2f}", alt))
            rows.append((name, row))
        grids.append(Grid(rows, asked, narrow=NEIGHBOURS))
    return Section(
        "Nearest neighbours",
        f"An object, and the {NEIGHBOURS} most similar of {len(objects):,} proposals in {len(pictures)} pictures by "
        "the cosine of h (Eq. 1), printed below, at most one of each picture and none of its own. A good run finds "
        "objects of the same kind, or parts of such objects; an untrained network finds the same colours and sizes.",
        grids,
    )


def _some_boxes(picture: ShownPicture) -> Boxes:
    return sample_rng(0, LATER, picture.index).permutation(picture.boxes)[:OBJECTS]


def _middling(boxes: Boxes, height: int, width: int) -> int:
    """The object whose size is nearest to half of the picture's: large enough to be seen, and not all of it."""
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / (height * width))
    return int(np.abs(sides - 0.5).argmin())


def _cut(picture: ShownPicture, box: Boxes, colour: str, title: str, alt: str) -> Picture:
    return panel_picture(object_panel(picture.pixels, box, colour, title=title, alt=alt), height=120, zoom=1.25)


@torch.no_grad()
def _object_features(network: Network, pictures: Sequence[ShownPicture]) -> NDArray[np.float32]:
    """Unit-length h of every box, each picture made square as the first view shows it, unchanged: (N, D)."""
    found = []
    device = next(network.encoder.parameters()).device
    for part in _parts(pictures):
        batch = together([plain_view(p, network.question) for p in part]).to(device)
        network.encoder.eval()
        h: Tensor = network.encoder(normalize(batch.pixels), batch.rois)
        found.append(torch.nn.functional.normalize(h.float(), dim=1).cpu())
    features: NDArray[np.float32] = torch.cat(found).numpy()
    return features


def plain_view(picture: ShownPicture, question: SampleSettings, times: int = 1) -> View:
    """All of a picture in its own colours at the side of the first view, or `times` that, with its boxes."""
    side = question.views[0].size * times
    height, width = picture.pixels.shape[:2]
    boxes = picture.boxes.astype(np.float64) / [width, height, width, height] * side
    levels = torch.from_numpy(box_levels(boxes, question))
    pixels = render(show_window(picture.pixels, WHOLE, side), UNCHANGED, False)
    return View(torch.from_numpy(pixels), torch.from_numpy(boxes.astype(np.float32)), levels)


def colour_section(networks: Sequence[Network], pictures: Sequence[ShownPicture]) -> Section:
    """Feature maps of each network as colours."""
    shown = list(pictures[:COLOURED])
    grids = []
    for network in networks:
        pixels = torch.stack([plain_view(p, network.question, times=2).pixels for p in shown])
        rows: list[tuple[str, list[Picture]]] = [
            ("", [_jpeg(one, p.key) for one, p in zip(pixels, shown, strict=True)])
        ]
        for level, maps in feature_maps(network.encoder, pixels).items():
            colours, share = principal_colours(maps)
            alt = f"{level} of {network.name} as colours: "
            cells = [Picture(cells_png(one, 160), alt=alt + p.key) for one, p in zip(colours, shown, strict=True)]
            rows.append((f"{level} · {share:.0%} of the variance", cells))
        grids.append(Grid(rows, title=network.name, narrow=COLOURED))
    return Section(
        "Features as colours",
        "The first three principal components of each level's features over all these pictures, as red, green and "
        "blue: what the network takes for alike has the same colour, in every picture. Which colour it is says "
        "nothing, and is not to be compared between levels or networks. The pictures have twice the side of V1. In a "
        "good run objects stand out from what is around them, and coarse levels show fewer, larger parts; a network "
        "that has collapsed shows noise or one colour.",
        grids,
    )


@torch.no_grad()
def feature_maps(encoder: ObjectEncoder, pixels: Tensor) -> dict[str, NDArray[np.float32]]:
    """The encoder's feature maps of images (N, 3, S, S) uint8, by name: each (N, C, h, w)."""
    encoder.eval()
    maps = encoder.feature_maps(normalize(pixels.to(next(encoder.parameters()).device)))
    return {name: one.float().cpu().numpy() for name, one in maps.items()}


def _jpeg(pixels_3hw: Tensor, alt: str) -> Picture:
    file = io.BytesIO()
    picture = Image.fromarray(pixels_3hw.permute(1, 2, 0).contiguous().numpy())
    picture.resize((256, 256), Image.Resampling.LANCZOS).save(file, "JPEG", quality=82)
    return Picture(file.getvalue(), alt=alt)


def _parts(pictures: Sequence[ShownPicture]) -> list[Sequence[ShownPicture]]:
    return [pictures[start : start + AT_ONCE] for start in range(0, len(pictures), AT_ONCE)]
