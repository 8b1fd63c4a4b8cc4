"""Invariants of selective search on any image."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socodet.images.decode import decode_image
from socodet.images.photographs import photographs
from socodet.proposals.selective_search.grouping import Mix, group
from socodet.proposals.selective_search.regions import describe, pixel_bins
from socodet.proposals.selective_search.search import STRATEGIES, selective_search
from socodet.proposals.selective_search.segmentation import segment, sort_edges


def random_image(seed: int, height: int, width: int, levels: int, block: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, levels, (-(-height // block), -(-width // block), 3)) * (255 // (levels - 1))
    return np.repeat(np.repeat(small, block, axis=0), block, axis=1)[:height, :width].astype(np.uint8)


random_images = st.builds(
    random_image,
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([2, 3, 256]),
    st.integers(1, 12),
)


@settings(max_examples=60, deadline=None)
@given(random_images, st.sampled_from(["single", "fast"]), st.sampled_from([16, 40, 256]))
def test_boxes_are_inside_and_the_last_is_the_whole_image(image: np.ndarray, strategy: str, work_size: int) -> None:
    boxes = selective_search(image, STRATEGIES[strategy], work_size)
    height, width = image.shape[:2]
    assert boxes.dtype == np.float32
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= (width, height)).all()
    assert boxes[-1].tolist() == [0, 0, width, height]


@settings(max_examples=60, deadline=None)
@given(random_images, st.sampled_from([1, 30, 300]))
def test_regions_are_nested(image: np.ndarray, k: int) -> None:
    planes = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32)
    labels, count, pairs = segment(sort_edges(planes), *labels_shape(image), k, 3)
    hierarchy = group(describe(labels, count, pixel_bins(planes)), pairs, Mix(1, 1, 1, 1), labels.size)
    assert len(hierarchy.boxes) == 2 * count - 1
    assert sorted(hierarchy.children.ravel().tolist()) == list(range(2 * count - 2))  # all but the last, each once
    for parent, (a, b) in enumerate(hierarchy.children.tolist(), start=count):
        assert max(a, b) < parent
        both = hierarchy.boxes[[a, b]]
        assert hierarchy.boxes[parent].tolist() == [*both[:, :2].min(axis=0), *both[:, 2:].max(axis=0)]


def labels_shape(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (300, 1), (50, 70)])
@pytest.mark.parametrize("strategy", ["single", "quality"])
def test_a_constant_image_is_one_region(shape: tuple[int, int], strategy: str) -> None:
    boxes = selective_search(np.full((*shape, 3), 77, np.uint8), STRATEGIES[strategy])
    assert (boxes == (0, 0, shape[1], shape[0])).all()


def test_a_square_of_another_color_is_found_exactly() -> None:
    image = np.full((120, 160, 3), (30, 90, 200), np.uint8)
    image[40:85, 51:130] = (220, 160, 20)
    assert [51, 40, 130, 85] in selective_search(image).tolist()


def test_boxes_of_a_shrunken_image_are_mapped_back_exactly() -> None:
    image = np.full((300, 600, 3), (30, 90, 200), np.uint8)
    image[120:210, 150:480] = (220, 160, 20)
    assert [150, 120, 480, 210] in selective_search(image, work_size=200).tolist()


def mean_best_overlap(boxes: np.ndarray, others: np.ndarray) -> float:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others)]
    return float((inside / (areas[0][:, None] + areas[1][None] - inside)).max(axis=1).mean())


@pytest.mark.parametrize("name", ["coffee.jpg", "chelsea.jpg"])
def test_a_mirrored_photograph_gives_mirrored_boxes_up_to_ties(name: str) -> None:
    image = decode_image((photographs() / name).read_bytes())
    boxes = selective_search(image)
    mirrored = selective_search(np.ascontiguousarray(image[:, ::-1]))
    mirrored[:, [0, 2]] = image.shape[1] - mirrored[:, [2, 0]]
    assert mean_best_overlap(boxes, mirrored) > 0.9
    assert mean_best_overlap(mirrored, boxes) > 0.9


def stripe_boxes(planes: np.ndarray) -> set[tuple[int, ...]]:
    labels, count, pairs = segment(sort_edges(planes), *planes.shape[1:], 100, 20)
    regions = describe(labels, count, pixel_bins(planes))
    return {tuple(box) for box in group(regions, pairs, Mix(1, 1, 1, 1), labels.size).boxes.tolist()}


def test_stripes_of_distinct_colors_mirror_exactly() -> None:
    # All horizontal edges and all similarities differ, so there are no ties. Not smoothed, because the two halves of
    # a smoothed step are equal.
    rng = np.random.default_rng(5)
    widths = rng.permutation(np.arange(4, 24))
    colors = np.cumsum(rng.permutation(np.arange(3, 23)) * rng.choice([-1, 1], 20)) % 255
    planes = np.broadcast_to(np.repeat(colors, widths)[None, None, :], (3, 64, widths.sum())).astype(np.float32)
    mirrored = stripe_boxes(np.ascontiguousarray(planes[:, :, ::-1]))
    width = planes.shape[2]
    assert stripe_boxes(planes) == {(width - x2, y1, width - x1, y2) for x1, y1, x2, y2 in mirrored}
    assert len(mirrored) > 30


def test_a_read_only_or_strided_image_is_the_same_image() -> None:
    image = random_image(1, 50, 60, 256, 9)
    boxes = selective_search(image)
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(selective_search(strided), boxes)


@pytest.mark.parametrize("settings", ["'fast'", "'single', work_size=5500"])
def test_a_20_megapixel_image_fits_in_a_gigabyte(settings: str) -> None:
    program = (
        "import re, numpy as np\n"
        "from socodet.proposals.image_boxes import propose_boxes\n"
        "from socodet.proposals.settings import ProposalSettings\n"
        "small = np.random.default_rng(0).integers(0, 256, (37, 55, 3), np.uint8)\n"
        "image = small.repeat(100, axis=0).repeat(100, axis=1)\n"
        "image += np.random.default_rng(1).integers(0, 9, image.shape, np.uint8)\n"
        f"assert image.nbytes > 60e6 and len(propose_boxes(image, ProposalSettings({settings}))) > 10\n"
        "status = open('/proc/self/status').read()\n"  # getrusage would include the parent
        "assert int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]) < 1e6\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
