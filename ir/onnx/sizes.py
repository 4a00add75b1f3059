"""Integer tensors whose contents are known at import, symbolic dimensions included.

Shape → Gather → Concat → Reshape chains compute with sizes. Where those are plain ints they are
ordinary constants; where a dimension is symbolic the value is a `Sizes`: its contents are Dim
expressions, it exists during import only, and ops on it are evaluated here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.dim import Dim, dim_max, dim_min
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs, Value, constant
from planish.ir.types import DType, TensorType


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sizes(Value):
    """A tensor of known integers, at least one of them a Dim; never an input of a node."""

    contents: np.ndarray  # of objects, int | Dim


class Undecided(Exception):
    """The op has no value that holds for all sizes of the symbolic dimensions."""


def sizes_value(contents: np.ndarray, dtype: DType) -> Value:
    """A Constant if all `contents` are ints, else a Sizes."""
    if not any(isinstance(item, Dim) for item in contents.flat):
        return constant(contents.astype(dtype.numpy))
    return Sizes(TensorType(dtype, tuple(contents.shape)), "", contents)


def evaluate(op: str, inputs: Sequence[np.ndarray], attrs: Attrs) -> np.ndarray:
    """The op of the IR on arrays of int | Dim; raises Undecided where Dims do not allow it."""
    rule = _RULES.get(op)
    if rule is None:
        raise Undecided
    found = np.empty((), object)
    result = rule(inputs, attrs)
    if isinstance(result, np.ndarray):
        return result if result.dtype == object else result.astype(object)
    found[()] = result  # object ufuncs unwrap rank 0
    return found


_Rule = Callable[[Sequence[np.ndarray], Attrs], object]


def _each(function: Callable[..., object]) -> _Rule:
    """Element-wise with numpy's broadcasting."""
    ufunc = np.frompyfunc(function, 2, 1)
    return lambda inputs, attrs: ufunc(*inputs)


def _div(a: object, b: object) -> object:
    """ONNX truncates toward zero; `//` floors, which is the same where nothing is negative."""
    for operand in (a, b):
        if isinstance(operand, Dim) and (operand.lo is None or operand.lo < 0):
            raise Undecided
    if isinstance(a, int) and isinstance(b, int):
        return int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)
    if any(isinstance(operand, int) and operand < 0 for operand in (a, b)) or b == 0:
        raise Undecided
    return a // b  # type: ignore[operator]


def _equal(a: object, b: object) -> bool:
    """Decided by a zero difference, or by ranges that do not meet."""
    return _sign(a, b) == 0


def _sign(a: object, b: object) -> int:
    """Sign of a - b where it is the same for all sizes."""
    difference = a - b  # type: ignore[operator]
    if not isinstance(difference, Dim):
        return int(difference > 0) - int(difference < 0)
    if difference.lo is not None and difference.lo > 0:
        return 1
    if difference.hi is not None and difference.hi < 0:
        return -1
    raise Undecided


def _where(inputs: Sequence[np.ndarray], attrs: Attrs) -> object:
    condition, x, y = np.broadcast_arrays(*inputs)
    if any(isinstance(item, Dim) for item in condition.flat):
        raise Undecided
    return np.where(condition.astype(bool), x, y)


def _cast(inputs: Sequence[np.ndarray], attrs: Attrs) -> object:
    """Among wide integers the value stays; a cast to float or bool is not a size any more."""
    if attrs["to"] not in (DType.INT64, DType.INT32, DType.UINT64, DType.UINT32):
        raise Undecided
    return inputs[0]


def _slice(inputs: Sequence[np.ndarray], attrs: Attrs) -> object:
    index = tuple(
        slice(start, None if stop < 0 else stop, step)
        for start, stop, step in zip(attrs["starts"], attrs["stops"], attrs["steps"])
    )
    return inputs[0][index]


def _gather(inputs: Sequence[np.ndarray], attrs: Attrs) -> object:
    data, indices = inputs
    if any(isinstance(item, Dim) for item in indices.flat):
        raise Undecided
    size = data.shape[attrs["axis"]]
    if any(not -size <= index < size for index in indices.flat):
        raise InvalidGraph(f"an index of {indices.tolist()} lies outside {size} elements")
    return np.take(data, indices.astype(np.int64), axis=attrs["axis"])


def _reduce(ufunc: np.ufunc) -> _Rule:
    return lambda inputs, attrs: ufunc.reduce(
        inputs[0], axis=attrs["axes"], keepdims=attrs["keepdims"]
    )


_RULES: dict[str, _Rule] = {
    "add": _each(lambda a, b: a + b),
    "sub": _each(lambda a, b: a - b),
    "mul": _each(lambda a, b: a * b),
    "div": _each(_div),
    "mod": _each(lambda a, b: a % b),
    "maximum": _each(dim_max),
    "minimum": _each(dim_min),
    "equal": _each(_equal),
    "less": _each(lambda a, b: _sign(a, b) < 0),
    "less_equal": _each(lambda a, b: _sign(a, b) <= 0),
    "greater": _each(lambda a, b: _sign(a, b) > 0),
    "greater_equal": _each(lambda a, b: _sign(a, b) >= 0),
    "neg": lambda inputs, attrs: np.negative(inputs[0]),
    "where": _where,
    "cast": _cast,
    "reshape": lambda inputs, attrs: inputs[0].reshape(attrs["shape"]),
    "transpose": lambda inputs, attrs: inputs[0].transpose(attrs["perm"]),
    "broadcast_to": lambda inputs, attrs: np.broadcast_to(inputs[0], attrs["shape"]),
    "concat": lambda inputs, attrs: np.concatenate(inputs, axis=attrs["axis"]),
    "slice": _slice,
    "gather": _gather,
    "reduce_sum": _reduce(np.add),
    "reduce_prod": _reduce(np.multiply),
    "reduce_max": lambda inputs, attrs: _extreme(dim_max, inputs[0], attrs),
    "reduce_min": lambda inputs, attrs: _extreme(dim_min, inputs[0], attrs),
}


def _extreme(pick: Callable[..., object], data: np.ndarray, attrs: Attrs) -> object:
    return np.frompyfunc(pick, 2, 1).reduce(data, axis=attrs["axes"], keepdims=attrs["keepdims"])
