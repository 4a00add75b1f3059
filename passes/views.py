"""Which nodes need no kernel, since their result is a part of another tensor's memory.

A reshape renames its input. A slice of the outermost dimension that is not 1 is a range of its
input. A concat along such a dimension is the tensor that its operands are written into.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from planish.ir.graph import Graph, Node, Result, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def

#: Bytes that the begin of every tensor is a multiple of; kernels load whole vectors there.
ALIGNMENT = 64

#: Ops that may stand outside kernels.
VIEWS = frozenset(("reshape", "slice", "concat"))


@dataclass(frozen=True, slots=True)
class Place:
    """A range of the memory of `owner`, beginning `offset` bytes in."""

    owner: Value
    offset: int


class Places:
    """Where values lie, given the nodes of a graph that are views."""

    def __init__(self, views: Iterable[Node]) -> None:
        self.views: dict[Node, int] = {}
        self.parents: dict[Value, Place] = {}
        for node in views:
            self.add(node)

    def add(self, node: Node) -> None:
        """Take `node` as a view; operands of a concat are from now on parts of its result."""
        if node.op == "concat":
            for operand, begin in zip(node.inputs, _begins(node)):
                self.parents[self.root(operand).owner] = Place(node.output, begin)
            self.views[node] = 0
        else:
            self.views[node] = _begin(node) if node.op == "slice" else 0

    def root(self, value: Value) -> Place:
        """The value that `value` is a range of, through reshapes and slices."""
        offset = 0
        while isinstance(value, Result) and value.node in self.views and value.node.op != "concat":
            offset += self.views[value.node]
            value = value.node.inputs[0]
        return Place(value, offset)

    def of(self, value: Value) -> Place:
        """The memory of a value, through all views."""
        place = self.root(value)
        while place.owner in self.parents:
            parent = self.parents[place.owner]
            above = self.root(parent.owner)
            place = Place(above.owner, place.offset + parent.offset + above.offset)
        return place


def places_of(graph: Graph) -> Places:
    """The places in a graph of kernels, where all that is not a kernel is a view."""
    views = [node for node in graph.nodes if node.op in VIEWS]
    # Operands of a concat are looked for through reshapes and slices, which must be known before.
    return Places(sorted(views, key=lambda n: (n.op == "concat", -n.output.type.nbytes)))


def choose_views(graph: Graph) -> Places:
    """The nodes of an unfused graph that are better views than part of a kernel."""
    places = Places(node for node in graph.nodes if node.op == "reshape")
    users = graph.users()
    outputs = {places.root(value).owner for value in graph.outputs}
    for node in graph.nodes:
        if node.op != "slice" or not _is_range(node) or node.output in outputs:
            continue
        if places.root(node.inputs[0]).owner in outputs:
            continue  # the caller's buffers have no parts
        if _is_slice_worth(node, places, users) and not _reaches(node.output, outputs, places):
            places.add(node)
    concats = [node for node in graph.nodes if node.op == "concat" and _is_outermost(node)]
    for node in sorted(concats, key=lambda node: -node.output.type.nbytes):
        if node.output not in outputs and _is_joinable(node, places, outputs):
            places.add(node)
    return places


def _reaches(value: Value, outputs: set[Value], places: Places) -> bool:
    return value in outputs or places.root(value).owner in outputs


def _is_joinable(node: Node, places: Places, outputs: set[Value]) -> bool:
    """True if all operands are whole tensors that kernels write, and mostly dear ones."""
    owners: list[Value] = []
    computed = 0
    for operand, begin in zip(node.inputs, _begins(node)):
        place = places.root(operand)
        owner = place.owner
        if not isinstance(owner, Result) or place.offset or begin % ALIGNMENT:
            return False
        if owner in places.parents or owner in outputs or owner in owners:
            return False
        if owner.type.nbytes != operand.type.nbytes:
            return False
        owners.append(owner)
        computed += operand.type.nbytes if _is_dear(owner.node) else 0
    return 2 * computed >= node.output.type.nbytes


def _is_dear(node: Node) -> bool:
    """True if the node, or what it is the epilogue of, is more than moving elements."""
    shape = node.outputs[0].type.shape
    seen = {node}
    stack = [node]
    while stack and len(seen) < 32:
        current = stack.pop()
        kind = op_def(current.op).kind
        if current.op == "concat" or kind not in (OpKind.ELEMENTWISE, OpKind.MOVEMENT):
            return True
        if kind is OpKind.MOVEMENT:
            continue
        for value in current.inputs:
            if isinstance(value, Result) and value.type.shape == shape and value.node not in seen:
                seen.add(value.node)
                stack.append(value.node)
    return False


def _is_slice_worth(
    node: Node, places: Places, users: dict[Value, list[tuple[Node | None, int]]]
) -> bool:
    """True if the sliced tensor is in memory anyway."""
    owner = places.root(node.inputs[0]).owner
    if not isinstance(owner, Result):
        return False
    return len(users[node.inputs[0]]) > 1 or _is_dear(owner.node)


def _is_outermost(node: Node) -> bool:
    shape = node.output.type.static_shape
    return math.prod(shape[: node.attrs["axis"] % len(shape)]) == 1


def _is_range(node: Node) -> bool:
    """True if the slice is one aligned range of memory."""
    source, shape = node.inputs[0].type.static_shape, node.output.type.static_shape
    cut = [d for d, (n, m) in enumerate(zip(source, shape)) if n != m]
    if any(step != 1 for step in node.attrs["steps"]) or 0 in shape:
        return False
    return all(math.prod(source[:d]) == 1 for d in cut) and _begin(node) % ALIGNMENT == 0


def _begin(node: Node) -> int:
    """Byte offset of the first element of a slice."""
    source = node.inputs[0].type.static_shape
    flat = 0
    for start, extent in zip(node.attrs["starts"], source):
        flat = flat * extent + start
    return flat * node.output.type.dtype.itemsize


def _begins(node: Node) -> list[int]:
    """Byte offset of each operand of a concat."""
    begins, end = [], 0
    for operand in node.inputs:
        begins.append(end)
        end += operand.type.nbytes
    return begins
