"""Numbers, ids and boxes come out the same whether they are read by the short way for the usual case or not."""

import math

import numpy as np
import pytest

from socodet.detection.datasets.box_forms import FORMS, WrittenBoxes, boxes_by_image
from socodet.detection.datasets.problems import AnnotationProblems, Problem
from socodet.detection.datasets.values import LARGEST, matching_id, number

NUMBERS = [0, -0.0, 3, -3, 0.1, 2**53 + 1, -1e8, 1e9, 999_999_999, 1e9 - 0.5, -1e9, 1e300, math.inf, math.nan, 10**400]


@pytest.mark.parametrize("written", NUMBERS)
def test_number_is_the_same_number_as_text(written):
    found = number(written)
    assert isinstance(found, float)
    assert repr(found) == repr(number(str(written)))
    assert found == written if abs(written) < LARGEST else math.isnan(found)


def test_truth_values_and_other_types_are_no_numbers():
    assert all(math.isnan(number(value)) for value in (True, False, None, "", "x", [], [1], {}))


@pytest.mark.parametrize("known", [{1, 2}, {"1", "2"}])
def test_id_is_found_however_it_is_written(known):
    one = 1 if 1 in known else "1"
    for value, expected in ((1, one), (1.0, one), ("1", one), (7, None), (True, None), (None, None), ([1], None)):
        found = matching_id(value, known)
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_many_images_are_those_of_each_alone(form):
    rng = np.random.default_rng(0)
    scale = 0.01 if form.endswith("-shares") else 1
    images = []
    for place, count in enumerate([0, 3, 0, 0, 1, *rng.integers(0, 8, 30), 0]):
        boxes = rng.uniform(-10, 120, (count, 4)) * scale
        boxes[rng.random(count) < 0.1] = 0
        boxes[rng.random((count, 4)) < 0.03] = np.nan
        images.append(WrittenBoxes(boxes, *rng.integers(80, 120, 2).tolist(), f"image {place}"))
    angles = [np.where(rng.random(len(image.numbers)) < 0.2, 30.0, 0.0) for image in images]
    together, alone = AnnotationProblems(), AnnotationProblems()
    found = boxes_by_image(images, form, np.concatenate(angles), together)
    for image, turned, (boxes, kept) in zip(images, angles, found, strict=True):
        ((own_boxes, own_kept),) = boxes_by_image([image], form, turned, alone)
        np.testing.assert_array_equal(boxes, own_boxes)
        np.testing.assert_array_equal(kept, own_kept)
    assert together.as_json() == alone.as_json()
    kinds = {Problem.ROTATED, Problem.BROKEN_BOX, Problem.EMPTY_BOX, Problem.OUTSIDE, Problem.CLIPPED}
    assert together.counts.keys() == kinds
    assert boxes_by_image([], form, np.empty(0), together) == []
