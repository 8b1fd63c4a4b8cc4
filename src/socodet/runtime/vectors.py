"""Vectors for compiled kernels: 16 float32 that are loaded, reckoned with and stored as one.

Numba leaves it to the compiler which loops become vector code; the hottest ones here say it themselves. Whatever
the machine's registers hold, LLVM makes the vectors of them: one of 512 bits, two of 256, four of 128.

All functions are for use inside kernels only. A place is an index into a flat, contiguous array; the array is checked
when a kernel is compiled, the place never.
"""

import operator
from collections.abc import Callable
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
    """Refused when a kernel is compiled: what is not flat, not contiguous, or holds something else."""
    if not (isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C" and array.dtype in dtypes):
        raise errors.NumbaTypeError(
            f"a flat, contiguous array of {' or '.join(map(str, dtypes))} is needed, not {array}"
        )


def _wholes(value: int) -> Any:
    return ir.Constant(_WHOLES, [value] * LANES)


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


@intrinsic  # type: ignore[misc]
def reverse(typing: Any, value: Any) -> Any:
    """The vector's values, the last one first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        order = ir.Constant(_WHOLES, list(range(LANES))[::-1])
        return builder.shuffle_vector(arguments[0], arguments[0], order)

    return vector(vector), generate


def _broadcast(builder: Any, value: Any) -> Any:
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(_WHOLES, [0] * LANES))


@intrinsic  # type: ignore[misc]
def broadcast(typing: Any, value: Any) -> Any:
    """The vector of 16 times a float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0])

    return vector(types.float32), generate


def _binary(instruction: str) -> Any:
    """An intrinsic of two vectors."""

    @intrinsic  # type: ignore[misc]
    def function(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return vector(vector, vector), generate

    return function


_OPERATORS = {operator.add: _binary("fadd"), operator.sub: _binary("fsub"), operator.mul: _binary("fmul")}


def _overload(symbol: Callable[..., Any], function: Any) -> None:
    @overload(symbol)  # type: ignore[misc]
    def implementation(a, b):  # type: ignore[no-untyped-def]
        if a is vector and b is vector:
            return lambda a, b: function(a, b)
        return None


for _symbol, _function in _OPERATORS.items():
    _overload(_symbol, _function)


@intrinsic  # type: ignore[misc]
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Of each three values a · b + c, in one instruction where the machine has it.

    Nothing else is fused. Were a compiler free to choose, as LLVM's `contract` flag lets it, then a kernel inlined
    into two others could round in two ways, and which of them a process runs depends on what it has compiled.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        return builder.call(builder.module.declare_intrinsic(f"llvm.fmuladd.v{LANES}f32", fnty=kind), arguments)

    return vector(vector, vector, vector), generate


def _chosen(comparison: str) -> Any:
    """An intrinsic of two vectors: of each two values the one that compares so with the other."""

    @intrinsic  # type: ignore[misc]
    def function(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b = arguments
            return builder.select(builder.fcmp_ordered(comparison, a, b), a, b)

        return vector(vector, vector), generate

    return function


least = _chosen("<")
"""least(a, b): the smaller of each two values; b where either is NaN."""
greatest = _chosen(">")
"""greatest(a, b): the larger of each two values; b where either is NaN."""


def _picked(comparison: str) -> Any:
    """An intrinsic of four vectors: values of the third where the first two compare so, else of the fourth."""

    @intrinsic  # type: ignore[misc]
    def function(typing: Any, a: Any, b: Any, if_so: Any, if_not: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            a, b, if_so, if_not = arguments
            return builder.select(builder.fcmp_ordered(comparison, a, b), if_so, if_not)

        return vector(vector, vector, vector, vector), generate

    return function


pick_equal = _picked("==")
"""pick_equal(a, b, if_so, if_not): by value, `if_so` where a = b."""
pick_less = _picked("<")
"""pick_less(a, b, if_so, if_not): by value, `if_so` where a < b."""


@intrinsic  # type: ignore[misc]
def absolute(typing: Any, a: Any) -> Any:
    """|a|."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _WHOLES)
        return builder.bitcast(builder.and_(bits, _wholes(0x7FFFFFFF)), _FLOATS)

    return vector(vector), generate


@intrinsic  # type: ignore[misc]
def transpose(
    typing: Any, source: Any, begin: Any, stride: Any, target: Any, begin_there: Any, stride_there: Any
) -> Any:
    """The 16 vectors at begin, begin + stride, ... of `source` are written as columns: value n of each to vector n.

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
