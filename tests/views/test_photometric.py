"""Drawn parameters have the probabilities, ranges and distributions of BYOL's augmentation (4 sigma bounds)."""

from collections import Counter

import numpy as np
import pytest

from socodet.views.photometric import Photometric, draw_photometric
from socodet.views.settings import PhotometricSettings, SampleSettings

_DRAWS = 10_000


@pytest.fixture(scope="module")
def draws() -> dict[str, list[Photometric]]:
    rng = np.random.default_rng(0)
    first, second, _ = SampleSettings().views
    return {
        "V1": [draw_photometric(first.photometric, rng) for _ in range(_DRAWS)],
        "V2": [draw_photometric(second.photometric, rng) for _ in range(_DRAWS)],
    }


def _assert_share(hits: list[bool], probability: float) -> None:
    spread = np.sqrt(probability * (1 - probability) / len(hits))
    assert abs(np.mean(hits) - probability) <= 4 * spread


def _assert_uniform(values: list[float], low: float, high: float) -> None:
    assert min(values) >= low
    assert max(values) <= high
    counts, _ = np.histogram(values, 20, (low, high))
    expected = len(values) / 20
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))


@pytest.mark.parametrize(("view", "blur", "solarize"), [("V1", 1.0, 0.0), ("V2", 0.1, 0.2)])
def test_probabilities_are_byols(draws: dict[str, list[Photometric]], view: str, blur: float, solarize: float) -> None:
    drawn = draws[view]
    _assert_share([p.jittered for p in drawn], 0.8)
    _assert_share([p.grayscale for p in drawn], 0.2)
    _assert_share([p.blur_sigma is not None for p in drawn], blur)
    _assert_share([p.solarize_threshold is not None for p in drawn], solarize)
    # Independent of one another.
    _assert_share([p.grayscale for p in drawn if p.jittered], 0.2)


@pytest.mark.parametrize("view", ["V1", "V2"])
def test_factors_are_uniform_in_byols_ranges(draws: dict[str, list[Photometric]], view: str) -> None:
    jittered = [p for p in draws[view] if p.jittered]
    _assert_uniform([p.brightness for p in jittered], 0.6, 1.4)
    _assert_uniform([p.contrast for p in jittered], 0.6, 1.4)
    _assert_uniform([p.saturation for p in jittered], 0.8, 1.2)
    _assert_uniform([p.hue for p in jittered], -0.1, 0.1)
    factors = np.array([(p.brightness, p.contrast, p.saturation, p.hue) for p in jittered])
    assert np.abs(np.corrcoef(factors.T) - np.eye(4)).max() < 0.05


def test_blur_and_threshold(draws: dict[str, list[Photometric]]) -> None:
    _assert_uniform([p.blur_sigma for p in draws["V1"] if p.blur_sigma is not None], 0.1, 2.0)
    assert {p.solarize_threshold for p in draws["V2"]} == {None, 128}


def test_every_order_is_equally_likely(draws: dict[str, list[Photometric]]) -> None:
    counts = Counter(p.order for p in draws["V1"])
    expected = _DRAWS / 24
    assert len(counts) == 24
    assert all(sorted(order) == [0, 1, 2, 3] for order in counts)
    assert all(abs(count - expected) < 4.5 * np.sqrt(expected) for count in counts.values())


def test_ranges_follow_the_settings() -> None:
    settings = PhotometricSettings(brightness=0.0, contrast=1.0, hue=0.5, jitter_probability=1, blur_sigma=(1, 1))
    drawn = [draw_photometric(settings, np.random.default_rng(i)) for i in range(300)]
    assert all(p.jittered and p.brightness == 1 and p.blur_sigma == 1 for p in drawn)
    assert 0 <= min(p.contrast for p in drawn) < 0.05
    assert 0.45 < max(p.hue for p in drawn) <= 0.5
