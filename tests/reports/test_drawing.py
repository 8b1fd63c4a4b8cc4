import io
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from socodet.reports.drawing import panel_figure, sheet_figure
from socodet.reports.panels import Panel, labelled_panel, proposal_panel, sample_panels
from socodet.reports.theme import OBJECT_COLOURS, object_colour, to_jpeg, to_png, to_svg
from socodet.views.sample import make_sample, sample_rng
from socodet.views.settings import PhotometricSettings, SampleSettings, ViewSettings


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def share_on_edges(pixels: np.ndarray, box: np.ndarray, colour: str, scale: float) -> list[float]:
    """For each side of a box, the share of its length that has exactly this colour just inside the box."""
    x1, y1, x2, y2 = (round(float(edge) * scale) for edge in box)
    near = (pixels == ImageColor.getrgb(colour)).all(axis=2)
    sides = [
        near[y1 : y1 + 3, x1:x2],
        near[y2 - 3 : y2, x1:x2],
        near[y1:y2, x1 : x1 + 3].T,
        near[y1:y2, x2 - 3 : x2].T,
    ]
    return [float(side.any(axis=0).mean()) for side in sides]


def test_the_colours_of_objects_differ() -> None:
    values = np.array([ImageColor.getrgb(colour) for colour in OBJECT_COLOURS], float)
    apart = np.linalg.norm(values[:, None] - values[None], axis=2)[~np.eye(len(values), dtype=bool)]
    assert apart.min() > 60
    assert object_colour(len(OBJECT_COLOURS)) == object_colour(0)


def test_proposals_are_drawn_at_their_coordinates() -> None:
    image = np.full((60, 90, 3), 128, np.uint8)
    boxes = np.array([[10, 5, 40, 30], [50, 20, 90, 60], [0, 35, 20, 60]], np.float32)
    panel = proposal_panel("gray.png", image, boxes)
    assert panel.title == "gray.png · 3 proposals"
    pixels = pixels_of(to_png(panel_figure(panel, height=240)))
    assert pixels.shape == (240, 360, 3)
    for box, colour in zip(panel.boxes, panel.colours, strict=True):
        assert min(share_on_edges(pixels, box, colour, 4)) > 0.97
    assert sorted(panel.boxes.tolist()) == sorted(boxes.tolist())
    assert (pixels[20 * 4 + 20, 45 * 4] == 128).all()


@pytest.mark.parametrize("shape", [(24, 4000), (1, 4000), (4000, 24)])
def test_a_long_strip_is_drawn_whole_within_a_size_limit(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    panel = proposal_panel("strip.png", image, np.zeros((0, 4), np.float32))
    pixels = pixels_of(to_jpeg(panel_figure(panel, height=340, zoom=1.6)))
    drawn = pixels.shape[:2]
    assert max(drawn) <= 4096
    assert max(drawn) / max(shape) == pytest.approx(min(drawn) / min(shape), abs=1 / min(shape))
    assert np.abs(pixels.astype(int) - 200).max() < 8
    sheet = pixels_of(to_png(sheet_figure([[panel]])))
    assert max(sheet.shape) < 1000


@pytest.mark.parametrize("save", [to_png, to_jpeg, partial(to_svg, name="it")])
def test_names_that_are_not_utf_8_are_drawn_with_backslashes(save: Callable[[Figure], bytes]) -> None:
    name = os.fsdecode(b"\xfe.png")
    panel = proposal_panel(name, np.zeros((20, 30, 3), np.uint8), np.zeros((0, 4), np.float32))
    titles = name, "\\udcfe.png"
    strange, plain = (save(sheet_figure([[replace(panel, title=title)]], side=120)) for title in titles)
    assert strange == plain


def test_all_of_many_proposals_are_drawn_and_none_is_no_error() -> None:
    image = np.zeros((50, 80, 3), np.uint8)
    assert proposal_panel("a", image, np.zeros((0, 4), np.float32)).title == "a · 0 proposals"
    many = np.tile(np.array([[5, 5, 30, 30]], np.float32), (200, 1)) + np.arange(200)[:, None] * 0.1
    figure = panel_figure(proposal_panel("a", image, many.astype(np.float32)))
    boxes = [patch for patch in figure.axes[0].patches if patch.get_edgecolor()[:3] != (0, 0, 0)]
    assert len(boxes) >= 200
    empty = pixels_of(to_png(panel_figure(proposal_panel("a", image, many[:0]))))
    assert (empty == 0).all()


PLAIN = PhotometricSettings(jitter_probability=0, grayscale_probability=0, blur_probability=0)
VIEWS = (
    ViewSettings("whole", 96, PLAIN, flip_probability=1),
    ViewSettings("crop", 96, PLAIN, flip_probability=0),
    ViewSettings("previous", 48, PLAIN, flip_probability=1),
)
SETTINGS = SampleSettings(
    VIEWS, boxes_per_image=3, jitter_probability=0, crop_scale=(0.7, 0.8), min_visible=0.9, min_box_side=4
)


def test_an_object_has_one_colour_in_all_views() -> None:
    image = np.full((120, 200, 3), 90, np.uint8)
    proposals = np.array([[45, 30, 80, 60], [100, 30, 150, 55], [50, 70, 140, 95]], np.float32)
    sample = make_sample(image, proposals, SETTINGS, sample_rng(0, 0, 0))
    source, *views = sample_panels("a.jpg", image, sample)
    assert [panel.title for panel in views] == [
        "V1 · 96 px · mirrored",
        "V2 · 96 px",
        "V3 · 48 px · mirrored",
    ]
    drawn = pixels_of(to_png(panel_figure(source, height=480)))
    for k, box in enumerate(sample.proposals):
        assert min(share_on_edges(drawn, box, object_colour(k), 4)) > 0.9

    for v, (panel, view) in enumerate(zip(views, VIEWS, strict=True)):
        drawn = pixels_of(to_png(panel_figure(panel, height=480)))
        assert drawn.shape == (480, 480, 3)
        left, top, right, bottom = sample.windows[v] * [200, 120, 200, 120]
        for k, (x1, y1, x2, y2) in enumerate(sample.proposals):
            xs = np.array([(x1 - left), (x2 - left)]) / (right - left) * 480
            ys = np.array([(y1 - top), (y2 - top)]) / (bottom - top) * 480
            if view.flip_probability:
                xs = 480 - xs[::-1]
            by_hand = np.array([xs[0], ys[0], xs[1], ys[1]]).clip(0, 480)
            assert min(share_on_edges(drawn, by_hand, object_colour(k), 1)) > 0.6, (v, k)
            side = np.sqrt((xs[1] - xs[0]) * (ys[1] - ys[0])) * view.size / 480
            assert panel.labels[k] == ("P2" if side <= 48 else "P3")


def test_every_box_has_a_label_and_labels_do_not_overlap() -> None:
    image = np.full((100, 100, 3), 128, np.uint8)
    boxes = np.array([[10, 10, 90, 90], [10, 10, 80, 80], [11, 11, 85, 70], [10, 10, 90, 90]], np.float32)
    colours = (object_colour(0), object_colour(1), object_colour(2), object_colour(0))
    figure = panel_figure(Panel("a", image, boxes, colours, ("P4", "P3", "P3", "P4")), height=300)
    figure.canvas.draw()
    texts = figure.axes[0].texts
    assert sorted(text.get_text() for text in texts) == ["P3", "P3", "P4"]
    areas = [text.get_window_extent() for text in texts]
    assert not any(areas[i].overlaps(areas[j]) for i in range(3) for j in range(i))
    assert all(area.x0 >= 30 and area.x1 <= 270 and area.y0 >= 30 and area.y1 <= 270 for area in areas)


def test_long_labels_stay_inside_the_image_and_do_not_overlap() -> None:
    image = np.full((100, 100, 3), 128, np.uint8)
    boxes = np.array([[0, 0, 12, 30], [88, 0, 100, 30], [45, 0, 55, 30], [0, 20, 12, 60]], np.float32)
    words = ["elephant 0.91", "elephant 0.90", "fire hydrant 0.89", "cat 0.88"]
    figure = panel_figure(
        labelled_panel("a", image, boxes, [object_colour(k) for k in (1, 1, 2, 3)], words), height=400
    )
    figure.canvas.draw()
    texts = figure.axes[0].texts
    assert sorted(text.get_text() for text in texts) == sorted(words)
    areas = [text.get_window_extent() for text in texts]
    assert all(area.x0 >= 0 and area.x1 <= 400 for area in areas)
    assert not any(areas[i].overlaps(areas[j]) for i in range(4) for j in range(i))


def test_a_proposal_drawn_twice_is_one_object() -> None:
    image = np.full((120, 200, 3), 90, np.uint8)
    proposals = np.array([[45, 30, 120, 90]], np.float32)
    sample = make_sample(image, proposals, SETTINGS, sample_rng(0, 0, 0))
    assert len(sample.proposals) == 3
    assert {colour for panel in sample_panels("a", image, sample) for colour in panel.colours} == {object_colour(0)}


def test_windows_are_outlined_on_the_source_and_named_after_their_views() -> None:
    image = np.full((120, 200, 3), 90, np.uint8)
    sample = make_sample(image, np.array([[80, 50, 120, 70]], np.float32), SETTINGS, sample_rng(3, 0, 0))
    source = sample_panels("a", image, sample)[0]
    ((window, name),) = source.windows
    assert name == "V2 V3"
    np.testing.assert_allclose(window, sample.windows[1] * [200, 120, 200, 120])
    drawn = pixels_of(to_png(panel_figure(source, height=480)))
    left, top = (round(edge * 4) for edge in window[:2])
    below = drawn[top + 8 : round(window[3] * 4) - 40, left : left + 4].astype(int)
    assert 0.3 < (below.min(axis=2) > 230).any(axis=1).mean() < 0.8  # dashes


def test_panels_of_a_sheet_keep_their_proportions() -> None:
    wide, tall = np.full((50, 100, 3), 200, np.uint8), np.full((100, 50, 3), 60, np.uint8)
    sheet = sheet_figure([[Panel("wide", wide), Panel("tall", tall)], [Panel("tall again", tall)]], side=100)
    pixels = pixels_of(to_png(sheet))
    assert (pixels[0, 0] == 255).all()
    assert (pixels == 200).all(axis=2).sum() == 50 * 100
    assert (pixels == 60).all(axis=2).sum() >= 2 * 50 * 100
    assert pixels.shape[1] == 2 * 100 + 3 * 10


def test_maps_with_the_same_range_are_comparable() -> None:
    image = np.full((80, 80, 3), 128, np.uint8)
    maps = [Panel("a", image, heat=np.full((4, 4), value, np.float32), heat_range=(0, 1)) for value in (0.1, 0.9)]
    low, high = (pixels_of(to_png(panel_figure(panel))).mean(axis=2) for panel in maps)
    assert high[20:100, 20:100].mean() > low[20:100, 20:100].mean() + 40


def test_zoom_draws_the_same_at_a_higher_resolution() -> None:
    image = np.full((50, 60, 3), 128, np.uint8)
    panel = Panel("a", image, np.array([[10, 10, 40, 40]], np.float32), ("#ff0000",), ("P2",))
    once, twice = (pixels_of(to_png(panel_figure(panel, height=150, zoom=zoom))) for zoom in (1, 2))
    assert once.shape == (150, 180, 3)
    assert twice.shape == (300, 360, 3)
    red = [int((pixels == (255, 0, 0)).all(axis=2).sum()) for pixels in (once, twice)]
    assert 3.5 < red[1] / red[0] < 4.5


def test_jpeg_is_smaller_and_looks_the_same() -> None:
    rng = np.random.default_rng(0)
    noisy = np.asarray(Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).resize((300, 200)))
    figure = panel_figure(Panel("a", noisy, np.array([[60, 40, 200, 150]], np.float32), ("#00d9ff",)))
    png, jpeg = to_png(figure), to_jpeg(figure)
    assert len(jpeg) < len(png) / 2
    assert np.abs(pixels_of(png).astype(int) - pixels_of(jpeg)).mean() < 4


def test_a_noisy_image_can_be_saved_as_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    jpeg = to_jpeg(panel_figure(Panel("a", noise)))
    assert len(jpeg) > 240 * 360  # more than a byte per pixel
    assert pixels_of(jpeg).shape == (240, 360, 3)


def test_figures_are_not_kept_by_pyplot() -> None:
    before = pyplot.get_fignums()
    panel_figure(Panel("a", np.zeros((20, 20, 3), np.uint8)))
    sheet_figure([[Panel("a", np.zeros((20, 20, 3), np.uint8))]])
    assert pyplot.get_fignums() == before
