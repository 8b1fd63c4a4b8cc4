"""Vector operations in kernels, compared with NumPy value by value."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from socodet.runtime import vectors as v

Floats = NDArray[np.float32]

RNG = np.random.default_rng(0)
A, B, C, D = (RNG.normal(0, 100, 16).astype(np.float32) for _ in range(4))
B[:5] = A[:5]  # some are equal


def _computed(kernel: Callable[..., Any], *operands: Floats) -> Floats:
    """The kernel's result; operands and result are surrounded by other values, which must not change."""
    memory = np.full((len(operands) + 1) * 16 + 7, 3.5, np.float32)
    memory[7 + 16 :] = np.concatenate(operands)
    numba.njit(kernel)(memory)
    assert (memory[:7] == 3.5).all()
    assert (memory[23:] == np.concatenate(operands)).all()
    return memory[7:23]


def _add(m: Any) -> None:
    v.store(m, 7, v.load(m, 23) + v.load(m, 39))


def _subtract(m: Any) -> None:
    v.store(m, 7, v.load(m, 23) - v.load(m, 39))


def _multiply(m: Any) -> None:
    v.store(m, 7, v.load(m, 23) * v.load(m, 39))


def _minimum(m: Any) -> None:
    v.store(m, 7, v.least(v.load(m, 23), v.load(m, 39)))


def _maximum(m: Any) -> None:
    v.store(m, 7, v.greatest(v.load(m, 23), v.load(m, 39)))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (_add, A + B),
        (_subtract, A - B),
        (_multiply, A * B),
        (_minimum, np.minimum(A, B)),
        (_maximum, np.maximum(A, B)),
    ],
)
def test_operations_on_two_vectors(kernel: Callable[..., Any], expected: Floats) -> None:
    assert (_computed(kernel, A, B) == expected).all()


def _fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """a · b + c, rounded once: the product of two float32 is exact in float64, and the sum in extended precision."""
    return (a.astype(np.longdouble) * b + c).astype(np.float32)


def test_multiply_add_rounds_once_or_twice() -> None:
    def kernel(m: Any) -> None:
        v.store(m, 7, v.multiply_add(v.load(m, 23), v.load(m, 39), v.load(m, 55)))

    result = _computed(kernel, A, B, C)
    assert (result == _fused(A, B, C)).all() or (
        result == A * B + C
    ).all()  # depends on the machine, but is the same for all values


def test_only_multiply_add_is_fused() -> None:
    """Otherwise a kernel's rounding would depend on what else the process has compiled."""

    def by_operators(m: Any) -> None:
        v.store(m, 7, v.load(m, 23) * v.load(m, 39) + v.load(m, 55))

    def by_one_call(m: Any) -> None:
        product = v.load(m, 55) * v.load(m, 71)
        v.store(m, 7, v.multiply_add(v.load(m, 23), v.load(m, 39), product))

    assert not (_fused(A, B, C) == A * B + C).all()  # these values round differently
    assert (_computed(by_operators, A, B, C) == A * B + C).all()
    result = _computed(by_one_call, A, B, C, D)
    assert (result == _fused(A, B, C * D)).all() or (result == A * B + C * D).all()


def test_pick_selects_by_comparison() -> None:
    def equal(m: Any) -> None:
        v.store(m, 7, v.pick_equal(v.load(m, 23), v.load(m, 39), v.load(m, 55), v.load(m, 71)))

    def less(m: Any) -> None:
        v.store(m, 7, v.pick_less(v.load(m, 23), v.load(m, 39), v.load(m, 55), v.load(m, 71)))

    assert (_computed(equal, A, B, C, D) == np.where(A == B, C, D)).all()
    assert (_computed(less, A, B, C, D) == np.where(A < B, C, D)).all()


def test_operations_on_one_vector() -> None:
    def absolute(m: Any) -> None:
        v.store(m, 7, v.absolute(v.load(m, 23)))

    def reverse(m: Any) -> None:
        v.store(m, 7, v.reverse(v.load(m, 23)))

    def broadcast(m: Any) -> None:
        v.store(m, 7, v.broadcast(m[26]))

    assert (_computed(absolute, A) == np.abs(A)).all()
    assert (_computed(reverse, A) == A[::-1]).all()
    assert (_computed(broadcast, A) == A[3]).all()


def test_bytes_are_loaded_and_stored_truncated() -> None:
    @numba.njit
    def kernel(source: Any, floats: Any, target: Any) -> None:
        v.store(floats, 2, v.load_bytes(source, 3))
        v.store_bytes(target, 5, v.load(floats, 2) + v.broadcast(np.float32(0.75)))

    source, floats, target = RNG.integers(0, 256, 24, np.uint8), np.zeros(20, np.float32), np.zeros(24, np.uint8)
    source[3:5] = 0, 255
    kernel(source, floats, target)
    assert (floats == np.pad(source[3:19].astype(np.float32), 2)).all()
    assert (target == np.pad(source[3:19], (5, 3))).all()  # truncated, not rounded


def test_other_types_are_refused() -> None:
    @numba.njit
    def kernel(m: Any) -> None:
        v.store(m, 0, v.load(m, 0))

    for other in (np.zeros(16, np.float64), np.zeros(16, np.int16), np.zeros((2, 16), np.float32), A.repeat(2)[::2]):
        with pytest.raises(numba.core.errors.TypingError):
            kernel(other)


@pytest.mark.parametrize(("stride", "stride_there"), [(16, 16), (19, 33)])
def test_transpose_with_strides(stride: int, stride_there: int) -> None:
    @numba.njit
    def kernel(source: Any, target: Any, stride: Any, stride_there: Any) -> None:
        v.transpose(source, 2, stride, target, 3, stride_there)

    source, target = RNG.random(2 + 16 * stride, np.float32), np.full(3 + 16 * stride_there, -1, np.float32)
    expected = target.copy()
    expected[3:].reshape(16, stride_there)[:, :16] = source[2:].reshape(16, stride)[:, :16].T
    kernel(source, target, stride, stride_there)
    assert (target == expected).all()


def test_a_vector_and_a_number_are_not_added() -> None:
    @numba.njit
    def kernel(m: Any) -> None:
        v.store(m, 0, v.load(m, 0) + 1.0)

    with pytest.raises(numba.core.errors.TypingError):
        kernel(A.copy())
