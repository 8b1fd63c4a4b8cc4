"""Compilation is announced when it happens, once, and not when there is nothing to compile."""

import numba
import pytest

from socodet.proposals.compilation import compilation_announced


def test_announced_once_and_only_when_something_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    one = numba.njit(lambda x: x + 1)
    other = numba.njit(lambda x: x + 2)
    with compilation_announced("the sums"):
        assert (one(1), other(1)) == (2, 3)
    assert capsys.readouterr().err.count("compiling the sums, which takes up to half a minute") == 1
    with compilation_announced("the sums"):
        assert one(2) == 3
    numba.njit(lambda x: x + 3)(1)
    assert capsys.readouterr().err == ""
