"""Evaluate at compile time what does not depend on an input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Constant, Graph, Node, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.reference import run_node
from planish.ir.target import Target

#: Bytes of a result that always may be folded: such constants do not weigh in an artefact.
SMALL = 64 * 1024
#: A result may be so many times as large as the constants that it is computed from, …
GROWTH = 16
#: … and, if it is larger than they are, at most so many bytes.
LARGEST = 64 * 1024 * 1024


def fold_constants(graph: Graph, target: Target) -> Graph:
    """Replace nodes whose inputs are all constants by their value.

        @0: int8[2] = [1, 2];  @1: float32[] = 0.5        @0: float32[2] = [0.5, 1.0]
        %1: float32[2] = cast(@0, to=float32)       →     %3 = add(%0, @0)
        %2: float32[2] = mul(%1, @1)
        %3: float32[2] = add(%0, %2)

    A result that would be much larger than its inputs stays an operation (`broadcast_to` of a
    scalar): see SMALL, GROWTH and LARGEST. Nodes that hold regions stay, and those with an index
    out of range, which their kernels hold inside as that of an input.
    """
    return graph.rebuild(_fold)


def _fold(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    data = [value.data for value in inputs if isinstance(value, Constant)]
    if len(data) < len(inputs) or not inputs:
        return None
    if op_def(node.op).kind is OpKind.REGION or not _may_grow_to(node, sum(d.nbytes for d in data)):
        return None
    try:
        results = run_node(node, data)
    except InvalidGraph:
        return None
    # Row-major, for so it goes into the artefact; a reference may give a strided view.
    folded = [constant(np.asarray(d, order="C"), r.name) for d, r in zip(results, node.outputs)]
    for value, result in zip(folded, node.outputs):
        if value.type != result.type:
            raise InvalidGraph(
                f"the reference of {node.where()} gives {value.type}, inference {result.type}"
            )
    return folded


def _may_grow_to(node: Node, given: int) -> bool:
    if not all(result.type.is_static for result in node.outputs):
        return False
    size = sum(result.type.nbytes for result in node.outputs)
    return size <= max(SMALL, given) or size <= min(GROWTH * given, LARGEST)
