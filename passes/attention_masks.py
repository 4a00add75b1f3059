"""Masks of `recognize_attention`: what of them is known when compiling, and is causal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Node, Result, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.ops.attention import Sizes
from planish.ir.reference import run_node
from planish.passes.attention_operands import producer

#: Added to a score, a number up to this one hides it as putting the number in its place would:
#: float32 has no two neighbours there that a score could tell apart.
HIDDEN = -1e30

#: Nodes that lead from constants to a mask at most, and bytes of what they compute.
_LONGEST = 32
_LARGEST = 64 * 1024 * 1024


def diagonal_of(mask: Value, sizes: Sizes) -> int | None:
    """c where row m of the mask is 0 up to key m + c and hides what follows; else None."""
    if mask.type.shape != (1, 1, sizes.queries, sizes.keys):
        return None
    known = _known(mask)
    if known is None:
        return None
    data = known[0, 0]
    diagonal = int((data[0] == 0).sum()) - 1
    seen = np.tri(sizes.queries, sizes.keys, diagonal, dtype=bool)
    triangular = diagonal >= 0 and not seen.all()
    return (
        diagonal
        if triangular and ((data == 0) == seen).all() and (data[~seen] <= HIDDEN).all()
        else None
    )


def apart(mask: Value) -> list[Value]:
    """where(a and b, 0, -inf) as the masks of the condition's known part and of the rest.

    Only with -inf, which added to itself is the same.
    """
    shape = mask.type.shape
    while isinstance(mask, Result) and mask.node.op == "reshape":
        mask = mask.node.inputs[0]
    select = producer(mask, "where")
    if select is None or mask.type.rank > len(shape):
        return [_of_shape(mask, shape)]
    condition, zero, hidden = select.inputs
    terms = _conjunction(condition)
    known = [term for term in terms if _known(term) is not None]
    rest = [term for term in terms if term not in known]
    if not (known and rest and _is_all(zero, 0.0) and _is_all(hidden, -math.inf)):
        return [_of_shape(mask, shape)]
    return [_selected(group, zero, hidden, len(shape)) for group in (known, rest)]


def _of_shape(mask: Value, shape: tuple[object, ...]) -> Value:
    return mask if mask.type.shape == shape else emit("reshape", mask, shape=shape)


def _selected(terms: Sequence[Value], zero: Value, hidden: Value, rank: int) -> Value:
    condition = terms[0]
    for term in terms[1:]:
        condition = emit("and", condition, term)
    made = emit("where", condition, zero, hidden)
    return _of_shape(made, (1,) * (rank - made.type.rank) + made.type.shape)


def _conjunction(condition: Value) -> list[Value]:
    """The terms of a condition that all must hold."""
    terms: list[Value] = []
    stack = [condition]
    while stack:
        found = stack.pop()
        node = producer(found, "and")
        if node is None or len(terms) + len(stack) > _LONGEST:
            terms.append(found)
        else:
            stack += reversed(node.inputs)
    return terms


def _is_all(found: Value, number: float) -> bool:
    return isinstance(found, Constant) and found.data.size == 1 and found.data.item() == number


def _known(root: Value) -> np.ndarray | None:
    """The elements of a value that a few nodes compute from constants; else None."""
    arrays: dict[Value, np.ndarray] = {}
    nodes: set[Node] = set()
    stack = [root]
    while stack:
        found = stack[-1]
        if found in arrays:
            stack.pop()
        elif isinstance(found, Constant):
            arrays[found] = np.asarray(found.data)
        elif not isinstance(found, Result) or not _is_small(found.node, nodes):
            return None
        else:
            node = found.node
            missing = [value for value in node.inputs if value not in arrays]
            stack += missing
            if not missing:
                arrays.update(zip(node.outputs, run_node(node, [arrays[v] for v in node.inputs])))
    return arrays[root]


def _is_small(node: Node, nodes: set[Node]) -> bool:
    """True if the node, entered among those met so far, may be computed."""
    nodes.add(node)
    return (
        len(nodes) <= _LONGEST
        and op_def(node.op).kind is not OpKind.REGION
        and all(value.type.is_static and value.type.nbytes <= _LARGEST for value in node.outputs)
    )
