"""Compute once what is computed twice."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from planish.ir.graph import Constant, Graph, Node, Value
from planish.ir.target import Target
from planish.ir.text import format_attr
from planish.ir.types import DType

#: Ops whose two inputs may be exchanged without changing a bit of the result.
COMMUTATIVE = frozenset(
    [
        "add",
        "mul",
        "maximum",
        "minimum",
        "equal",
        "and",
        "or",
        "xor",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
    ]
)


def eliminate_common_subexpressions(graph: Graph, target: Target) -> Graph:
    """Merge nodes with the same op, inputs and attributes, and constants with the same bytes.

        %1 = exp(%0)                    %1 = exp(%0)
        %2 = exp(%0)             →      %2 = mul(%1, %1)
        %3 = mul(%1, %2)

    The node that stays carries the provenance of all that it stands for. Nodes that hold regions
    are left alone.
    """
    same = _equal_constants(graph)
    leaders = _leaders(graph, same)
    provenance: dict[Node, list[str]] = {}
    for node, leader in leaders.items():
        provenance.setdefault(leader, []).extend(node.provenance)
    kept: dict[Node, Node] = {}

    def merge(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        leader = leaders[node]
        if leader is node:
            inputs = tuple(same.get(value, value) for value in inputs)
            merged = tuple(dict.fromkeys(provenance[node]))
            kept[node] = node
            if inputs != node.inputs or merged != node.provenance:
                types = [result.type for result in node.outputs]
                names = [result.name for result in node.outputs]
                kept[node] = Node(node.op, inputs, types, node.attrs, node.regions, merged, names)
        return kept[leader].outputs

    return graph.rebuild(merge)


def _leaders(graph: Graph, same: dict[Value, Value]) -> dict[Node, Node]:
    """For each node the first node that computes the same."""
    leaders: dict[Node, Node] = {}
    first: dict[Hashable, Node] = {}
    numbers: dict[Value, int] = {}
    for node in graph.nodes:
        reads = [numbers.setdefault(same.get(v, v), len(numbers)) for v in node.inputs]
        if node.op in COMMUTATIVE:
            reads.sort()
        attrs = tuple((name, format_attr(value)) for name, value in node.attrs.items())
        key = node if node.regions else (node.op, tuple(reads), attrs)
        leader = leaders[node] = first.setdefault(key, node)
        for result, original in zip(node.outputs, leader.outputs):
            numbers[result] = numbers.setdefault(original, len(numbers))
    return leaders


def _equal_constants(graph: Graph) -> dict[Value, Value]:
    """For each constant that nodes read the first with the same type and bytes."""
    same: dict[Value, Value] = {}
    buckets: dict[Hashable, list[Constant]] = {}
    for value in (v for node in graph.nodes for v in node.inputs):
        if not isinstance(value, Constant) or value in same:
            continue
        bucket = buckets.setdefault((value.type, _sample(value.data)), [])
        equal = (other for other in bucket if _same_bytes(value.data, other.data))
        same[value] = next(equal, value)
        if same[value] is value:
            bucket.append(value)
    return same


def _sample(data: np.ndarray) -> Hashable:
    """Some of the elements, so that most constants need no comparison of all."""
    flat = data.reshape(-1)
    some = flat[:: max(1, flat.size // 64)]
    return tuple(some) if DType.of(data.dtype) is DType.STRING else some.tobytes()


def _same_bytes(a: np.ndarray, b: np.ndarray) -> bool:
    if a is b or DType.of(a.dtype) is DType.STRING:
        return bool(np.array_equal(a, b))
    left, right = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return bool(np.array_equal(left, right))
