import numpy as np
import pycocotools.mask as other
import pytest

from socodet.detection.datasets.masks import (
    as_rle,
    decode_mask,
    decode_rle,
    encode_masks,
    mask_area,
    usable_segmentation,
)

SIZE = (37, 53)


def random_masks(count=6):
    """Blots with holes: thresholded noise, smoothed along both sides."""
    noise = np.random.default_rng(0).normal(size=(count, *SIZE))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(4))
    return (noise > 1).astype(np.uint8)


def test_run_lengths_are_those_of_another_library():
    masks = random_masks()
    encoded = encode_masks(masks)
    for rle, mask in zip(encoded, masks, strict=True):
        assert rle["counts"].encode() == other.encode(np.asfortranarray(mask))["counts"]
        np.testing.assert_array_equal(other.decode(rle), mask)
        np.testing.assert_array_equal(decode_rle(rle), mask)
        assert mask_area(rle) == mask.sum()
        assert usable_segmentation(rle, *SIZE) == rle
    assert encode_masks(np.zeros((0, *SIZE), np.uint8)) == []


def test_polygons_are_drawn_as_another_library_draws_them():
    triangle, part = [3.5, 2.2, 40.1, 10.7, 20.3, 35.9], [44, 20, 52, 22, 50, 33, 41, 30]
    segmentation = usable_segmentation([triangle, part], *SIZE)
    whole = other.decode(other.merge(other.frPyObjects([triangle, part], *SIZE)))
    assert 400 < whole.sum() < 800
    np.testing.assert_array_equal(decode_mask(segmentation, SIZE, SIZE), whole)
    halved = [[side / 2 for side in polygon] for polygon in (triangle, part)]
    np.testing.assert_array_equal(
        decode_mask(segmentation, (74, 106), SIZE), other.decode(other.merge(other.frPyObjects(halved, *SIZE)))
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[1, 2, 3, 4, 5, float("nan")]],
        ["text"],
        {"counts": "abc"},
        {"size": [37, 53], "counts": [5, -5, 37 * 53]},
        {"size": [37, 53], "counts": [37 * 53 - 1]},
        {"size": [53, 37], "counts": [37 * 53]},
        {"size": [37, 53], "counts": "1"},
    ],
)
def test_what_is_no_segmentation(value):
    assert usable_segmentation(value, *SIZE) is None


def test_cut_run_lengths_are_found_out():
    rle = encode_masks(random_masks(1))[0]
    for end in range(len(rle["counts"])):
        assert usable_segmentation(rle | {"counts": rle["counts"][:end]}, *SIZE) is None


def test_uncompressed_run_lengths():
    mask = random_masks(1)[0]
    steps = np.flatnonzero(np.diff(mask.T.reshape(-1))) + 1
    runs = np.diff([0, *steps, mask.size]).tolist()
    plain = {"size": list(SIZE), "counts": [0, *runs] if mask[0, 0] else runs}
    assert usable_segmentation(plain, *SIZE) is plain
    np.testing.assert_array_equal(decode_rle(as_rle(plain, *SIZE)), mask)
