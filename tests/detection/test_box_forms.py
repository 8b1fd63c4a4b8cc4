"""When boxes are taken to be in another form: limits of how many may not fit."""

from pathlib import Path

import numpy as np
import pytest

from socodet.detection.datasets.box_forms import WrittenBoxes, check_box_form, find_box_form
from socodet.errors import InputError

FILE = Path("a.json")
ANY = [30, 30, 40, 40]
"""A box in an image of 100 x 100 that fits as xyxy, xywh and cxcywh."""
CORNERS = [60, 60, 90, 90]
"""Only as xyxy."""
CENTRE = [80, 80, 30, 30]
"""Only as cxcywh."""
SIZE = [60, 60, 20, 20]
"""As xywh and cxcywh."""
NAN = [np.nan, 30, 40, 40]


def written(*counts):
    """So many of each box."""
    rows = [row for row, count in counts for _ in range(count)]
    return [WrittenBoxes(np.array(rows, np.float64), 100, 100, "image 1")]


@pytest.mark.parametrize(
    ("form", "counts", "asked", "fits"),
    [
        ("xyxy", [(SIZE, 2)], False, True),  # too few to conclude anything
        ("xyxy", [(SIZE, 3)], False, False),
        ("xyxy", [(SIZE, 5), (ANY, 95)], False, True),  # a twentieth may be mistakes
        ("xyxy", [(SIZE, 6), (ANY, 94)], False, False),
        ("xywh", [(CORNERS, 10), (CENTRE, 3), (ANY, 87)], False, True),  # 13 outside, and as xyxy 3, over a fifth
        ("xywh", [(CORNERS, 10), (CENTRE, 2), (ANY, 88)], False, False),
        ("xyxy", [(CENTRE, 50), (ANY, 50)], True, True),  # the user knows better, unless nearly all
        ("xyxy", [(CENTRE, 50), (ANY, 50)], False, False),
        ("xyxy", [(CENTRE, 91), (ANY, 9)], True, False),
        ("xyxy", [(SIZE, 50), (ANY, 50)], True, False),  # or if COCO's own form fits
        ("xywh", [([0, 0, 1, 1], 90), (ANY, 10)], False, True),
        ("xywh", [([0, 0, 1, 1], 91), (ANY, 9)], False, False),  # fractions of the image
        ("xywh", [([0, 0, 1, 2], 100)], False, True),
        ("xyxy", [([-1, -1, 101, 101], 50)], False, True),  # a pixel outside, by rounding
        ("xyxy", [([30, 30, 30, 40], 50), (ANY, 50)], False, False),  # no area; as xywh there is one
        ("cxcywh", [([14, 14, 30, 30], 50)], False, True),
        ("xyxy", [(NAN, 50), (ANY, 50)], False, True),  # counted elsewhere
        ("xywh", [(NAN, 50), ([0, 0, 1, 1], 50)], False, False),
        ("xywh-shares", [([0.1, 0.1, 0.5, 200], 5), ([0.1, 0.1, 0.5, 0.6], 5)], False, True),
        ("xywh-shares", [([0.1, 0.1, 0.5, 200], 10)], False, False),
    ],
)
def test_form_is_checked_by_the_share_of_boxes_outside(form, counts, asked, fits):
    if fits:
        check_box_form(FILE, form, written(*counts), asked=asked)
    else:
        with pytest.raises(InputError, match=r"^a.json: "):
            check_box_form(FILE, form, written(*counts), asked=asked)


@pytest.mark.parametrize(
    ("counts", "form"),
    [
        ([(CORNERS, 50), (CENTRE, 2)], "xyxy"),  # two may be mistakes
        ([(CENTRE, 50), (ANY, 50), (CORNERS, 4)], "cxcywh"),
        ([(CENTRE, 50), (CORNERS, 4)], None),  # over a twentieth do not fit the best
        ([(ANY, 85), ([5, 5, 40, 40], 10), (CORNERS, 4), (SIZE, 1)], None),  # xywh fits less well than xyxy, but fits
        ([(ANY, 50), (CENTRE, 2)], None),  # any of two
        ([(ANY, 50), (SIZE, 50)], None),
        ([], "xywh"),
    ],
)
def test_form_is_found_if_it_is_the_only_one_that_fits(counts, form):
    if form:
        assert find_box_form(FILE, written(*counts) if counts else []) == form
    else:
        with pytest.raises(InputError, match="choose one with --box-form"):
            find_box_form(FILE, written(*counts))
