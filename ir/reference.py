"""Computing a graph with numpy: the meaning of the IR, and the oracle of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from planish.ir.dim import Dim, substitute, symbols_of
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attr, Attrs, Constant, Graph, Input, Node, Value
from planish.ir.ops import op_def
from planish.ir.types import DType

Arrays = Sequence[np.ndarray]
Symbols = Mapping[str, int]
RunNode = Callable[[Node, Arrays, Symbols | None], tuple[np.ndarray, ...]]


def evaluate(
    graph: Graph, inputs: Mapping[str, object] | Mapping[Input, object]
) -> dict[str, np.ndarray]:
    """The outputs of `graph` by name, for one array for each input (by name, or by Input).

    Symbolic dimensions take the sizes of the arrays. Values are freed after their last use.
    Outputs may share memory with inputs. InvalidGraph if inputs are missing, unknown or do not
    fit their types.
    """
    named = {key.name if isinstance(key, Input) else key: value for key, value in inputs.items()}
    known = [value.name for value in graph.inputs]
    wrong = sorted(set(known) ^ set(named))
    if wrong:
        raise InvalidGraph(
            f"graph '{graph.name}' takes the inputs ({', '.join(known)}), got ({', '.join(named)})"
        )
    arrays = [np.asarray(named[name]) for name in known]
    symbols = _bind(graph, arrays)
    return dict(zip(graph.output_names, run_graph(graph, arrays, symbols)))


def run_graph(
    graph: Graph, arrays: Arrays, symbols: Symbols | None = None, run: RunNode | None = None
) -> list[np.ndarray]:
    """The outputs of `graph` for the arrays of its inputs in order, which are not checked.

    `run` computes its nodes in place of `run_node`.
    """
    compute = run or run_node
    left = Counter(value for node in graph.nodes for value in node.inputs)
    left.update(graph.outputs)
    held: dict[Value, np.ndarray] = dict(zip(graph.inputs, arrays))
    for node in graph.nodes:
        results = compute(node, [_array(value, held) for value in node.inputs], symbols)
        held.update((v, array) for v, array in zip(node.outputs, results) if left[v])
        for value in node.inputs:
            left[value] -= 1
            if not left[value]:
                held.pop(value, None)
    return [_array(value, held) for value in graph.outputs]


def run_node(node: Node, arrays: Arrays, symbols: Symbols | None = None) -> tuple[np.ndarray, ...]:
    """The outputs of one node; `symbols` are the values of symbols in its attributes."""
    attrs = {name: _resolved(value, symbols or {}) for name, value in node.attrs.items()}
    region = _REGIONS.get(node.op)
    try:
        if region is not None:
            return tuple(region(node.regions, arrays, attrs, symbols or {}))
        return op_def(node.op).reference(arrays, attrs)
    except InvalidGraph as error:
        raise InvalidGraph(f"{node.where()}: {error}") from None


def _array(value: Value, held: Mapping[Value, np.ndarray]) -> np.ndarray:
    return value.data if isinstance(value, Constant) else held[value]


def _bind(graph: Graph, arrays: Arrays) -> dict[str, int]:
    """The symbols' values by the shapes of `arrays`; checks the arrays against the inputs."""
    symbols: dict[str, int] = {}
    for value, array in zip(graph.inputs, arrays):
        found = f"{array.dtype}{list(array.shape)}"
        if value.type.rank != array.ndim or DType.of(array.dtype) is not value.type.dtype:
            raise InvalidGraph(f"input '{value.name}' is {value.type}, got {found}")
        for dim, size in zip(value.type.shape, array.shape):
            if isinstance(dim, Dim) and symbols_of(dim) == (dim,):
                symbols.setdefault(dim.symbols[0], size)
    for value, array in zip(graph.inputs, arrays):
        if [substitute(dim, symbols) for dim in value.type.shape] != list(array.shape):
            where = ", ".join(f"{name} = {size}" for name, size in symbols.items())
            found = f"{array.dtype}{list(array.shape)}" + (f" where {where}" if where else "")
            raise InvalidGraph(f"input '{value.name}' is {value.type}, got {found}")
    return symbols


def _resolved(value: Attr, symbols: Symbols) -> Attr:
    if isinstance(value, Dim):
        return value.substitute(symbols)
    if isinstance(value, tuple):
        return tuple(_resolved(entry, symbols) for entry in value)
    return value


def _run_if(
    regions: Sequence[Graph], arrays: Arrays, attrs: Attrs, symbols: Symbols
) -> list[np.ndarray]:
    condition, *captures = arrays
    return run_graph(regions[0] if condition else regions[1], captures, symbols)


def _run_loop(
    regions: Sequence[Graph], arrays: Arrays, attrs: Attrs, symbols: Symbols
) -> list[np.ndarray]:
    (body,) = regions
    count = 2 + attrs["carried"]
    trips, condition, carried, captures = arrays[0], arrays[1], arrays[2:count], arrays[count:]
    rows: list[list[np.ndarray]] = []
    iteration = 0
    while condition and iteration < trips:
        step = [np.asarray(iteration, np.int64), condition, *carried, *captures]
        condition, *results = run_graph(body, step, symbols)
        carried = results[: attrs["carried"]]
        rows.append(results[attrs["carried"] :])
        iteration += 1
    collected = body.outputs[1 + attrs["carried"] :]
    return [*carried, *_stacked(collected, rows, [0] * len(collected))]


def _run_scan(
    regions: Sequence[Graph], arrays: Arrays, attrs: Attrs, symbols: Symbols
) -> list[np.ndarray]:
    (body,) = regions
    states, axes = attrs["carried"], attrs["input_axes"]
    carried, captures = arrays[:states], arrays[states + len(axes) :]
    sequences = [
        np.moveaxis(array, axis, 0)[:: -1 if backwards else 1]
        for array, axis, backwards in zip(arrays[states:], axes, attrs["input_reverse"])
    ]
    rows: list[list[np.ndarray]] = []
    for slices in zip(*sequences):
        step = [*carried, *map(np.asarray, slices), *captures]
        results = run_graph(body, step, symbols)
        carried = results[:states]
        rows.append(results[states:])
    stacked = _stacked(body.outputs[states:], rows, attrs["output_axes"])
    directions = zip(stacked, attrs["output_axes"], attrs["output_reverse"])
    return [*carried, *(np.flip(y, axis) if back else y for y, axis, back in directions)]


def _stacked(
    values: Sequence[Value], rows: Sequence[Sequence[np.ndarray]], axes: Sequence[int]
) -> list[np.ndarray]:
    """One array for each collected value, its iterations along the axis."""
    if rows:
        return [np.stack(column, axis) for column, axis in zip(zip(*rows), axes)]
    shapes = [(0, *value.type.static_shape) for value in values]
    empty = [np.empty(shape, value.type.dtype.numpy) for shape, value in zip(shapes, values)]
    return [np.moveaxis(array, 0, axis) for array, axis in zip(empty, axes)]


def _run_kernel(
    regions: Sequence[Graph], arrays: Arrays, attrs: Attrs, symbols: Symbols
) -> list[np.ndarray]:
    return run_graph(regions[0], arrays, symbols)


_REGIONS: dict[str, Callable[[Sequence[Graph], Arrays, Attrs, Symbols], list[np.ndarray]]] = {
    "if": _run_if,
    "loop": _run_loop,
    "scan": _run_scan,
    "kernel": _run_kernel,
}
