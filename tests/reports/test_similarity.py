import io

import numpy as np
from PIL import Image

from socodet.reports.drawing import panel_figure
from socodet.reports.similarity import similarity_panels
from socodet.reports.theme import object_colour, to_png

IMAGE = np.full((80, 80, 3), 128, np.uint8)
BOX = np.array([40, 40, 80, 80], np.float32)


def similarity_peak_at(row: int, column: int) -> np.ndarray:
    similarity = np.full((8, 8), 0.2, np.float32)
    similarity[row, column] = 0.9
    return similarity


def test_the_most_similar_place_is_bright_and_marked() -> None:
    query, found = similarity_panels(IMAGE, BOX / 2, IMAGE, BOX, similarity_peak_at(6, 5), object_index=2)
    assert query.heat is None
    assert query.boxes.tolist() == [(BOX / 2).tolist()]
    assert found.colours == query.colours == (object_colour(2),)
    assert found.mark == (55.0, 65.0)
    assert "inside the object's box" in found.alt
    assert "0.90" in found.alt
    assert found.heat_range == (np.float32(0.2), np.float32(0.9))

    pixels = np.asarray(Image.open(io.BytesIO(to_png(panel_figure(found, height=320)))).convert("RGB")).astype(int)
    bright, dark = pixels[66 * 4 + 12, 55 * 4], pixels[40, 40]
    assert bright.sum() > dark.sum() + 150
    assert (pixels[65 * 4, 55 * 4] > 240).all()  # the cross


def test_a_place_outside_the_box_is_said_to_be_outside() -> None:
    _, found = similarity_panels(IMAGE, BOX, IMAGE, BOX, similarity_peak_at(0, 7))
    assert found.mark == (75.0, 5.0)
    assert "outside" in found.alt


def test_two_maps_on_one_scale() -> None:
    limits = (0.0, 1.0)
    _, low = similarity_panels(IMAGE, BOX, IMAGE, BOX, np.full((4, 4), 0.1, np.float32), limits=limits)
    _, high = similarity_panels(IMAGE, BOX, IMAGE, BOX, np.full((4, 4), 0.9, np.float32), limits=limits)
    images = [np.asarray(Image.open(io.BytesIO(to_png(panel_figure(p)))).convert("L")) for p in (low, high)]
    assert images[1][20:100, 20:100].mean() > images[0][20:100, 20:100].mean() + 40
