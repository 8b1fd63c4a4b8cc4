import io

import numpy as np
import pytest
from PIL import Image

from socodet.reports.drawing import panel_figure
from socodet.reports.panels import EMPTY, labelled_panel, object_panel, similarity_panels
from socodet.reports.theme import object_colour, to_png

IMAGE = np.full((80, 80, 3), 128, np.uint8)
BOX = np.array([40, 40, 80, 80], np.float32)


def similarity_peak_at(row: int, column: int) -> np.ndarray:
    similarity = np.full((8, 8), 0.2, np.float32)
    similarity[row, column] = 0.9
    return similarity


def test_the_most_similar_position_is_bright_and_marked() -> None:
    query, found = similarity_panels(IMAGE, BOX / 2, IMAGE, BOX, similarity_peak_at(6, 5))
    assert query.heat is None
    assert query.boxes.tolist() == [(BOX / 2).tolist()]
    assert found.colours == query.colours == (object_colour(0),)
    assert found.mark == (55.0, 65.0)
    assert "inside the object's box" in found.alt
    assert "0.90" in found.alt
    assert found.heat_range == (np.float32(0.2), np.float32(0.9))

    pixels = np.asarray(Image.open(io.BytesIO(to_png(panel_figure(found, height=320)))).convert("RGB")).astype(int)
    bright, dark = pixels[66 * 4 + 12, 55 * 4], pixels[40, 40]
    assert bright.sum() > dark.sum() + 150
    assert (pixels[65 * 4, 55 * 4] > 240).all()  # the cross


def test_a_maximum_outside_the_box_is_described_as_outside() -> None:
    _, found = similarity_panels(IMAGE, BOX, IMAGE, BOX, similarity_peak_at(0, 7))
    assert found.mark == (75.0, 5.0)
    assert "outside" in found.alt


@pytest.mark.parametrize("box", [(20, 10, 40, 30), (0, 0, 20, 12), (70, 40, 90, 59), (0, 0, 90, 60), (30, 0, 36, 60)])
def test_the_crop_is_square_and_contains_the_object(box: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)
    panel = object_panel(image, np.array(box, np.float32), "#ff0000", title="0.5", alt="an object")
    side = len(panel.image)
    assert panel.image.shape == (side, side, 3)
    assert side == round(max(box[2] - box[0], box[3] - box[1]) * 1.25)
    x1, y1, x2, y2 = panel.boxes[0].astype(int)
    assert 0 <= x1 < x2 <= side
    assert 0 <= y1 < y2 <= side
    assert (panel.image[y1:y2, x1:x2] == image[box[1] : box[3], box[0] : box[2]]).all()
    if side <= 60:
        assert not (panel.image == EMPTY).all(axis=2).any()  # shifted into the image, without empty borders


def test_small_boxes_are_drawn_over_large_ones_and_keep_their_labels() -> None:
    boxes = np.array([[40, 40, 50, 50], [0, 0, 100, 100], [20, 20, 70, 70]], np.float32)
    panel = labelled_panel(
        "a", np.zeros((100, 100, 3), np.uint8), boxes, ["#111111", "#222222", "#333333"], ["s", "l", "m"]
    )
    assert panel.boxes.tolist() == boxes[[1, 2, 0]].tolist()
    assert panel.labels == ("l", "m", "s")
    assert panel.colours == ("#222222", "#333333", "#111111")
    assert panel.alt == "a: s, l, m"
