"""One training sample: the views of an image, and the same K objects in each (section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from socodet.views import geometry
from socodet.views.cutout import draw_cutouts, paint_over
from socodet.views.geometry import Boxes
from socodet.views.photometric import draw_photometric
from socodet.views.rendering import Canvas, render, resize, show_window
from socodet.views.settings import SampleSettings

_WINDOW_TRIES = 5


@dataclass(frozen=True)
class Sample:
    """V views of one image and their boxes: K in each view, and S·K in the first where there are S sets of objects.

    Box k of view v is the same object as box `partners[v] + k` of the first view.
    """

    pixels: tuple[NDArray[np.uint8], ...]
    """V arrays (3, S, S), RGB, each of its view's size."""
    boxes: tuple[NDArray[np.float32], ...]
    """V arrays (K, 4), the first (S·K, 4): xyxy in pixels of the view, after its flip."""
    levels: tuple[NDArray[np.int64], ...]
    """V arrays (K,), the first (S·K,): pyramid levels, 0..3 for P2..P5."""
    partners: tuple[int, ...]
    """For each view, the box of the first view that is the same object as its own first box; 0 for the first view."""
    windows: NDArray[np.float32]
    """(V, 4) what each view shows: xyxy in [0, 1] of the source image."""
    flipped: NDArray[np.bool_]
    """(V,) which views are mirrored left to right."""
    proposals: NDArray[np.float32]
    """(S·K, 4) the proposal behind each box of the first view: xyxy in pixels of the source image."""
    shown: NDArray[np.float32]
    """(P, 4) at most P proposals that the first view shows: xyxy in pixels of the view, padded with rows of zeros."""


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of image `index` in epoch `epoch`: the same in every process, distinct for each image and epoch."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))


def make_sample(
    image: NDArray[np.uint8],
    proposals: NDArray[np.float32],
    settings: SampleSettings,
    rng: np.random.Generator,
    shown: int = 0,
) -> Sample:
    """Draws and renders the views of one image with K of its proposals.

    image: (H, W, 3) uint8 RGB. proposals: (N, 4) xyxy in pixels of the image, exclusive right and bottom; N may be 0.
    shown: P, the most proposals visible in the first view to add to the sample. Equal generators give equal samples.
    """
    height, width, _ = image.shape
    scale = np.array([width, height, width, height], np.float64)
    windows, objects = _draw_objects(proposals / scale, width / height, settings, rng)
    layout = settings.layout

    # The boxes of all views in one array (N, 4), so that each step is one call.
    boxes = geometry.to_view(objects[layout.object_of], windows[layout.view_of], layout.size_of)
    boxes[layout.own[0]] = _jitter_some(boxes[layout.own[0]], settings, rng)
    boxes = geometry.clip(boxes, layout.size_of)
    flipped = rng.random(len(windows)) < [view.flip_probability for view in settings.views]
    mirrored = flipped[layout.view_of]
    boxes[mirrored] = geometry.flip(boxes[mirrored], layout.size_of[mirrored, 0])
    boxes_f32 = boxes.astype(np.float32)
    levels = box_levels(boxes_f32.astype(np.float64), settings)
    boxes_of_view = tuple(boxes_f32[own] for own in layout.own)

    pixels = _render_views(image, windows, flipped, boxes_of_view, settings, rng)

    return Sample(
        pixels=pixels,
        boxes=boxes_of_view,
        levels=tuple(levels[own] for own in layout.own),
        partners=layout.partners,
        windows=windows.astype(np.float32),
        flipped=flipped,
        proposals=(objects * scale).astype(np.float32),
        shown=_shown(proposals / scale, windows[0], bool(flipped[0]), settings, shown, rng),
    )


def _draw_windows(image_aspect: float, settings: SampleSettings, rng: np.random.Generator) -> Boxes:
    """(V, 4) windows in [0, 1] of the image, whose width over height is `image_aspect`."""
    low, high = settings.crop_aspect
    if settings.crop_aspect_in == "image":  # in unit coordinates the image is square
        low, high = low / image_aspect, high / image_aspect
    windows: list[Boxes] = []
    for view in settings.views:
        if view.window == "whole":
            windows.append(geometry.WHOLE)
        elif view.window == "crop":
            windows.append(geometry.draw_window(settings.crop_scale, (low, high), rng))
        else:
            windows.append(windows[-1])
    return np.array(windows)


def _draw_objects(
    unit: Boxes, image_aspect: float, settings: SampleSettings, rng: np.random.Generator
) -> tuple[Boxes, Boxes]:
    """Windows (V, 4), and the objects (S·K, 4): K for each set, visible in the first view and in all views of the set.

    Both in [0, 1] of the image. unit: (N, 4) the proposals. When the windows show fewer than K proposals of a set, new
    windows are drawn, a few times; the best windows found are then used, with each of their proposals once and some
    repeated. If they show none, the one object is the region that the windows share.
    """
    wanted = min(settings.boxes_per_image, len(unit))
    sets, sizes = settings.layout.sets, settings.layout.sizes
    shown: list[NDArray[np.intp]] = [np.empty(0, np.intp)] * len(sets)
    windows = _draw_windows(image_aspect, settings, rng)
    for attempt in range(_WINDOW_TRIES if wanted else 0):
        candidate = windows if attempt == 0 else _draw_windows(image_aspect, settings, rng)
        in_views = geometry.to_view(unit, candidate[:, None], sizes)
        kept = geometry.visible(in_views, sizes, settings.min_visible, settings.min_box_side)
        found = [np.flatnonzero(kept[views].all(axis=0)) for views in sets]
        if sorted(map(len, found)) > sorted(map(len, shown)):  # compares the sets with the fewest visible first
            windows, shown = candidate, found
        if min(map(len, shown)) >= wanted:
            break
    objects = []
    for views, there in zip(sets, shown, strict=True):
        if there.size == 0:
            windows[views], region = _shared_region(windows[views], sizes[views, 0], settings.min_box_side)
            objects.append(np.repeat(region[None], settings.boxes_per_image, axis=0))
            continue
        picked = rng.permutation(there)[: settings.boxes_per_image]
        if missing := settings.boxes_per_image - picked.size:
            picked = np.concatenate([picked, rng.choice(there, missing)])
        objects.append(unit[picked])
    return windows, objects[0] if len(objects) == 1 else np.concatenate(objects)


def _shared_region(windows: Boxes, sizes: NDArray[np.float64], min_side: float) -> tuple[Boxes, Boxes]:
    """The windows (V, 4) of views of these sizes (V, 1), and the region (4,) they share.

    Small crops may share no region, or one that is too narrow: then every crop becomes the smallest one.
    """
    region = geometry.intersection(windows)
    in_views = geometry.to_view(region, windows, sizes)
    if (in_views[:, 2:] - in_views[:, :2]).min() < min_side:
        region = windows[np.argmin(geometry.areas(windows))]
        whole = (windows == geometry.WHOLE).all(axis=1, keepdims=True)
        windows = np.where(whole, windows, region)
    return windows, region


def _shown(
    unit: Boxes, window: Boxes, flipped: bool, settings: SampleSettings, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(count, 4) proposals of (N, 4) that the first view shows, in its pixels; a random choice if there are more."""
    side = float(settings.views[0].size)
    shown = np.zeros((count, 4), np.float32)
    if count == 0:
        return shown
    boxes = geometry.to_view(unit, window, side)
    boxes = geometry.clip(boxes[geometry.visible(boxes, side, settings.min_visible, settings.min_box_side)], side)
    if len(boxes) > count:
        boxes = boxes[rng.permutation(len(boxes))[:count]]
    shown[: len(boxes)] = geometry.flip(boxes, side) if flipped else boxes
    return shown


def _jitter_some(boxes: Boxes, settings: SampleSettings, rng: np.random.Generator) -> Boxes:
    """The first view's boxes (N, 4), each jittered with `settings.jitter_probability`, by four independent draws.

    Section 3.2. A box stays as it is if jitter would leave less than `settings.min_box_side` of it in the view.
    """
    applied = rng.random(len(boxes)) < settings.jitter_probability
    r = settings.jitter * (2 * rng.random((len(boxes), 4)) - 1)
    jittered = geometry.jitter(boxes, r * applied[:, None], settings.jitter_anchor)
    there = geometry.visible(jittered, float(settings.views[0].size), 0.0, settings.min_box_side)
    return np.where(there[:, None], jittered, boxes)


def box_levels(boxes: Boxes, settings: SampleSettings) -> NDArray[np.int64]:
    """Pyramid levels, 0..3 for P2..P5, of boxes (..., 4) in pixels of their view, by the rule of the settings."""
    if settings.level_rule == "single":
        return np.zeros(boxes.shape[:-1], np.int64)
    if settings.level_rule == "canonical":
        return geometry.canonical_levels(boxes)
    return geometry.scale_aware_levels(boxes, settings.level_limits)


def _render_views(
    image: NDArray[np.uint8],
    windows: Boxes,
    flipped: NDArray[np.bool_],
    boxes: Sequence[NDArray[np.float32]],
    settings: SampleSettings,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], ...]:
    """Each view's pixels; a "previous" view is resized from the one before it, before colour augmentation."""
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
        finished = render(canvas, draw_photometric(view.photometric, rng), bool(flipped[v]))
        if view.cutout_probability > 0:
            paint_over(finished, draw_cutouts(boxes[v], view, rng))
        pixels.append(finished)
        canvas = following
    return tuple(pixels)
