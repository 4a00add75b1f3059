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

    The rules are exact, NaN, infinities and the signs of zeros included, but for what their
    comments say; all may change the payload of a NaN, and the sign of a zero that is the larger
    one of 0 and -0, or a sum of no or one element.
    """
    return rewrite(graph, simplify_arithmetic.RULES + simplify_movement.RULES)
