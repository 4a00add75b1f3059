"""The model computed twice, with what nobody defines decided one way and the other.

ONNX leaves open what a cast of NaN to an integer gives, or a division of an integer by zero, and
onnxruntime's own kernels disagree about NaN in a maximum. Results that depend on such a decision
are no measure of an artefact: they are those in which the two computations differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs, Graph, Node
from planish.ir.ops.precision import widen
from planish.ir.reference import Symbols, run_graph, run_node
from planish.ir.types import DType

Arrays = Sequence[np.ndarray]


def decided(
    graph: Graph, inputs: Mapping[str, np.ndarray], choice: int
) -> dict[str, np.ndarray] | None:
    """The outputs with undefined results decided by `choice`, 0 or 1; None where it cannot be.

    Indices are clamped into their tensors, as artefacts clamp them.
    """
    arrays = [inputs[value.name] for value in graph.inputs]
    try:
        with np.errstate(all="ignore"):
            outputs = run_graph(graph, arrays, run=partial(_run, choice))
    except InvalidGraph:
        return None
    return dict(zip(graph.output_names, outputs))


def _run(
    choice: int, node: Node, arrays: Arrays, symbols: Symbols | None
) -> tuple[np.ndarray, ...]:
    if node.op in _INDEXED:
        arrays = [arrays[0], _INDEXED[node.op](arrays, node.attrs), *arrays[2:]]
    if choice and _ignores_nan(node):
        lowest = not _wants_least(node)
        arrays = [_without_nan(array, lowest) for array in arrays]
    results = run_node(node, arrays, symbols)
    undefined = _UNDEFINED.get(node.op)
    if undefined is not None and results[0].dtype.kind in "iu":
        mask = np.broadcast_to(undefined(arrays, results[0].dtype), results[0].shape)
        if mask.any():
            results = (np.where(mask, results[0].dtype.type(choice), results[0]),)
    return results


def _ignores_nan(node: Node) -> bool:
    """Whether implementations disagree about NaN in the node: it compares."""
    compares = ("relu", "maximum", "minimum", "clip", "arg_max", "arg_min", "top_k")
    extreme = node.attrs.get("kind") in ("max", "min")
    return node.op in compares or node.op in ("reduce_max", "reduce_min") or extreme


def _wants_least(node: Node) -> bool:
    return (
        node.op in ("minimum", "arg_min", "reduce_min")
        or node.attrs.get("kind") == "min"
        or node.attrs.get("largest") is False
    )


def _without_nan(array: np.ndarray, lowest: bool) -> np.ndarray:
    if not DType.of(array.dtype).is_float:
        return array
    other = array.dtype.type(-np.inf if lowest else np.inf)
    return np.where(np.isnan(widen(array)), other, array).astype(array.dtype)


def _cast(arrays: Arrays, to: np.dtype) -> np.ndarray:
    """Numbers that an integer type has not."""
    x = widen(arrays[0])
    if x.dtype.kind != "f":
        return np.asarray(False)
    info = np.iinfo(to)
    whole = np.trunc(x.astype(np.float64))
    return ~((whole >= float(info.min)) & (whole < float(info.max) + 1))


def _divide(arrays: Arrays, to: np.dtype) -> np.ndarray:
    a, b = arrays
    least = np.iinfo(to).min
    return np.asarray((b == 0) | ((a == least) & (b == -1) if least else False))


def _shift(arrays: Arrays, to: np.dtype) -> np.ndarray:
    count = arrays[1].astype(np.int64)
    return np.asarray((count < 0) | (count >= 8 * to.itemsize))


def _power(arrays: Arrays, to: np.dtype) -> np.ndarray:
    return np.asarray(arrays[1] < 0)


_UNDEFINED: dict[str, Callable[[Arrays, np.dtype], np.ndarray]] = {
    "cast": _cast,
    "div": _divide,
    "mod": _divide,
    "shift_left": _shift,
    "shift_right": _shift,
    "pow": _power,
}


def _clamped_axis(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    size = arrays[0].shape[attrs["axis"]]
    return np.clip(arrays[1], -size, size - 1)


def _clamped_tuple(arrays: Arrays, attrs: Attrs) -> np.ndarray:
    data, indices = arrays[:2]
    first = attrs.get("batch_dims", 0)
    sizes = np.array(data.shape[first : first + indices.shape[-1]])
    return np.clip(indices, -sizes, sizes - 1).astype(indices.dtype)


_INDEXED: dict[str, Callable[[Arrays, Attrs], np.ndarray]] = {
    "gather": _clamped_axis,
    "gather_elements": _clamped_axis,
    "gather_nd": _clamped_tuple,
}
