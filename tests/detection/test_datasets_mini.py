import pytest
from hand_made_sets import made_image, made_set

from socodet.detection.datasets.subsets import hold_out, mini_dataset
from socodet.errors import InputError


def ids(dataset):
    return [image.image_id for image in dataset.images]


def dataset_of(numbers):
    return made_set([made_image(number, []) for number in numbers], "coco")


def test_subsets_have_the_requested_size_and_are_nested():
    ours = dataset_of(range(1000))
    five, ten = mini_dataset(ours, 0.05, seed=1), mini_dataset(ours, 0.1, seed=1)
    assert (len(five), len(ten)) == (50, 100)
    assert set(ids(five)) < set(ids(ten))
    assert ids(ten) == sorted(ids(ten))  # in the dataset's order
    assert len(mini_dataset(ours, 0.0001)) == 1
    assert len(mini_dataset(dataset_of(range(10)), 0.18)) == 2
    assert ids(mini_dataset(ours, 1.0)) == ids(ours)
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="more than 0 and at most 1"):
            mini_dataset(ours, fraction)


def test_held_back_images_are_in_order_and_not_those_of_a_subset():
    ours = dataset_of(range(100))
    train, val = hold_out(ours, 0.2, seed=1)
    assert (ids(train), ids(val)) == (sorted(ids(train)), sorted(ids(val)))
    assert sorted(ids(train) + ids(val)) == ids(ours)
    assert ids(val) != ids(mini_dataset(ours, 0.2, seed=1))  # otherwise one would train on all that one scores, or none
    with pytest.raises(InputError, match="leaves none to train on"):
        hold_out(dataset_of(range(3)), 0.9, seed=1)


def test_choice_depends_only_on_seed_and_ids():
    ours, turned = dataset_of(range(1000)), dataset_of(reversed(range(1000)))
    assert set(ids(mini_dataset(ours, 0.1, 3))) == set(ids(mini_dataset(turned, 0.1, 3)))
    assert (
        len(set(ids(mini_dataset(ours, 0.1, 3))) & set(ids(mini_dataset(ours, 0.1, 4)))) < 30
    )  # 10 expected by chance
    # spread evenly: each fifth of the dataset has 20 of the 100, within four standard deviations
    chosen = ids(mini_dataset(ours, 0.1, 3))
    assert all(4 <= sum(low <= one < low + 200 for one in chosen) <= 36 for low in range(0, 1000, 200))
