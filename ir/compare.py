"""Structural equality of graphs."""

from __future__ import annotations

from itertools import zip_longest

from planish.ir.digest import canonical_lines
from planish.ir.graph import Graph


def structurally_equal(a: Graph, b: Graph) -> bool:
    """True if the graphs differ at most in names, provenance and the sharing of constants."""
    return a is b or difference(a, b) is None


def difference(a: Graph, b: Graph) -> str | None:
    """The first canonical line in which two graphs differ, for error messages; None if equal."""
    for number, (left, right) in enumerate(zip_longest(canonical_lines(a), canonical_lines(b))):
        if left != right:
            return f"line {number}: {left or 'nothing'}  against  {right or 'nothing'}"
    return None
