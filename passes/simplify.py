"""Local identities, applied until none fits."""

from __future__ import annotations

from planish.ir.graph import Graph
from planish.ir.target import Target
from planish.passes import simplify_arithmetic, simplify_movement
from planish.passes.rewrite import rewrite


def simplify(graph: Graph, target: Target) -> Graph:
    """Apply the rules of `simplify_arithmetic` and `simplify_movement`.

        %1 = reshape(%0, shape=[6])
        %2 = reshape(%1, shape=[2, 3])       →       %1 = relu(%0)
        %3 = maximum(%2, 0.0)

    The rules are exact, NaN and infinities included, but for what their comments say; all may
    change the sign of a zero and the payload of a NaN.
    """
    return rewrite(graph, simplify_arithmetic.RULES + simplify_movement.RULES)
