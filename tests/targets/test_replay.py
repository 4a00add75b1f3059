"""A directive that does not fit is an error that names it, the stage and what there is."""

from __future__ import annotations

from typing import Any

import pytest

from planish.ir.builder import emit
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Input, Node
from planish.ir.schedule import Schedule
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from planish.targets.lowering import lower_kernel
from tests.targets.compiled import HOST


def _kernel(*directives: tuple[Any, ...]) -> Node:
    a, b = Input(tensor("float32", (8, 12)), "a"), Input(tensor("float32", (12, 24)), "b")
    product = emit("relu", emit("matmul", a, b, provenance=("MatMul_7",)))
    (kernel,) = fuse(Graph((a, b), (product,)), HOST).nodes
    return with_schedule(kernel, Schedule.of("matmul", [("m", 4), ("chunk", 12)], directives))


CASES: dict[str, tuple[list[tuple[Any, ...]], list[str]]] = {
    "stage": ([("unroll", "exp", "k")], ["unroll(exp, k)", "no stage 'exp'; there are acc, out"]),
    "axis": (
        [("unroll", "acc", "o")],
        ["unroll(acc, o)", "stage 'acc' has no loop 'o'; it has m, m.i, n, k"],
    ),
    "axis that was split": (
        [("split", "acc", "n", 8, "n.o", "n.v"), ("vectorize", "acc", "n")],
        ["vectorize(acc, n)", "it has m, m.i, n.o, n.v, k"],
    ),
    "axes of a fuse": (
        [("fuse", "acc", ("m", "x"), "t")],
        ["fuse(acc, [m, x], t)", "no loop 'x'"],
    ),
    "axis of an unmade init": (
        [("vectorize", "acc.init", "n")],
        ["vectorize(acc.init, n)", "no stage 'acc.init'"],
    ),
    "axis of a decomposition": (
        [("decompose_reduction", "acc", "kk")],
        ["decompose_reduction(acc, kk)", "stage 'acc' has no loop 'kk'"],
    ),
    "loop of the init": (
        [("decompose_reduction", "acc", "n"), ("split", "acc.init", "m", 4, "o", "i")],
        ["split(acc.init, m, 4, o, i)", "stage 'acc.init' has no loop 'm'; it has n"],
    ),
    "consumer": (
        [("compute_at", "acc", "sum", "m")],
        ["compute_at(acc, sum, m)", "no stage 'sum'"],
    ),
    "vector of a sum": ([("vectorize", "acc", "k")], ["vectorize(acc, k)"]),
    "fuse apart": ([("fuse", "acc", ("m", "n"), "t")], ["fuse(acc, [m, n], t)"]),
    "loops that are held": (
        [("compute_at", "acc", "out", "m"), ("fuse", "out", ("m", "m.i"), "t")],
        ["fuse(out, [m, m.i], t)"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_name_directive_and_kernel(case: str) -> None:
    directives, parts = CASES[case]
    with pytest.raises(ScheduleError) as caught:
        lower_kernel(_kernel(*directives))
    for part in ("kernel (from 'MatMul_7'): ", *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loops_of_an_init_are_scheduled_as_others() -> None:
    steps = [
        ("reorder", "acc", ("m", "k", "m.i", "n")),
        ("decompose_reduction", "acc", "k"),
        ("split", "acc.init", "n", 8, "n.o", "n.v"),
        ("fuse", "acc.init", ("m.i", "n.o"), "t"),
        ("vectorize", "acc.init", "n.v"),
    ]
    assert "vectorized" in str(lower_kernel(_kernel(*steps)).func)
