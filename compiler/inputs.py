"""Random inputs that a model accepts: indices in range, masks of 0 and 1, the rest normal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from planish.ir.graph import Constant, Graph, Node, Value
from planish.ir.types import DType

Users = Mapping[Value, Sequence[tuple[Node | None, int]]]

_State = tuple[Value, int, bool]

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


#: Of those, the ops through which every element of the input becomes an index. Others may leave
#: some out, or mend them: what they are given cannot be called wrong.
_KEEPS_INDEX = ("reshape", "transpose", "broadcast_to", "concat")


def index_bounds(graph: Graph) -> dict[str, int]:
    """For each input that indexes a tensor, how many places there are to point to.

    Follows the input through ops that hand an index on and additions of constants; the least
    counts where it indexes several tensors. Inputs that index nothing are not in the result.
    """
    users = graph.users()
    bounds: dict[str, int] = {}
    for source in graph.inputs:
        found = [max(1, extent - added) for extent, added, _ in _uses(source, users)]
        if found:
            bounds[source.name] = min(found)
    return bounds


def index_limits(graph: Graph) -> dict[str, tuple[int, int]]:
    """For each input that is an index as it is, the least value and the end of its range.

    Indices below 0 count from the end. Uses behind ops that pick or mend values are left out.
    """
    users = graph.users()
    limits: dict[str, tuple[int, int]] = {}
    for source in graph.inputs:
        uses = [(extent, added) for extent, added, whole in _uses(source, users) if whole]
        if uses:
            least = max(-extent - added for extent, added in uses)
            limits[source.name] = least, min(extent - added for extent, added in uses)
    return limits


def _uses(source: Value, users: Users) -> Iterator[tuple[int, int, bool]]:
    """Where an input indexes a tensor: the extent, the sum of what was added on the way, and
    whether every element of the input is an index there."""
    first: _State = (source, 0, True)
    seen, waiting = {first}, [first]
    while waiting:
        value, added, whole = waiting.pop()
        for node, position in users[value]:
            if node is None:
                continue
            for extent in _indexed_extents(node, position):
                yield extent, added, whole and _is_uniform(node)
            constant = _added(node, position)
            if constant is not None:
                fresh = [(result, added + constant, whole) for result in node.outputs]
            elif position in range(len(node.inputs))[_CARRIES_INDEX.get(node.op, slice(0, 0))]:
                fresh = [(result, added, whole and _keeps(node)) for result in node.outputs]
            else:
                continue
            fresh = [state for state in fresh if state not in seen]
            seen.update(fresh)
            waiting += fresh


def _keeps(node: Node) -> bool:
    if node.op == "cast":
        to: DType = node.attrs["to"]
        return to in (DType.INT32, DType.INT64, DType.FLOAT32, DType.FLOAT64)
    return node.op in _KEEPS_INDEX


def _is_uniform(node: Node) -> bool:
    """True unless the parts of an index tuple point into axes of different extents."""
    return len(set(_indexed_extents(node, 1))) == 1


def _added(node: Node, position: int) -> int | None:
    """The whole number that a node adds to its operand; None if it does anything else."""
    if node.op not in ("add", "sub") or (node.op == "sub" and position != 0):
        return None
    other = node.inputs[1 - position]
    if not isinstance(other, Constant) or other.type.dtype.is_float or other.data.size == 0:
        return None
    number = int(other.data.flat[0])
    if not (other.data == other.data.flat[0]).all() or abs(number) >= 2**31:
        return None
    return number if node.op == "add" else -number


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
