"""Feature maps as colours: what a network takes for alike gets the same colour."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TAILS = 2.0
"""Percent of the values at either end of a component that are drawn as its ends, so that one cell does not set the
range of all."""


def principal_colours(maps: NDArray[np.float32]) -> tuple[NDArray[np.uint8], float]:
    """The first three principal components of the features of N pictures as red, green and blue.

    maps: (N, C, h, w) features, C at least 3. Returns (N, h, w, 3) and the share of the variance that the three hold.
    The components are those of all places of all N pictures together, so that a colour means the same in each of
    them. A component's sign is free: its largest weight is taken positive.
    """
    images, channels, height, width = maps.shape
    places = maps.transpose(0, 2, 3, 1).reshape(-1, channels).astype(np.float64)
    places -= places.mean(axis=0)
    variances, directions = np.linalg.eigh(places.T @ places)  # rising
    variances, directions = variances[::-1].clip(0), directions[:, ::-1][:, :3]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(3)])
    projected = places @ directions
    low, high = np.percentile(projected, (TAILS, 100 - TAILS), axis=0)
    shown = ((projected - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    total = float(variances.sum())
    share = float(variances[:3].sum()) / total if total > 0 else 1.0
    return (shown * 255).round().astype(np.uint8).reshape(images, height, width, 3), share


def cells_png(colours: NDArray[np.uint8], side: int) -> bytes:
    """A grid of colours (h, w, 3) as PNG with whole pixels a cell, about `side` pixels high, its cells sharp."""
    times = max(1, round(side / len(colours)))
    file = io.BytesIO()
    Image.fromarray(colours.repeat(times, axis=0).repeat(times, axis=1)).save(file, "PNG", optimize=True)
    return file.getvalue()
