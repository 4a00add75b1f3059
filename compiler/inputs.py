"""Random inputs that a model accepts: indices in range, masks of 0 and 1, the rest normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planish.ir.graph import Graph, Node, Value

#: Ops that hand an index on unchanged, or pick among indices: the inputs that carry one.
_CARRIES_INDEX: dict[str, slice] = {
    "cast": slice(0, 1),
    "reshape": slice(0, 1),
    "transpose": slice(0, 1),
    "broadcast_to": slice(0, 1),
    "slice": slice(0, 1),
    "pad": slice(0, 1),
    "concat": slice(0, None),
    "where": slice(1, 3),
    "minimum": slice(0, 2),
    "maximum": slice(0, 2),
    "gather": slice(0, 1),
}


def index_bounds(graph: Graph) -> dict[str, int]:
    """For each input that indexes a tensor, how many places there are to point to.

    Follows the input through ops that hand an index on; the least extent counts where it indexes
    several tensors. Inputs that index nothing are not in the result.
    """
    users = graph.users()
    bounds: dict[str, int] = {}
    for source in graph.inputs:
        extents: list[int] = []
        seen: set[Value] = {source}
        open_values: list[Value] = [source]
        while open_values:
            for node, position in users[open_values.pop()]:
                if node is None:
                    continue
                extents += _indexed_extents(node, position)
                if position in range(len(node.inputs))[_CARRIES_INDEX.get(node.op, slice(0, 0))]:
                    fresh = [result for result in node.outputs if result not in seen]
                    seen.update(fresh)
                    open_values += fresh
        if extents:
            bounds[source.name] = min(extents)
    return bounds


def _indexed_extents(node: Node, position: int) -> list[int]:
    """Extents of the axes that operand `position` of the node points into; none for most nodes."""
    if position != 1:
        return []
    shape = node.inputs[0].type.static_shape
    if node.op in ("gather", "gather_elements", "scatter_elements"):
        return [shape[node.attrs["axis"]]]
    if node.op in ("gather_nd", "scatter_nd"):
        first = node.attrs.get("batch_dims", 0)
        return list(shape[first : first + node.inputs[1].type.static_shape[-1]])
    return []


def random_inputs(
    inputs: Sequence[tuple[str, str, Sequence[int]]],
    bounds: Mapping[str, int],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Arrays for `inputs`, which are (name, numpy dtype name, shape); the same for the same seed.

    Inputs in `bounds` are whole numbers below their bound. Otherwise floats are standard normal,
    bytes of their full range (images, quantised tensors), bools and wider integers 0 or 1 (masks,
    token types, lengths).
    """
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(_draw(rng, np.dtype(dtype), tuple(shape), bounds.get(name)))
        for name, dtype, shape in inputs
    }


def _draw(
    rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...], bound: int | None
) -> np.ndarray:
    if bound is not None:
        return rng.integers(0, bound, shape).astype(dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)
