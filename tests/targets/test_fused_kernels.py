"""Kernels whose anchors compute what they read: sums, rows and windows of expressions."""

from __future__ import annotations

from pathlib import Path

from planish.autotune.spaces import space_of
from planish.ir.builder import emit
from planish.ir.graph import Value
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from tests.targets.anchor_kernels import joined
from tests.targets.compiled import HOST, Cases, check_against_reference

_WINDOW = {"before": (0, 0, 1, 1), "after": (0, 0, 1, 1), "dilations": (1, 1, 1, 1)}


def _pool(x: Value, kind: str) -> Value:
    windows = {"window": (1, 1, 3, 3), "strides": (1, 1, 2, 2)} | _WINDOW
    return emit("pool", x, kind=kind, **windows)


def test_anchors_compute_what_they_read(tmp_path: Path) -> None:
    cases = Cases()
    for dtype in ("float32", "float64", "float16"):
        for op in ("exp", "erf", "tanh", "gelu", "sigmoid"):
            attrs = {"approximate": "none"} if op == "gelu" else {}
            value = emit(op, cases.input(3, 70, dtype=dtype), **attrs)
            over = (0,) if op == "erf" else (1,)
            total = emit("reduce_sum", value, axes=over, keepdims=False)
            cases.add(f"{op}_{dtype}", total)
        relu = emit("relu", cases.input(1, 2, 9, 16, dtype=dtype))
        cases.add(f"max_{dtype}", _pool(relu, "max"))
        negative = emit("neg", cases.input(1, 2, 9, 16, dtype=dtype))
        cases.add(f"average_{dtype}", _pool(negative, "average"))
    cases.add("int32", _pool(emit("abs", cases.input(1, 2, 9, 16, dtype="int32")), "max"))
    row = emit("exp", cases.input(4, 1))
    cases.add("row", emit("mul", row, cases.input(4, 33)))
    kernels = [node for node in fuse(cases.graph(), HOST).nodes if node.op == "kernel"]
    assert len(kernels) == len(cases.outputs)  # each is one kernel
    cases.check(tmp_path)


def test_several_kernels_compute_one_value(tmp_path: Path) -> None:
    cases = Cases()
    x, low = cases.input(37, 61), cases.input(1)
    shifted = emit("sub", x, low)
    cases.add("top", emit("reduce_max", shifted, axes=(0, 1), keepdims=False))
    cases.add("turned", emit("transpose", shifted, perm=(1, 0)))
    kernels = [node.attrs["name"] for node in fuse(cases.graph(), HOST).nodes]
    assert kernels == ["sub_reduce_max", "sub_transpose"]
    cases.check(tmp_path)


def test_a_guarded_value_is_read_by_many_steps_in_vectors(tmp_path: Path) -> None:
    cases = Cases()
    packed = emit("pack", cases.input(2, 7, 5), axis=1, block=4)  # one channel is padding
    cases.add("erf", emit("mul", emit("erf", emit("abs", packed)), cases.input(2, 2, 5, 4)))
    (kernel,) = fuse(cases.graph(), HOST).nodes
    space = space_of(kernel)
    point = space.pick(kernel, HOST) | {"vector": 4, "overlap": False, "tile": 0}
    graph = joined({"erf": with_schedule(kernel, space.schedule(kernel, HOST, point))})
    check_against_reference(graph, cases.random_inputs(), tmp_path)
