"""A stable name for what a graph computes; names and provenance are no part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from planish.ir.graph import Constant, Graph, Node, Value
from planish.ir.literals import data_digest
from planish.ir.text import format_attr, format_type
from planish.ir.types import DType


def digest(graph: Graph) -> str:
    """SHA-256 (hex) over structure, attributes, types and the bytes of constants.

    Equal for graphs that differ only in names, provenance, the names of kernels, or in whether
    equal constants are one object.
    """
    total = hashlib.sha256()
    for line in canonical_lines(graph):
        total.update(line.encode())
        total.update(b"\n")
    return total.hexdigest()


def canonical_lines(graph: Graph) -> Iterator[str]:
    """One line a graph, node and output list, the same for structurally equal graphs.

    Values are numbered in order, constants are their digest, and regions are numbered in the
    order in which they are met and follow the graph that holds them.
    """
    regions = [graph]
    hashes: dict[Constant, str] = {}
    for number, region in enumerate(regions):  # grows while it is walked
        names: dict[Value, str] = {v: f"%{i}" for i, v in enumerate(region.inputs)}
        yield f"graph {number}({', '.join(format_type(v.type) for v in region.inputs)})"
        for node in region.nodes:
            yield _node_line(node, names, hashes, len(regions))
            regions.extend(node.regions)
        yield f"return {', '.join(_reference(v, names, hashes) for v in region.outputs)}"


def _node_line(
    node: Node, names: dict[Value, str], hashes: dict[Constant, str], next_region: int
) -> str:
    inputs = [_reference(value, names, hashes) for value in node.inputs]
    attrs = [
        f"{key}={format_attr(value)}"
        for key, value in node.attrs.items()
        if (node.op, key) != ("kernel", "name")
    ]
    regions = [f"graph {next_region + i}" for i in range(len(node.regions))]
    for result in node.outputs:
        names[result] = f"%{len(names)}"
    types = ", ".join(format_type(result.type) for result in node.outputs)
    return f"{types} = {node.op}({', '.join(inputs + attrs + regions)})"


def _reference(value: Value, names: dict[Value, str], hashes: dict[Constant, str]) -> str:
    if not isinstance(value, Constant):
        # A value of another graph has no number here; the verifier rejects such a graph.
        return names.get(value, "%?")
    if value not in hashes:
        small = value.data.size == 1 and value.type.dtype is not DType.STRING
        hashes[value] = value.data.tobytes().hex() if small else data_digest(value.data)
    return f"{format_type(value.type)} {hashes[value]}"
