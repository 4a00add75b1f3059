"""Rotary embeddings as compiled, and what of them becomes one kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from tests.targets.compiled import HOST, Cases

FORMS = {
    "whole": ((3, 5, 64), (5, 64), 64),
    "half_tables": ((2, 3, 5, 32), (2, 1, 5, 16), 32),
    "part": ((3, 5, 24), (3, 1, 16), 16),
    "odd_part": ((7, 9), (1, 3), 6),
    "one_pair": ((7, 2), (7, 1), 2),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rotary_embedding(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    for name, (shape, table, width) in FORMS.items():
        x, cos, sin = (cases.input(*s, dtype=dtype) for s in (shape, table, table))
        for interleaved in (False, True):
            y = emit("rotary_embedding", x, cos, sin, width=width, interleaved=interleaved)
            cases.add(f"{name}_{interleaved}", y)
    cases.check(tmp_path)


def test_what_surrounds_an_embedding_joins_its_kernel(tmp_path: Path) -> None:
    cases = Cases()
    x, cos, sin = cases.input(2, 5, 12, 16), cases.input(5, 8), cases.input(5, 8)
    part = emit("slice", x, starts=(0, 0, 4, 0), stops=(2, 5, 8, 16), steps=(1, 1, 1, 1))
    heads = emit("transpose", part, perm=(0, 2, 1, 3))
    turned = emit("rotary_embedding", heads, cos, sin, width=16)
    cases.add("y", emit("tanh", turned))
    assert [node.op for node in fuse(cases.graph(), HOST).nodes] == ["kernel"]
    cases.check(tmp_path)


def test_a_product_is_not_computed_twice_for_both_elements_of_a_pair() -> None:
    x, w = Input(tensor("float32", (5, 32)), "x"), Input(tensor("float32", (32, 64)), "w")
    cos, sin = (Input(tensor("float32", (5, 32)), name) for name in ("cos", "sin"))
    turned = emit("rotary_embedding", emit("matmul", x, w), cos, sin, width=64)
    graph = fuse(Graph((x, w, cos, sin), (turned,)), HOST)
    assert [node.attrs["name"] for node in graph.nodes] == ["matmul", "rotary_embedding"]
