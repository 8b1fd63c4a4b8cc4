import pytest
from hand_made_sets import made_image, made_set

from socodet.detection.datasets.subsets import mini_set
from socodet.errors import InputError


def ids(dataset):
    return [image.image_id for image in dataset.images]


def whole(numbers):
    return made_set([made_image(number, []) for number in numbers], "coco")


def test_parts_are_of_the_size_asked_for_and_nested():
    ours = whole(range(1000))
    five, ten = mini_set(ours, 0.05, seed=1), mini_set(ours, 0.1, seed=1)
    assert (len(five), len(ten)) == (50, 100)
    assert set(ids(five)) < set(ids(ten))
    assert ids(ten) == sorted(ids(ten))  # the set's own order
    assert len(mini_set(ours, 0.0001)) == 1
    assert ids(mini_set(ours, 1.0)) == ids(ours)
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="more than 0 and at most 1"):
            mini_set(ours, fraction)


def test_the_seed_and_the_ids_alone_decide():
    ours, turned = whole(range(1000)), whole(reversed(range(1000)))
    assert set(ids(mini_set(ours, 0.1, 3))) == set(ids(mini_set(turned, 0.1, 3)))
    assert len(set(ids(mini_set(ours, 0.1, 3))) & set(ids(mini_set(ours, 0.1, 4)))) < 30  # 10 by chance
    # spread over the whole set: each fifth has 20 of the 100, within four standard deviations
    chosen = ids(mini_set(ours, 0.1, 3))
    assert all(4 <= sum(low <= one < low + 200 for one in chosen) <= 36 for low in range(0, 1000, 200))
