"""A few small kernels around every anchor that directives schedule, with and without epilogues."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planish.autotune.spaces import space_of
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant, with_inputs
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule

_RNG = np.random.default_rng(11)


def _input(*shape: int) -> Input:
    return Input(tensor("float32", shape), f"x{len(shape)}_{'_'.join(map(str, shape))}")


def _weights(*shape: int) -> Value:
    return constant(_RNG.standard_normal(shape).astype("float32"))


def _epilogue(value: Value) -> Value:
    return emit("relu", emit("add", value, _weights(*value.type.static_shape)))


def _values() -> dict[str, Value]:
    x, wide, odd = _input(1, 2, 5, 7, 8), _input(2, 3, 4, 32), _input(3, 5, 13)
    unit = {"strides": (1, 1), "dilations": (1, 1)}
    image = _input(1, 4, 9, 10)
    window = {"before": (1, 1), "after": (1, 1), "groups": 2, "dilations": (1, 1)}
    pool = {"dilations": (1,) * 4, "before": (0, 0, 1, 1), "after": (0, 0, 0, 1)}
    blocks = {
        "conv_1x1": emit("blocked_conv", x, _weights(4, 2, 1, 1, 8, 8), **unit),
        "conv_3x3": emit("blocked_conv", x, _weights(3, 2, 3, 3, 8, 8), **unit),
        "conv_1x1_strided": emit(
            "blocked_conv", x, _weights(4, 2, 1, 1, 8, 8), strides=(2, 2), dilations=(1, 1)
        ),
        "winograd": emit("winograd_conv", x, _weights(4, 4, 4, 2, 8, 8)),
        "winograd_odd": emit("winograd_conv", _input(2, 1, 11, 8, 8), _weights(3, 4, 4, 1, 8, 8)),
        "depthwise": emit("blocked_depthwise_conv", x, _weights(2, 3, 3, 8), **unit),
        "plain_conv": emit("conv", image, _weights(6, 2, 3, 3), strides=(2, 1), **window),
        "matmul": emit("matmul", _input(7, 12), _input(12, 24)),
        "batched_matmul": emit("matmul", _input(2, 3, 5, 8), _input(3, 8, 10)),
        "packed_matmul": emit("packed_matmul", _input(7, 12), _weights(3, 12, 16), size=40),
        "softmax": emit("softmax", wide, axis=3),
        "softmax_odd": emit("softmax", odd, axis=2),
        "softmax_middle": emit("softmax", wide, axis=1),
        "log_softmax": emit("log_softmax", wide, axis=3),
        "layer_norm": emit(
            "layer_norm", wide, _weights(4, 32), _weights(4, 32), axis=2, epsilon=1e-5
        ),
        "rms_norm": emit("rms_norm", _input(6, 77), _weights(77), axis=1, epsilon=1e-5),
        "pool": emit("pool", image, kind="max", window=(1, 1, 3, 2), strides=(1, 1, 2, 1), **pool),
        "average": emit(
            "pool", image, kind="average", window=(1, 1, 2, 2), strides=(1, 1, 1, 1), **pool
        ),
        "sum_rows": emit("reduce_sum", wide, axes=(2, 3), keepdims=False),
        "mean_rows": emit("reduce_mean", _input(6, 77), axes=(1,), keepdims=True),
        "max_all": emit("reduce_max", wide, axes=(0, 1, 2, 3), keepdims=False),
        "min_leading": emit("reduce_min", wide, axes=(0, 2), keepdims=False),
        "mean_image": emit("reduce_mean", wide, axes=(1, 2), keepdims=True),
    }
    found = blocks | {f"{name}_epilogue": _epilogue(value) for name, value in blocks.items()}
    found["flat"] = emit("exp", emit("mul", wide, wide))
    found["scalar"] = emit("exp", _input())
    found["broadcast"] = emit("add", odd, _weights(5, 1))
    found["moved"] = emit("transpose", emit("neg", odd), perm=(2, 0, 1))
    found["joined"] = emit("concat", odd, emit("neg", odd), axis=1)
    return found


def anchor_kernels(target: Target) -> dict[str, Node]:
    """Kernels by name, under the default schedule of their space."""
    kernels: dict[str, Node] = {}
    for name, value in _values().items():
        graph = Graph(inputs_of(value), (value,))
        found = [node for node in fuse(graph, target).nodes if node.op == "kernel"]
        assert len(found) == 1, f"{name}: {len(found)} kernels"
        kernels[name] = with_schedule(found[0], space_of(found[0]).schedule(found[0], target))
    return kernels


def inputs_of(value: Value) -> tuple[Input, ...]:
    """The inputs that a value is computed from."""
    nodes = Graph((), (value,)).nodes
    read = dict.fromkeys(v for node in nodes for v in node.inputs if isinstance(v, Input))
    return tuple(read)


def joined(kernels: Mapping[str, Node]) -> Graph:
    """One graph of independent kernels, with an output for each: compiled and linked once."""
    given: dict[Value, Input] = {}
    outputs: list[Value] = []
    for kernel in kernels.values():
        for value in kernel.inputs:
            if isinstance(value, Input) and value not in given:
                given[value] = Input(value.type, f"x{len(given)}")
        outputs.append(with_inputs(kernel, [given.get(v, v) for v in kernel.inputs]).output)
    return Graph(tuple(given.values()), tuple(outputs), tuple(kernels))
