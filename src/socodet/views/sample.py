"""One training sample: the views of an image, and the same K objects in each (section 3.2)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from socodet.views import geometry
from socodet.views.geometry import Boxes
from socodet.views.photometric import draw_photometric
from socodet.views.rendering import Canvas, render, resize, show_window
from socodet.views.settings import SampleSettings

_WINDOW_TRIES = 5


@dataclass(frozen=True)
class Sample:
    """V views of one image and K boxes in each; box k is the same object in every view."""

    pixels: tuple[NDArray[np.uint8], ...]
    """V arrays (3, S, S), RGB, each of its view's size."""
    boxes: NDArray[np.float32]
    """(V, K, 4) xyxy in pixels of the view, after its flip."""
    levels: NDArray[np.int64]
    """(V, K) pyramid levels, 0..3 for P2..P5."""
    windows: NDArray[np.float32]
    """(V, 4) what each view shows: xyxy in [0, 1] of the source image."""
    flipped: NDArray[np.bool_]
    """(V,) which views are mirrored left to right."""
    proposals: NDArray[np.float32]
    """(K, 4) the objects: xyxy in pixels of the source image."""


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of image `index` in epoch `epoch`: the same in any process, unlike that of any other."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))


def make_sample(
    image: NDArray[np.uint8],
    proposals: NDArray[np.float32],
    settings: SampleSettings,
    rng: np.random.Generator,
) -> Sample:
    """Draws and renders the views of one image with K of its proposals.

    image: (H, W, 3) uint8 RGB, of any size. proposals: (N, 4) xyxy in pixels of the image, exclusive right
    and bottom; N may be 0. Equal generators give equal samples.
    """
    height, width, _ = image.shape
    scale = np.array([width, height, width, height], np.float64)
    windows, objects = _draw_objects(proposals / scale, settings, rng)
    sizes = np.array([view.size for view in settings.views], np.float64)

    boxes = geometry.to_view(objects, windows[:, None], sizes[:, None, None])
    boxes[0] = _jitter_some(boxes[0], settings, rng)
    boxes = geometry.clip(boxes, sizes[:, None, None])
    flipped = rng.random(len(sizes)) < [view.flip_probability for view in settings.views]
    boxes[flipped] = geometry.flip(boxes[flipped], sizes[flipped, None])
    boxes_f32 = boxes.astype(np.float32)

    return Sample(
        pixels=_render_views(image, windows, flipped, settings, rng),
        boxes=boxes_f32,
        levels=_levels(boxes_f32.astype(np.float64), settings),
        windows=windows.astype(np.float32),
        flipped=flipped,
        proposals=(objects * scale).astype(np.float32),
    )


def _draw_windows(settings: SampleSettings, rng: np.random.Generator) -> Boxes:
    """(V, 4) windows in [0, 1] of the image."""
    windows: list[Boxes] = []
    for view in settings.views:
        if view.window == "whole":
            windows.append(geometry.WHOLE)
        elif view.window == "crop":
            windows.append(geometry.draw_window(settings.crop_scale, settings.crop_aspect, rng))
        else:
            windows.append(windows[-1])
    return np.array(windows)


def _draw_objects(unit: Boxes, settings: SampleSettings, rng: np.random.Generator) -> tuple[Boxes, Boxes]:
    """Windows (V, 4) and K objects (K, 4) that all of them show, in [0, 1] of the image.

    unit: (N, 4) the proposals. When the windows show fewer than K of them, others are drawn; of the best
    windows found every proposal is taken once, and some again. Where no proposal is shown, the one object is
    the region that all windows share.
    """
    wanted = min(settings.boxes_per_image, len(unit))
    sizes = np.array([[view.size] for view in settings.views], np.float64)[..., None]
    shown: NDArray[np.intp] = np.empty(0, np.intp)
    windows = _draw_windows(settings, rng)
    for attempt in range(_WINDOW_TRIES if wanted else 0):
        candidate = windows if attempt == 0 else _draw_windows(settings, rng)
        in_views = geometry.to_view(unit, candidate[:, None], sizes)
        kept = geometry.kept(in_views, sizes, settings.min_visible, settings.min_box_side).all(axis=0)
        if (found := np.flatnonzero(kept)).size > shown.size:
            windows, shown = candidate, found
        if shown.size >= wanted:
            break
    if shown.size == 0:
        return _shared_region(windows, settings)
    picked = rng.permutation(shown)[: settings.boxes_per_image]
    if missing := settings.boxes_per_image - picked.size:
        picked = np.concatenate([picked, rng.choice(shown, missing)])
    return windows, unit[picked]


def _shared_region(windows: Boxes, settings: SampleSettings) -> tuple[Boxes, Boxes]:
    """The windows, and the region they share as all K objects.

    Small crops may share none, or one too narrow: then all of them show what the smallest does.
    """
    sizes = np.array([[view.size] for view in settings.views], np.float64)
    region = geometry.intersection(windows)
    in_views = geometry.to_view(region, windows, sizes)
    if (in_views[:, 2:] - in_views[:, :2]).min() < settings.min_box_side:
        region = windows[np.argmin(geometry.areas(windows))]
        whole = (windows == geometry.WHOLE).all(axis=1, keepdims=True)
        windows = np.where(whole, windows, region)
    return windows, np.repeat(region[None], settings.boxes_per_image, axis=0)


def _jitter_some(boxes: Boxes, settings: SampleSettings, rng: np.random.Generator) -> Boxes:
    """Each box (K, 4) jittered with the set probability, by four independent draws (section 3.2)."""
    applied = rng.random(len(boxes)) < settings.jitter_probability
    r = settings.jitter * (2 * rng.random((len(boxes), 4)) - 1)
    return geometry.jitter(boxes, r * applied[:, None])


def _levels(boxes: Boxes, settings: SampleSettings) -> NDArray[np.int64]:
    if settings.level_rule == "single":
        return np.zeros(boxes.shape[:-1], np.int64)
    if settings.level_rule == "canonical":
        return geometry.canonical_levels(boxes)
    return geometry.scale_aware_levels(boxes, settings.level_limits)


def _render_views(
    image: NDArray[np.uint8],
    windows: Boxes,
    flipped: NDArray[np.bool_],
    settings: SampleSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], ...]:
    """Each view's pixels; a "previous" view is made of the one before it, as that was before its colours."""
    views = settings.views
    pixels = []
    canvas: Canvas | None = None
    place = 0
    for v, view in enumerate(views):
        if canvas is None:
            canvas = show_window(image, windows[v], view.size, place)
        following: Canvas | None = None
        if v + 1 < len(views) and views[v + 1].window == "previous":
            place = 1 - place
            following = resize(canvas, views[v + 1].size, place)
        pixels.append(render(canvas, draw_photometric(view.photometric, rng), bool(flipped[v])))
        canvas = following
    return tuple(pixels)
