"""Work of nodes, those that hold graphs included."""

from __future__ import annotations

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Graph, Node
from planish.ir.op import Cost, OpKind
from planish.ir.ops import op_def


def node_cost(node: Node) -> Cost:
    """Flops and bytes of one call of a node with static types.

    A region op has the flops of its graphs (the larger branch of an if, every iteration of a loop
    or scan), but moves only its own inputs and outputs. InvalidGraph for a symbolic shape, or a
    loop whose trips are unknown.
    """
    inputs = [value.type for value in node.inputs]
    outputs = [value.type for value in node.outputs]
    definition = op_def(node.op)
    if definition.kind is not OpKind.REGION:
        return definition.cost(inputs, outputs, node.attrs)
    flops = _repetitions(node) * max(graph_flops(graph) for graph in node.regions)
    return Cost(flops, sum(type_.nbytes for type_ in (*inputs, *outputs)))


def graph_flops(graph: Graph) -> int:
    """Flops of one evaluation of a graph of static types."""
    return sum(node_cost(node).flops for node in graph.nodes)


def _repetitions(node: Node) -> int:
    if node.op == "loop":
        if not isinstance(node.attrs["trips"], int):
            raise InvalidGraph(f"{node.where()}: the number of trips is not known")
        return int(node.attrs["trips"])
    if node.op == "scan":
        first = node.inputs[node.attrs["carried"]].type.static_shape
        return int(first[node.attrs["input_axes"][0]])
    return 1
