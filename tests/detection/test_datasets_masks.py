import numpy as np
import pycocotools.mask as other
import pytest

from socodet.detection.datasets.masks import (
    as_rle,
    decode_mask,
    decode_rle,
    encode_masks,
    mask_area,
    misses_box,
    placed_mask,
    usable_segmentation,
)

SIZE = (37, 53)


def random_masks(count=6):
    """Blobs with holes: thresholded noise, smoothed along both axes."""
    noise = np.random.default_rng(0).normal(size=(count, *SIZE))
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(4))
    return (noise > 1).astype(np.uint8)


def test_run_lengths_match_pycocotools():
    masks = random_masks()
    encoded = encode_masks(masks)
    for rle, mask in zip(encoded, masks, strict=True):
        assert rle["counts"].encode() == other.encode(np.asfortranarray(mask))["counts"]
        np.testing.assert_array_equal(other.decode(rle), mask)
        np.testing.assert_array_equal(decode_rle(rle), mask)
        assert mask_area(rle) == mask.sum()
        assert usable_segmentation(rle, *SIZE) == rle
    assert encode_masks(np.zeros((0, *SIZE), np.uint8)) == []


@pytest.mark.parametrize("corner", [(7, 3), (0, 0), (-4, -6), (46, 30), (-5, 31), (-60, 0), (60, 40)])
@pytest.mark.parametrize("shape", [(11, 13), SIZE])
def test_patch_is_placed_in_an_image(corner, shape):
    """Also if it reaches beyond the border, or fills whole columns."""
    x, y = corner
    for patch in (random_masks(1)[0][: shape[0], : shape[1]], np.ones(shape, np.uint8)):
        large = np.zeros((3 * 60, 3 * 60), np.uint8)
        large[60 + y : 60 + y + shape[0], 60 + x : 60 + x + shape[1]] = patch
        whole = large[60 : 60 + SIZE[0], 60 : 60 + SIZE[1]]
        np.testing.assert_array_equal(other.decode(placed_mask(patch.astype(bool), corner, *SIZE)), whole)


def test_polygons_are_drawn_as_by_pycocotools():
    triangle, part = [3.5, 2.2, 40.1, 10.7, 20.3, 35.9], [44, 20, 52, 22, 50, 33, 41, 30]
    segmentation = usable_segmentation([triangle, part], *SIZE)
    whole = other.decode(other.merge(other.frPyObjects([triangle, part], *SIZE)))
    assert 400 < whole.sum() < 800
    np.testing.assert_array_equal(decode_mask(segmentation, SIZE, SIZE), whole)
    for size, ratio in (((74, 106), (0.5, 0.5)), ((74, 53), (1, 0.5))):
        scaled = [(np.reshape(polygon, (-1, 2)) * ratio).reshape(-1).tolist() for polygon in (triangle, part)]
        drawn = other.decode(other.merge(other.frPyObjects(scaled, *SIZE)))
        np.testing.assert_array_equal(decode_mask(segmentation, size, SIZE), drawn)


def test_object_too_small_to_draw_keeps_a_pixel():
    """Four by three pixels, in an image scaled down to a tenth, contain no pixel centre."""
    box = [28.0, 16.0, 32.0, 16.0, 32.0, 19.0, 28.0, 19.0]
    mask = np.zeros((40, 60), np.uint8)
    mask[16:19, 28:32] = 1
    wanted = np.zeros((4, 6), np.uint8)
    wanted[1, 3] = 1
    assert other.decode(other.frPyObjects([[side / 10 for side in box]], 4, 6)).sum() == 0
    for segmentation in ([np.array(box)], encode_masks(mask[None])[0]):
        np.testing.assert_array_equal(decode_mask(segmentation, (40, 60), (4, 6)), wanted)
    assert not decode_mask(encode_masks(0 * mask[None])[0], (40, 60), (4, 6)).any()


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
        {"size": [37, 53], "counts": "P" * 20},
        {"size": [37, 53], "counts": "P" * 200 + "0"},
        {"size": [37, 53], "counts": "größe"},
        {"size": [37, 53], "counts": "5KYm1"},  # 5, -5 and 37 * 53
    ],
)
def test_invalid_segmentations(value):
    assert usable_segmentation(value, *SIZE) is None


def test_truncated_run_lengths_are_invalid():
    rle = encode_masks(random_masks(1))[0]
    for end in range(len(rle["counts"])):
        assert usable_segmentation(rle | {"counts": rle["counts"][:end]}, *SIZE) is None


def test_uncompressed_run_lengths():
    mask = random_masks(1)[0]
    steps = np.flatnonzero(np.diff(mask.T.reshape(-1))) + 1
    runs = np.diff([0, *steps, mask.size]).tolist()
    plain = {"size": list(SIZE), "counts": [0, *runs] if mask[0, 0] else runs}
    assert usable_segmentation(plain, *SIZE) == plain
    as_floats = {"size": [float(side) for side in SIZE], "counts": [float(run) for run in plain["counts"]]}
    assert usable_segmentation(as_floats, *SIZE) == plain
    as_text = {"size": [str(side) for side in SIZE], "counts": [str(run) for run in plain["counts"]]}
    assert usable_segmentation(as_text, *SIZE) == plain
    for counts in (
        [0.5, mask.size - 0.5],
        [-1, mask.size + 1],
        [True, mask.size - 1],
        [[mask.size]],
        [None],
        "",
        "é",
        5,
    ):
        assert usable_segmentation({"size": list(SIZE), "counts": counts}, *SIZE) is None
    for size in (SIZE[::-1], [37.5, 53], [37], None, "37x53", [True, 53]):
        assert usable_segmentation(plain | {"size": size}, *SIZE) is None
    np.testing.assert_array_equal(decode_rle(as_rle(plain, *SIZE)), mask)


def test_size_of_compressed_run_lengths_may_be_floats():
    rle = encode_masks(random_masks(1))[0]
    read = usable_segmentation(rle | {"size": [float(side) for side in SIZE]}, *SIZE)
    assert read == rle
    np.testing.assert_array_equal(decode_rle(as_rle(read, *SIZE)), random_masks(1)[0])


def test_polygons_in_other_forms_are_the_same_outline():
    flat = [1.0, 1, 9, 1, 9, 9, 1, 9]
    points = [[1, 1], [9, 1], [9, 9], [1, 9]]
    for form in ([flat], flat, points, [points], [list(map(str, flat))]):
        (outline,) = usable_segmentation(form, *SIZE)
        assert outline.tolist() == flat
    assert usable_segmentation([points, flat], *SIZE)[1].tolist() == flat
    for form in ([], [[]], [1, 2, 3, 4], [[1, 1], [2, 2]], [[1, 2, 3, 4, 5, "x"]], [None], ["a"], "a", 3, None, [{}]):
        assert usable_segmentation(form, *SIZE) is None


def test_mask_outside_its_box_is_noticed():
    box = (9, 9, 21, 21)  # with a pixel around it
    assert not misses_box([np.array([11.0, 11, 19, 11, 19, 19])], box)
    assert not misses_box([np.array([0.0, 0, 5, 0, 5, 5]), np.array([12.0, 12, 19, 12, 19, 19])], box)
    assert misses_box([np.array([0.1, 0.1, 0.9, 0.1, 0.9, 0.9])], box)  # fractions of the image
    assert misses_box([np.array([30.0, 11, 39, 11, 39, 19])], box)
    empty = {"size": [30, 30], "counts": [900]}
    assert misses_box(empty, box)
    assert not misses_box({"size": [30, 30], "counts": [310, 5, 585]}, box)


def test_outline_near_its_box_is_told_from_all_of_its_points():
    """Also if the first point, which settles most objects, is elsewhere."""
    rng = np.random.default_rng(0)
    missed, first_is_near = [], []
    for _ in range(500):
        x1, y1 = rng.integers(0, 40, 2)
        x2, y2 = x1 + rng.integers(1, 30), y1 + rng.integers(1, 30)
        outline = [rng.integers(0, 20, 6) + np.tile(rng.integers(0, 60, 2), 3) for _ in range(rng.integers(1, 3))]
        xs, ys = (np.concatenate([part[axis::2] for part in outline]) for axis in (0, 1))
        missed.append(max(xs) < x1 or min(xs) > x2 or max(ys) < y1 or min(ys) > y2)
        first_is_near.append(x1 <= xs[0] <= x2 and y1 <= ys[0] <= y2)
        assert misses_box([part.astype(np.float64) for part in outline], (x1, y1, x2, y2)) == missed[-1]
    assert {*zip(missed, first_is_near, strict=True)} == {(True, False), (False, False), (False, True)}


def test_drawing_a_polygon_far_beyond_the_image_takes_little_memory():
    """COCO's code needs memory in proportion to the edges' length, here a billion pixels."""
    far = 1e9
    above_row_10 = np.array([-far, 10, far, 10, 0, -far])
    mask = decode_mask([above_row_10], (30, 40), (30, 40))
    assert mask[:10].all()
    assert not mask[10:].any()
    left_of_diagonal = np.array([0, 0, far, far, 0, far])  # x < y
    rows, columns = np.mgrid[:40, :40]
    drawn = decode_mask([left_of_diagonal], (40, 40), (40, 40))
    assert (drawn[rows > columns + 1] == 1).all()
    assert (drawn[rows < columns - 1] == 0).all()
    spike = np.array([10, 20, far, 20, far, 0.3 * far])  # 20 < y < 20 + 0.3 (x - 10)
    drawn = decode_mask([spike], (40, 40), (40, 40))
    np.testing.assert_array_equal(drawn[:, 35].nonzero()[0][[0, -1]], [20, 27])
    assert not drawn[:20].any()
    elsewhere = np.array([far, far, far, 2 * far, 2 * far, far])
    assert not decode_mask([elsewhere], (30, 40), (30, 40)).any()
