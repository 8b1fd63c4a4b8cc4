"""Feature maps as colours: what a network considers similar gets a similar colour."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from socodet.reports.images import ShownImage
from socodet.reports.networks import Network, plain_view
from socodet.reports.page import Grid, PageImage, Section

IMAGES = 4
TAILS = 2.0
"""Percentiles at which a component's colour range begins and ends, so that a few cells do not set the range."""


def colour_section(networks: Sequence[Network], images: Sequence[ShownImage]) -> Section:
    """The principal components of each network's feature maps."""
    shown = list(images[:IMAGES])
    grids = []
    for network in networks:
        pixels = torch.stack([plain_view(image, network.question, scale=2).pixels for image in shown])
        rows = [("", [_photograph(one, image.key) for one, image in zip(pixels, shown, strict=True)])]
        for level, maps in network.feature_maps(pixels).items():
            colours, share = principal_colours(maps)
            alt = f"{level} of {network.name} as colours: "
            cells = [PageImage(cells_png(one, 160), alt + i.key) for one, i in zip(colours, shown, strict=True)]
            rows.append((f"{level} · {share:.0%} of the variance", cells))
        grids.append(Grid(rows, title=network.name, narrow=IMAGES))
    return Section(
        "Features as colours",
        "The first three principal components of each level's features over all these images, as red, green and blue: "
        "what the network considers similar has a similar colour in every image. The colours themselves mean nothing, "
        "and those of different levels or networks cannot be compared. The images are twice as large as V1. In a good "
        "run objects stand out from their surroundings, and coarse levels show fewer, larger parts; a collapsed "
        "network shows noise or a single colour.",
        grids,
    )


def principal_colours(maps: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float]:
    """The first three principal components of feature maps as red, green and blue.

    maps: (N, C, h, w) features of N images, with C at least 3. Returns (N, h, w, 3) and the share of the variance that
    the three components explain. They are computed over all locations of all images, so a colour means the same in all
    of them. Signs are arbitrary, so the largest weight of each component is made positive.
    """
    images, channels, height, width = maps.shape
    locations = maps.transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    locations -= locations.mean(axis=0)
    variances, directions = np.linalg.eigh(locations.T @ locations)  # ascending
    variances, directions = variances[::-1].clip(0), directions[:, ::-1][:, :3]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(3)])
    projected = locations @ directions
    low, high = np.percentile(projected, (TAILS, 100 - TAILS), axis=0)
    shown = ((projected - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    total = float(variances.sum())
    share = float(variances[:3].sum()) / total if total > 0 else 1.0
    return (shown * 255).round().astype(np.uint8).reshape(images, height, width, 3), share


def cells_png(colours: NDArray[np.uint8], side: int) -> bytes:
    """A grid of colours (h, w, 3) as PNG, about `side` pixels high, with sharp cells."""
    times = max(1, round(side / len(colours)))
    file = io.BytesIO()
    Image.fromarray(colours.repeat(times, axis=0).repeat(times, axis=1)).save(file, "PNG", optimize=True)
    return file.getvalue()


def _photograph(pixels_3hw: Tensor, alt: str) -> PageImage:
    file = io.BytesIO()
    image = Image.fromarray(pixels_3hw.permute(1, 2, 0).contiguous().numpy())
    image.resize((256, 256), Image.Resampling.LANCZOS).save(file, "JPEG", quality=82)
    return PageImage(file.getvalue(), alt=alt)
