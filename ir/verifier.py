"""Checking the rules of the IR on a whole graph."""

from __future__ import annotations

from planish.ir.builder import make_node
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Constant, Graph, Input, Node, Result, Value
from planish.ir.text import all_graphs
from planish.ir.types import DType, TensorType


def verify(graph: Graph) -> None:
    """Raise InvalidGraph, naming graph and node, where a rule of the IR is broken.

    The rules: ops, attributes and the number of inputs fit the op table; output types are what
    inference gives; a graph reads no Input but its own; a constant's data is read-only and has
    the constant's type; a kernel's body has the types of the kernel's inputs and outputs. Holds
    for regions at any depth.
    """
    for part in all_graphs(graph):
        _check_boundary(part)
        checked: set[Constant] = set()
        inputs = frozenset(part.inputs)
        for node in part.nodes:
            where = f"graph '{part.name}', {node.where()}"
            for number, value in enumerate(node.inputs):
                _check_value(value, f"{where}, input {number}", inputs, checked)
            _check_node(node, where)


def _check_boundary(graph: Graph) -> None:
    where = f"graph '{graph.name}'"
    if len(set(graph.inputs)) != len(graph.inputs):
        raise InvalidGraph(f"{where} has the same Input twice")
    checked: set[Constant] = set()
    for value, name in zip(graph.outputs, graph.output_names):
        _check_value(value, f"{where}, output '{name}'", frozenset(graph.inputs), checked)


def _check_value(
    value: Value, where: str, inputs: frozenset[Input], checked: set[Constant]
) -> None:
    if isinstance(value, Input):
        if value not in inputs:
            raise InvalidGraph(f"{where} reads the Input '{value.name}' of another graph")
    elif isinstance(value, Constant):
        if value not in checked:
            checked.add(value)
            _check_constant(value, where)
    elif not isinstance(value, Result):
        raise InvalidGraph(f"{where} is a {type(value).__name__}: no Input, Constant or Result")
    elif value.index >= len(value.node.outputs) or value.node.outputs[value.index] is not value:
        raise InvalidGraph(f"{where} is no output of the node it names, {value.node.where()}")


def _check_constant(value: Constant, where: str) -> None:
    data = value.data
    label = f"the constant '{value.name}'" if value.name else "a constant"
    dtype = DType.of(data.dtype)
    if dtype is not value.type.dtype or tuple(data.shape) != value.type.shape:
        found = f"{dtype.value}{list(data.shape)}"
        raise InvalidGraph(f"{where}: {label} is {value.type}, but its data is {found}")
    if data.flags.writeable:
        raise InvalidGraph(f"{where}: the data of {label} is writeable; use graph.constant()")


def _check_node(node: Node, where: str) -> None:
    try:
        again = make_node(node.op, node.inputs, node.attrs, node.regions, node.provenance)
    except InvalidGraph as error:
        raise InvalidGraph(f"{where}: {error}") from None
    missing = sorted(set(again.attrs) - set(node.attrs))
    if missing:
        raise InvalidGraph(f"{where} lacks the attribute {', '.join(missing)}")
    stated = [result.type for result in node.outputs]
    inferred = [result.type for result in again.outputs]
    if stated != inferred:
        raise InvalidGraph(f"{where} says it gives {_show(stated)}; inferred is {_show(inferred)}")


def _show(types: list[TensorType]) -> str:
    return f"({', '.join(map(str, types))})"
