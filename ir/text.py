"""The text form of a graph: deterministic, one line a node, regions nested and indented.

    dim batch 1..64
    graph main(%0: float32[batch, 3, 8, 8] "input") -> (%2 as "logits") {
      @0: float32[8, 3, 1, 1] "weight" = data("sha256:9f86d081884c7d65")
      %1: float32[batch, 8, 8, 8] = conv(%0, @0, groups=1, …) from "Conv_0"
      @1: float32[] = 0.0
      %2: float32[batch, 8, 8, 8] = kernel(%1, @1, name="max", schedule=none) from "Relu_1" {
        graph body(%0: …) -> (%2 as "output0") {
          …
        }
      }
    }

`planish.ir.parse` reads it back. Small constants are spelled exactly; the data of large ones is
found by its digest in the mapping given to `parse` (see `constants_of`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count

import numpy as np

from planish.ir.dim import Dim, bounds, symbols_of
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attr, Constant, Graph, Node, Value
from planish.ir.literals import data_digest, format_element
from planish.ir.schedule import Schedule
from planish.ir.types import DType, TensorType

#: Constants of at most so many elements are spelled out.
INLINE_ELEMENTS = 16

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def print_graph(graph: Graph) -> str:
    """The text of a graph; the same text for structurally equal graphs with equal names.

    `parse(print_graph(g), constants_of(g))` is structurally `g`, names and provenance included.
    """
    lines = list(_dim_lines(graph))
    stack = [_graph_lines(graph)]
    while stack:
        piece = next(stack[-1], None)
        if piece is None:
            stack.pop()
        elif isinstance(piece, Graph):
            stack.append(_graph_lines(piece))
        else:
            lines.append("    " * (len(stack) - 1) + piece)
    return "\n".join(lines) + "\n"


def constants_of(graph: Graph) -> dict[str, np.ndarray]:
    """The data that `print_graph` leaves out, by the key it prints in its place."""
    found: dict[str, np.ndarray] = {}
    for region in all_graphs(graph):
        for value in region.values():
            if isinstance(value, Constant) and value.data.size > INLINE_ELEMENTS:
                found[_key(value)] = value.data
    return found


def all_graphs(graph: Graph) -> Iterator[Graph]:
    """The graph and the regions in it at any depth, each object once, holders first."""
    found = {graph: None}
    queue = [graph]
    for holder in queue:  # grows while it is walked
        yield holder
        for node in holder.nodes:
            queue.extend(region for region in node.regions if region not in found)
            found.update(dict.fromkeys(node.regions))


def format_type(type_: TensorType) -> str:
    """`float32[batch, 3]`."""
    return str(type_)


def format_attr(value: Attr) -> str:
    """An attribute value, different for different values (1, 1.0 and true differ)."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.value
    if isinstance(value, Dim):
        return f"dim({value})"
    if isinstance(value, Schedule):
        return f"schedule {value.to_json()}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_attr, value))}]"
    raise InvalidGraph(f"an attribute holds {value!r}, a {type(value).__name__}, which has no text")


def format_name(name: str) -> str:
    """A graph's or attribute's name: bare if it is an identifier, else in quotes."""
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name)


def _dim_lines(graph: Graph) -> Iterator[str]:
    """One line for each symbol with its range, sorted."""
    dims: dict[Dim, None] = {}
    for region in all_graphs(graph):
        for value in region.values():
            dims.update((dim, None) for dim in value.type.shape if isinstance(dim, Dim))
        for node in region.nodes:
            dims.update((dim, None) for dim in _attr_dims(node))
    ranges = {f"{symbol} {_range(symbol)}" for dim in dims for symbol in symbols_of(dim)}
    return (f"dim {line}" for line in sorted(ranges))


def _attr_dims(node: Node) -> Iterator[Dim]:
    stack = list(node.attrs.values())
    while stack:
        value = stack.pop()
        if isinstance(value, Dim):
            yield value
        elif isinstance(value, tuple):
            stack.extend(value)


def _range(symbol: Dim) -> str:
    low, high = bounds(symbol)
    return f"{low}..{'' if high is None else high}"


def _graph_lines(graph: Graph) -> Iterator[str | Graph]:
    """Lines of one graph; a Graph stands where a region's lines belong."""
    names: dict[Value, str] = {value: f"%{i}" for i, value in enumerate(graph.inputs)}
    parameters = ", ".join(_declared(value, names) for value in graph.inputs)
    body: list[str | Graph] = []
    numbers, constant_numbers = count(len(graph.inputs)), count()
    for values, node in [*((n.inputs, n) for n in graph.nodes), (graph.outputs, None)]:
        for value in values:
            if isinstance(value, Constant) and value not in names:
                names[value] = f"@{next(constant_numbers)}"
                body.append(f"  {_declared(value, names)} = {_constant_text(value)}")
        if node is not None:
            body.extend(_node_lines(node, names, numbers))
    outputs = zip(graph.outputs, graph.output_names)
    returned = ", ".join(f"{_use(value, names)} as {json.dumps(name)}" for value, name in outputs)
    yield f"graph {format_name(graph.name)}({parameters}) -> ({returned}) {{"
    yield from body
    yield "}"


def _node_lines(
    node: Node, names: dict[Value, str], numbers: Iterator[int]
) -> Iterator[str | Graph]:
    arguments = [_use(value, names) for value in node.inputs]
    for result in node.outputs:
        names[result] = f"%{next(numbers)}"
    arguments += [f"{format_name(key)}={format_attr(value)}" for key, value in node.attrs.items()]
    results = ", ".join(_declared(result, names) for result in node.outputs)
    line = f"  {results} = {node.op}({', '.join(arguments)})"
    if node.provenance:
        line += f" from {', '.join(map(json.dumps, node.provenance))}"
    if not node.regions:
        yield line
        return
    yield line + " {"
    yield from node.regions
    yield "  }"


def _declared(value: Value, names: dict[Value, str]) -> str:
    label = f" {json.dumps(value.name)}" if value.name else ""
    return f"{names[value]}: {format_type(value.type)}{label}"


def _use(value: Value, names: dict[Value, str]) -> str:
    """The value's number; a value of another graph, which the verifier rejects, as `%foreign`."""
    return names.get(value, "%foreign")


def _constant_text(value: Constant) -> str:
    if value.data.size > INLINE_ELEMENTS:
        return f"data({json.dumps(_key(value))})"
    elements = [format_element(e, value.type.dtype) for e in value.data.reshape(-1)]
    return elements[0] if value.data.ndim == 0 else f"[{', '.join(elements)}]"


def _key(value: Constant) -> str:
    return f"sha256:{data_digest(value.data)[:16]}"
