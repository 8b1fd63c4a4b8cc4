import io

import numpy as np
import pytest
from PIL import Image

from socodet.reports.sections.colours import cells_png, principal_colours


def test_colours_are_the_first_three_components_over_all_images() -> None:
    rng = np.random.default_rng(0)
    maps = (rng.normal(size=(3, 6, 4, 5)) * np.array([1, 9, 2, 0.5, 5, 3])[:, None, None]).astype(np.float32)
    colours, share = principal_colours(maps)
    assert colours.shape == (3, 4, 5, 3)

    rows = maps.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, 6)
    u, singular, vt = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    assert share == pytest.approx((singular[:3] ** 2).sum() / (singular**2).sum())
    for component in range(3):
        values = u[:, component] * singular[component]
        values *= np.sign(vt[component, np.abs(vt[component]).argmax()])
        low, high = np.percentile(values, [2, 98])
        by_hand = np.round(np.clip((values - low) / (high - low), 0, 1) * 255)
        assert np.abs(colours[..., component].ravel() - by_hand).max() <= 1


def test_an_object_has_its_colour_in_every_image() -> None:
    maps = np.zeros((2, 4, 8, 8), np.float32)
    maps[0, 1, :4], maps[1, 1, 4:] = 3, 3  # the same object, once above and once below
    maps += np.random.default_rng(0).normal(0, 0.01, maps.shape).astype(np.float32)
    colours, _ = principal_colours(maps)
    assert (colours[0, :4, :, 0] > 200).all()
    assert (colours[1, 4:, :, 0] > 200).all()
    assert (colours[0, 4:, :, 0] < 50).all()


def test_identical_features_have_one_colour() -> None:
    colours, share = principal_colours(np.ones((2, 3, 2, 2), np.float32))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 1
    assert share == 1


def test_cells_are_drawn_with_sharp_edges_at_whole_pixels() -> None:
    colours = np.random.default_rng(0).integers(0, 255, (7, 7, 3)).astype(np.uint8)
    drawn = np.asarray(Image.open(io.BytesIO(cells_png(colours, 160))))
    assert drawn.shape == (161, 161, 3)
    assert (drawn[11::23, 11::23] == colours).all()
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == len(np.unique(colours.reshape(-1, 3), axis=0))
