"""Tensors without elements: nothing is read of them, and what they are reduced to is constant."""

from __future__ import annotations

import math

from planish.ir.graph import Graph, Node, Value
from planish.targets.expressions.elementwise import const
from planish.targets.expressions.reduction import JOIN
from planish.targets.expressions.view import Expr, View


def is_empty(value: Value) -> bool:
    """True if the value has no elements."""
    return value.type.elements == 0


def has_empty(graph: Graph) -> bool:
    """True if some value in the graph is empty: schedules do not fit its loops of extent 0."""
    return any(is_empty(value) for value in graph.values())


def nothing(value: Value) -> View:
    """The view of an empty value; what refers to an element of it is never executed."""
    dtype = value.type.dtype.value
    return View(value.type.static_shape, dtype, lambda idx: const(0, dtype))


def of_nothing(node: Node) -> View:
    """A reduction or contraction of no elements: the identity of its sum, product or extremum."""
    dtype = node.output.type.dtype.value
    fill = _identity(node.op, dtype)
    return View(node.output.type.static_shape, dtype, lambda idx: fill)


def _identity(op: str, dtype: str) -> Expr:
    if op == "reduce_mean" and "float" in dtype:
        return const(math.nan, dtype)
    kind = op.removeprefix("reduce_")
    return JOIN[kind if kind in JOIN else "sum"][1](dtype)
