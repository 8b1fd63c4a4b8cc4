"""Singular and plural."""

import pytest

from socodet.runtime.counted import counted


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
def test_one_is_singular(number, text):
    assert counted(number, "epoch") == text


def test_a_plural_of_its_own():
    assert (counted(1, "box", "boxes"), counted(3, "box", "boxes")) == ("1 box", "3 boxes")
