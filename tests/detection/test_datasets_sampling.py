import numpy as np
import pytest
from hand_made_sets import made_image, made_set

from socodet.finetuning.samples import repeat_factors
from socodet.training.streams import repeated_indices


def test_repeat_factors_by_hand():
    """Of 8 images, class 1 is in 4, class 2 in 1, twice; threshold 1/2: r(1) = 1, r(2) = sqrt(0.5 / 0.125) = 2."""
    box = (0, 0, 9, 9)
    images = [made_image(k, [(*box, 1)]) for k in range(3)]
    images += [made_image(3, [(*box, 2), (*box, 1), (*box, 2)]), *(made_image(k, []) for k in range(4, 8))]
    ours = made_set(images, "lvis", classes=2)
    assert repeat_factors(ours, 0.5) == pytest.approx([1, 1, 1, 2, 1, 1, 1, 1])
    assert repeat_factors(ours, 1.0) == pytest.approx([2**0.5] * 3 + [8**0.5] + [1] * 4)
    assert repeat_factors(ours, 0.001) == pytest.approx([1] * 8)  # with LVIS's threshold no class is rare


def test_epoch_repeats_images_by_their_factors_on_average():
    factors = np.array([1.0, 1.25, 2.5, 3.0])
    generator = np.random.default_rng(0)
    epochs = [repeated_indices(factors, generator) for _ in range(4000)]
    counts = np.array([np.bincount(epoch, minlength=4) for epoch in epochs])
    assert counts.mean(0) == pytest.approx(factors, abs=0.04)  # five standard deviations of the third
    assert (counts.min(0) == [1, 1, 2, 3]).all()
    assert (counts.max(0) == [1, 2, 3, 3]).all()
