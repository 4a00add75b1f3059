"""Kernels that stream through memory: odd sizes, the rows that cores share, borders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planish.autotune.default_schedules import assign_default_schedules
from planish.autotune.spaces import space_of
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.types import tensor
from planish.passes.fuse import inner_root
from planish.passes.local import loop_nest
from planish.passes.pipeline import run_pipeline
from planish.targets.codegen import build_assembly
from planish.targets.hardware import find_target
from planish.targets.lowering import lower_kernel, recomputes
from tests.targets.anchor_kernels import inputs_of

TARGET = replace(find_target("x86-64-v4"), cores=2)
_IMAGE = Input(tensor("float32", (1, 4, 56, 56, 16)), "x")
_PADDED = {"before": (0, 0, 1, 1, 0), "after": (0, 0, 1, 1, 0)}
_POOL = {"window": (1, 1, 3, 3, 1), "strides": (1, 1, 2, 2, 1), "dilations": (1,) * 5}
_SHARED = {
    "pool": emit("pool", _IMAGE, kind="max", include_pad=False, **_POOL, **_PADDED),
    "relu": emit("relu", _IMAGE),
    "pad": emit("pad", _IMAGE, value=0.0, **_PADDED),
    "unpack": emit("unpack", _IMAGE, axis=1, block=16, size=64),
}


def _kernel(value: Value) -> Node:
    graph = run_pipeline(Graph(inputs_of(value), (value,)), TARGET)
    (kernel,) = [n for n in assign_default_schedules(graph, TARGET).nodes if n.op == "kernel"]
    return kernel


@pytest.mark.parametrize("name", _SHARED)
def test_cores_share_rows_of_images(name: str) -> None:
    """As convolutions do: what a core reads it has written."""
    kernel = _kernel(_SHARED[name])
    plan = kernel.attrs["schedule"]
    assert dict(plan.choices)["share"] == "rows"
    if plan.emitter is not None:
        return
    parallel = [x for x in loop_nest(kernel).stages["out"].loops if x.kind == "parallel"]
    assert [x.extent for x in parallel] == [TARGET.cores]
    (digit,) = [d for x in parallel for d in x.digits if d.extent > 1]
    assert (digit.axis, digit.stride) == ("d2", _rows(kernel) // TARGET.cores)


def _rows(kernel: Node) -> int:
    """Of the image that is computed, a border around it aside."""
    return inner_root(kernel.regions[0]).type.static_shape[2]


@pytest.mark.parametrize("size", [7, 13, 77, 197, 1001])
def test_odd_rows_end_in_a_vector_that_is_moved_back(size: int) -> None:
    x = Input(tensor("float32", (6, size)), "x")
    for value in (emit("softmax", x, axis=1), emit("exp", x)):
        kernel = _kernel(value)
        choices = dict(kernel.attrs["schedule"].choices)
        assert choices["vector"] >= 4
        assert choices["overlap"] == (value.type.elements % choices["vector"] != 0)
        assert recomputes(kernel) == choices["overlap"]


def test_borders_take_no_launch_of_their_own() -> None:
    weights = constant(np.ones((4, 4, 1, 1, 16, 16), "float32"))
    conv = emit("blocked_conv", _IMAGE, weights, strides=(1, 1), dilations=(1, 1))
    launches = []
    for value in (conv, emit("pad", conv, value=0.0, **_PADDED)):
        kernel = _kernel(value)
        assert dict(kernel.attrs["schedule"].choices)["parallel"]
        text = build_assembly({"hot": lower_kernel(kernel)}, TARGET)
        launches.append(text.count("__TVMBackendParallelLaunch"))
    assert launches[0] == launches[1] > 0


def test_no_legal_point_overlaps_for_nothing() -> None:
    for size in (64, 77):
        kernel = _kernel(emit("exp", Input(tensor("float32", (64, size)), "x")))
        points = space_of(kernel).points(kernel, TARGET)
        extent = np.where(points["flat"], 64 * size, size)
        assert (points["overlap"] == (extent % points["vector"] != 0)).all()
