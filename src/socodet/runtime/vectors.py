"""Vectors for compiled kernels: 16 float32 that are loaded, computed with and stored as one.

Numba leaves it to the compiler which loops become vector code; the hottest ones here use vectors explicitly. LLVM
makes them of the machine's registers, whatever their size: one of 512 bits, two of 256, four of 128.

All functions are for use inside kernels only. A place is an index into a flat, contiguous array; the array is checked
when a kernel is compiled, the place never.
"""

import operator
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

from llvmlite import ir
from numba import errors, types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_WHOLES = ir.VectorType(ir.IntType(32), LANES)


class Vector(types.Type):  # type: ignore[misc]
    """Numba's type of 16 float32."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


vector = Vector()


@register_model(Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Any) -> None:
        super().__init__(manager, fe_type, _FLOATS)


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any, pointee: Any) -> Any:
    """Pointer to a vector at `index` of a flat array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


@intrinsic  # type: ignore[misc]
def load(typing: Any, array: Any, index: Any) -> Any:
    """The vector at `index` of a flat float32 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        place = _place(context, builder, signature.args[0], array, index, _FLOATS)
        return builder.load(place, align=4)

    _check(array, types.float32)
    return vector(array, types.intp), generate


def _check(array: Any, *dtypes: Any) -> None:
    """Rejects, when a kernel is compiled, an array that is not flat, not contiguous, or of another type."""
    if not (isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype in dtypes):
        raise errors.NumbaTypeError(
            f"a flat, contiguous array of {' or '.join(map(str, dtypes))} is needed, not {array}"
        )


@intrinsic  # type: ignore[misc]
def load_bytes(typing: Any, array: Any, index: Any) -> Any:
    """The vector of the 16 bytes at `index` of a flat uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        place = _place(context, builder, signature.args[0], array, index, _BYTES)
        return builder.uitofp(builder.load(place, align=1), _FLOATS)

    _check(array, types.uint8)
    return vector(array, types.intp), generate


@intrinsic  # type: ignore[misc]
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Writes a vector to `index` of a flat array: float32, or uint16 that holds bfloat16, to the nearest even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index, value = arguments
        builder.store(value, _place(context, builder, signature.args[0], array, index, _FLOATS), align=4)
        return context.get_dummy_value()

    _check(array, types.float32)
    return types.none(array, types.intp, vector), generate


@intrinsic  # type: ignore[misc]
def store_bytes(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Writes a vector of 0 to 255, cut to whole numbers, to `index` of a flat uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, index, value = arguments
        whole = builder.trunc(builder.fptosi(value, _WHOLES), _BYTES)
        builder.store(whole, _place(context, builder, signature.args[0], data, index, _BYTES), align=1)
        return context.get_dummy_value()

    _check(array, types.uint8)
    return types.none(array, types.intp, vector), generate


def _of_vectors(count: int, build: Callable[..., Any]) -> Any:
    """An intrinsic of `count` vectors that gives one; `build` takes the builder and their values."""

    def function(typing: Any, *vectors: Any) -> Any:
        return vector(*[vector] * count), lambda context, builder, signature, values: build(builder, *values)

    names = ("typing", *"abcd"[:count])  # as many arguments as Numba is to take
    function.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])  # type: ignore[attr-defined]
    return intrinsic(function)


_BACKWARDS = ir.Constant(_WHOLES, list(range(LANES))[::-1])
reverse = _of_vectors(1, lambda builder, a: builder.shuffle_vector(a, a, _BACKWARDS))
"""reverse(a): the vector's values, the last one first."""


@intrinsic  # type: ignore[misc]
def broadcast(typing: Any, value: Any) -> Any:
    """The vector of 16 times a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), arguments[0], ir.IntType(32)(0))
        return builder.shuffle_vector(first, first, ir.Constant(_WHOLES, [0] * LANES))

    return vector(types.float32), generate


_OPERATORS = {
    operator.add: _of_vectors(2, lambda builder, a, b: builder.fadd(a, b)),
    operator.sub: _of_vectors(2, lambda builder, a, b: builder.fsub(a, b)),
    operator.mul: _of_vectors(2, lambda builder, a, b: builder.fmul(a, b)),
}


def _overload(symbol: Callable[..., Any], function: Any) -> None:
    @overload(symbol)  # type: ignore[misc]
    def implementation(a, b):  # type: ignore[no-untyped-def]
        if a is vector and b is vector:
            return lambda a, b: function(a, b)
        return None


for _symbol, _function in _OPERATORS.items():
    _overload(_symbol, _function)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return builder.call(builder.module.declare_intrinsic(f"llvm.fmuladd.v{LANES}f32", fnty=kind), (a, b, c))


multiply_add = _of_vectors(3, _multiply_add)
"""multiply_add(a, b, c): a · b + c for each value, in one instruction where the machine has it.

Nothing else is fused. Were a compiler free to choose, as LLVM's `contract` flag lets it, then a kernel inlined into two
others could round in two ways, and which of them a process runs depends on what it has compiled.
"""


def _picked(comparison: str) -> Callable[..., Any]:
    """Values of the third vector where the first two compare so, else of the fourth; by default, of the two."""

    def build(builder: Any, a: Any, b: Any, if_so: Any = None, if_not: Any = None) -> Any:
        if if_so is None:
            if_so, if_not = a, b
        return builder.select(builder.fcmp_ordered(comparison, a, b), if_so, if_not)

    return build


least = _of_vectors(2, _picked("<"))
"""least(a, b): the smaller of each two values; b where either is NaN."""
greatest = _of_vectors(2, _picked(">"))
"""greatest(a, b): the larger of each two values; b where either is NaN."""
pick_equal = _of_vectors(4, _picked("=="))
"""pick_equal(a, b, if_so, if_not): by value, `if_so` where a = b."""
pick_less = _of_vectors(4, _picked("<"))
"""pick_less(a, b, if_so, if_not): by value, `if_so` where a < b."""


def _absolute(builder: Any, a: Any) -> Any:
    without_sign = ir.Constant(_WHOLES, [0x7FFFFFFF] * LANES)
    return builder.bitcast(builder.and_(builder.bitcast(a, _WHOLES), without_sign), _FLOATS)


absolute = _of_vectors(1, _absolute)
"""absolute(a): |a|."""


@intrinsic  # type: ignore[misc]
def transpose(
    typing: Any, source: Any, begin: Any, stride: Any, target: Any, begin_there: Any, stride_there: Any
) -> Any:
    """Writes the 16 vectors at begin, begin + stride, ... of `source` as columns: value n of each to vector n.

    source, target: flat float32 arrays. Vector n goes to begin_there + n * stride_there of `target`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, begin, stride, target, begin_there, stride_there = arguments
        source_type, target_type = signature.args[0], signature.args[3]

        def nth(first: Any, step: Any, n: int) -> Any:
            return builder.add(first, builder.mul(step, step.type(n)))

        vectors = [
            builder.load(_place(context, builder, source_type, source, nth(begin, stride, n), _FLOATS), align=4)
            for n in range(LANES)
        ]
        # Four rounds of interleaving vector n with vector n + 8 turn 16 by 16 values about their diagonal.
        halves = [
            ir.Constant(
                _WHOLES,
                [
                    lane
                    for pair in zip(range(first, first + 8), range(16 + first, 24 + first), strict=True)
                    for lane in pair
                ],
            )
            for first in (0, 8)
        ]
        for _ in range(4):
            vectors = [builder.shuffle_vector(vectors[n], vectors[n + 8], half) for n in range(8) for half in halves]
        for n, value in enumerate(vectors):
            place = _place(context, builder, target_type, target, nth(begin_there, stride_there, n), _FLOATS)
            builder.store(value, place, align=4)
        return context.get_dummy_value()

    _check(source, types.float32)
    _check(target, types.float32)
    return types.none(source, types.intp, types.intp, target, types.intp, types.intp), generate
