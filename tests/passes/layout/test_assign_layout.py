"""Layouts of whole networks: results stay, and bodies of convolutions have no conversions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import OPS
from planish.ir.reference import run_node
from planish.ir.target import Target
from planish.ir.types import DType, tensor
from planish.ir.verifier import verify
from planish.passes.assign_layout import assign_layout
from planish.passes.layout.forms import FINITE
from planish.passes.pipeline import run_pipeline
from planish.passes.trace import recording
from planish.targets.hardware import find_target
from tests.passes.layout.convolution_graphs import networks
from tests.passes.random_graphs import TARGET, assert_same_results

RNG = np.random.default_rng(11)
_NONE = {"strides": (1, 1), "dilations": (1, 1), "before": (0, 0), "after": (0, 0)}
_SAME = {**_NONE, "before": (1, 1), "after": (1, 1)}


#: Halves its widest vectors, so that half blocks cost it nothing.
HALVING = replace(find_target("x86-64-v4"), fma_per_cycle=1)


@pytest.mark.parametrize("target", [TARGET, HALVING], ids=["whole", "halves"])
@given(graph=networks())
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_layouts_keep_what_a_network_computes(target: Target, graph: Graph) -> None:
    after = assign_layout(graph, target)
    verify(after)
    assert_same_results(graph, after, rtol=2e-5)


def _weights(*shape: int) -> Value:
    scale = 1 / math.sqrt(math.prod(shape[1:]))
    return constant((RNG.standard_normal(shape) * scale).astype("float32"))


def _conv(x: Value, out: int, kernel: int = 1, groups: int = 1, name: str = "Conv") -> Value:
    w = _weights(out, x.type.static_shape[1] // groups, kernel, kernel)
    window = _SAME if kernel == 3 else _NONE
    y = emit("conv", x, w, groups=groups, provenance=(name,), **window)
    return emit("add", y, _weights(out, 1, 1))


def _image(channels: int, size: int) -> Input:
    return Input(tensor(DType.FLOAT32, (1, channels, size, size)), "x")


def _blocks(graph: Graph) -> set[int]:
    """The channels in a block of each convolution's result."""
    found = [node.output.type.static_shape[-1] for node in graph.nodes if "blocked" in node.op]
    assert found
    return set(found)


def test_half_blocks_are_for_channels_that_whole_ones_would_fill_up_much() -> None:
    x = _image(48, 20)
    parts = [_conv(x, 24, 3, name=f"Conv_{i}") for i in range(2)]
    joined = emit("concat", *parts, axis=1)
    graph = Graph((x,), (_conv(joined, 24, 3),))
    halved, whole = assign_layout(graph, HALVING), assign_layout(graph, find_target("x86-64-v4"))
    assert _blocks(halved) == {8}
    assert _blocks(whole) == {16}
    assert sum(node.op in ("pack", "unpack") for node in halved.nodes) == 2  # at the ends
    assert_same_results(graph, halved, rtol=2e-5)
    assert_same_results(graph, whole, rtol=2e-5)


def test_channels_of_whole_blocks_and_of_groups_are_not_halved() -> None:
    x = _image(48, 20)
    graph = Graph((x,), (_conv(_conv(x, 64, 3), 64, 3, groups=2),))
    assert _blocks(assign_layout(graph, HALVING)) == {16}


def _ops(graph: Graph) -> list[str]:
    """The ops in the kernels of a graph after the whole pipeline."""
    kernels = run_pipeline(graph, TARGET).nodes
    return [node.op for kernel in kernels for body in kernel.regions for node in body.nodes]


def test_a_residual_network_is_converted_nowhere() -> None:
    x = _image(3, 16)
    y = emit("relu", _conv(x, 10, 3))
    for _ in range(3):
        inner = emit("relu", _conv(emit("relu", _conv(y, 12)), 12, 3, groups=12))
        y = emit("relu", emit("add", _conv(inner, 10), y))
    mean = emit("reduce_mean", y, axes=(2, 3), keepdims=True)
    ops = _ops(Graph((x,), (emit("reshape", _conv(mean, 16), shape=(1, 16)),), ("y",)))
    assert ops.count("blocked_conv") == 7
    assert ops.count("blocked_depthwise_conv") == 3
    assert ops.count("packed_matmul") == 1
    assert not {"conv", "pack", "unpack"} & {*ops}


def test_shuffled_groups_are_converted_in_the_kernels_that_move_them() -> None:
    x = _image(3, 20)
    y = _conv(x, 28, 3)
    for _ in range(2):
        parts = emit("reshape", _conv(y, 28, groups=2), shape=(1, 2, 14, 20, 20))
        swapped = emit("transpose", parts, perm=(0, 2, 1, 3, 4))
        shuffled = emit("reshape", swapped, shape=(1, 28, 20, 20))
        y = emit("add", _conv(_conv(shuffled, 28, 3, groups=28), 28, groups=2), y)
    ops = _ops(Graph((x,), (emit("softmax", y, axis=1),), ("y",)))
    assert "conv" not in ops
    assert (ops.count("unpack"), ops.count("pack")) == (3, 2)


def test_the_choice_is_told() -> None:
    x = _image(3, 24)
    varying = Input(tensor(DType.FLOAT32, (4, 3, 1, 1)), "w")
    first = _conv(x, 16, 3, name="First")
    one = emit("reduce_mean", first, axes=(2, 3), keepdims=True)
    last = _conv(one, 8, name="Last")
    free = emit("conv", x, varying, groups=1, provenance=("Free",), **_NONE)
    with recording() as events:
        assign_layout(Graph((x, varying), (last, free), ("y", "z")), TARGET)
    summary, *convolutions = events
    assert summary.rule == "layouts of the whole graph"
    start = "3 nodes on blocks; conversions: 1, with blocks in convolutions alone 3; estimated"
    assert summary.where.startswith(start)
    told = {(event.rule, event.where, event.refused) for event in convolutions}
    assert told == {
        ("convolution on blocks", "conv (from 'First')", None),
        ("convolution as a matmul", "conv (from 'Last')", None),
        ("convolution on blocks", "conv (from 'Free')", "its weights are computed"),
    }


@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT16])
def test_other_types_are_refused_with_the_reason(dtype: DType) -> None:
    x = Input(tensor(dtype, (1, 8, 6, 6)), "x")
    w = constant(RNG.standard_normal((8, 8, 3, 3)).astype(dtype.value))
    graph = Graph((x,), (emit("conv", x, w, groups=1, **_NONE),), ("y",))
    with recording() as events:
        assert assign_layout(graph, TARGET) is graph
    assert [event.refused for event in events] == [f"it is of {dtype.value}"]


@pytest.mark.parametrize("op", sorted(FINITE))
def test_ops_that_stay_finite_are_finite(op: str) -> None:
    """On any numbers that surplus channels may hold: sums of bounded products."""
    definition = OPS[op]
    assert definition.kind is OpKind.ELEMENTWISE
    numbers = np.concatenate([RNG.standard_normal(500) * 10.0**e for e in range(-20, 16)])
    kind = DType.BOOL if op in ("not", "and", "or") else DType.FLOAT32
    data = [RNG.permutation(numbers).astype(kind.value) for _ in range(definition.arity[0])]
    if op == "where":
        data[0] = data[0] > 0
    inputs = [Input(tensor(DType.of(d.dtype), d.shape), f"x{i}") for i, d in enumerate(data)]
    attrs = {"approximate": "tanh"} if op == "gelu" else {}
    (result,) = run_node(emit(op, *inputs, **attrs).node, data)
    assert np.isfinite(result).all()
