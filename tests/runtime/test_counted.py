"""Counts in words: singular and plural."""

import pytest

from socodet.runtime.counted import counted, rounded


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1 epoch"),
        (1.0, "1 epoch"),
        (0, "0 epochs"),
        (2, "2 epochs"),
        (0.54321, "0.543 epochs"),
        (1200, "1,200 epochs"),
    ],
)
def test_only_one_is_singular(number, text):
    assert counted(number, "epoch") == text


def test_irregular_plurals_are_given():
    assert (counted(1, "box", "boxes"), counted(3, "box", "boxes")) == ("1 box", "3 boxes")


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (1639.4, 3, "1,639"),
        (999.6, 3, "1,000"),
        (999.4, 3, "999"),
        (-1234.0, 3, "-1,234"),
        (0.012345, 3, "0.0123"),
        (123.4, 2, "123"),
        (9.96, 2, "10"),
        (0, 3, "0"),
    ],
)
def test_numbers_have_no_exponent(number, digits, text):
    assert rounded(number, digits) == text
