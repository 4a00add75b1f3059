"""The assembly of hot kernels at the analytic pick, for AVX-512, AVX2 and NEON.

Compiled for each target whatever the machine: nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from planish.autotune.default_schedules import assign_default_schedules
from planish.autotune.spaces import anchor_of
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.types import tensor
from planish.passes.pipeline import PIPELINE, run_pipeline
from planish.targets.codegen import build_assembly
from planish.targets.hardware import find_target
from planish.targets.lowering import lower_kernel
from tests.autotune.assembly import Loop, hottest, innermost_loops, instructions
from tests.targets.anchor_kernels import inputs_of

TARGETS = ("x86-64-v4", "x86-64-v3", "neoverse-n1")
_RNG = np.random.default_rng(7)


def _input(*shape: int) -> Input:
    return Input(tensor("float32", shape), "x")


def _weights(*shape: int) -> Value:
    return constant(_RNG.standard_normal(shape).astype("float32"))


def _conv(
    channels: int, outputs: int, size: int, kernel: int, lanes: int, stride: int = 1
) -> Value:
    """A convolution in blocks of the target's vectors, over an input that is padded already."""
    across = (size - 1) * stride + kernel
    x = _input(1, channels // lanes, across, across, lanes)
    weight = _weights(outputs // lanes, channels // lanes, kernel, kernel, lanes, lanes)
    strides = {"strides": (stride, stride), "dilations": (1, 1)}
    return emit("relu", emit("blocked_conv", x, weight, **strides))


def _depthwise(channels: int, size: int, lanes: int, kernel: int = 3) -> Value:
    across = size + kernel - 1
    x = _input(1, channels // lanes, across, across, lanes)
    w = _weights(channels // lanes, kernel, kernel, lanes)
    return emit("relu", emit("blocked_depthwise_conv", x, w, strides=(1, 1), dilations=(1, 1)))


def _matmul(rows: int, depth: int, columns: int) -> Value:
    return emit("matmul", _input(rows, depth), _weights(depth, columns))


def _gelu(x: Value) -> Value:
    half, root = _scalar(0.5), _scalar(0.5**0.5)
    one = emit("add", emit("erf", emit("mul", x, root)), _scalar(1.0))
    return emit("mul", emit("mul", x, half), one)


def _scalar(number: float) -> Value:
    return constant(np.array(number, "float32"))


#: Name → the anchor of the hot kernel, and its value for a width of vectors.
CONTRACTIONS: Mapping[str, tuple[str, Callable[[int], Value]]] = {
    "conv_3x3": ("blocked_conv", lambda lanes: _conv(64, 64, 56, 3, lanes)),
    "conv_1x1": ("blocked_conv", lambda lanes: _conv(256, 64, 28, 1, lanes)),
    "conv_3x3_wide": ("blocked_conv", lambda lanes: _conv(512, 512, 7, 3, lanes)),
    "conv_1x1_strided": ("blocked_conv", lambda lanes: _conv(256, 256, 14, 1, lanes, stride=2)),
    "conv_odd_blocks": ("blocked_conv", lambda lanes: _conv(256, 5 * lanes, 14, 1, lanes)),
    "winograd": ("winograd_conv", lambda lanes: _conv(128, 128, 28, 3, lanes)),
    "winograd_odd": ("winograd_conv", lambda lanes: _conv(64, 256, 13, 3, lanes)),
    "depthwise": ("blocked_depthwise_conv", lambda lanes: _depthwise(96, 56, lanes)),
    "depthwise_5x5": ("blocked_depthwise_conv", lambda lanes: _depthwise(96, 28, lanes, kernel=5)),
    "matmul_packed": ("packed_matmul", lambda lanes: _matmul(128, 384, 1536)),
    "matmul_odd": ("packed_matmul", lambda lanes: _matmul(77, 768, 1000)),
}
#: Name → the anchor (None: there is none), and the value.
ROWS: Mapping[str, tuple[str | None, Value]] = {
    "softmax": ("softmax", emit("softmax", _input(64, 1024), axis=1)),
    "softmax_columns": ("softmax", emit("softmax", _input(4, 64, 256), axis=1)),
    "layer_norm": (
        "layer_norm",
        emit("layer_norm", _input(64, 768), _weights(768), _weights(768), axis=1, epsilon=1e-5),
    ),
    "sum": ("reduce_sum", emit("reduce_sum", _input(64, 2048), axes=(1,), keepdims=False)),
    "sum_columns": ("reduce_sum", emit("reduce_sum", _input(64, 256), axes=(0,), keepdims=False)),
    "softmax_odd": ("softmax", emit("softmax", _input(64, 197), axis=1)),
    "rms_norm_odd": (
        "rms_norm",
        emit("rms_norm", _input(64, 77), _weights(77), axis=1, epsilon=1e-5),
    ),
    "sum_columns_odd": (
        "reduce_sum",
        emit("reduce_sum", _input(64, 77), axes=(0,), keepdims=False),
    ),
    "arg_max": ("arg_max", emit("arg_max", _input(64, 2048), axis=1, keepdims=False)),
    "exp": (None, emit("exp", _input(64, 1024))),
    "gelu": (None, _gelu(_input(64, 3072))),
    "exp_odd": (None, emit("exp", _input(13, 77))),
    "bias_odd": (None, emit("relu", emit("add", _input(64, 1001), _weights(1001)))),
    "bias": (None, emit("relu", emit("add", _input(64, 256), _weights(256)))),
}
MOVEMENT: Mapping[str, tuple[None, Value]] = {
    "transpose": (None, emit("transpose", _input(96, 80), perm=(1, 0))),
    "channels_last": (None, emit("transpose", _input(1, 64, 28, 28), perm=(0, 2, 3, 1))),
    "channels_first": (None, emit("transpose", _input(1, 28, 28, 64), perm=(0, 3, 1, 2))),
    "pack": (None, emit("pack", _input(1, 64, 28, 28), axis=1, block=16)),
    "unpack": (None, emit("unpack", _input(1, 4, 28, 28, 16), axis=1, block=16, size=64)),
}


@cache
def _compiled(name: str, target_name: str) -> tuple[Node, str]:
    """The kernel around the op of that name, for one thread, and its assembly."""
    target = replace(find_target(target_name), cores=1)
    if name in CONTRACTIONS:
        op, build = CONTRACTIONS[name]
        value = build(target.lanes(4))
    else:
        op, value = {**ROWS, **MOVEMENT}[name]
    # A direct convolution stays one.
    kept = [s for s in PIPELINE if op == "winograd_conv" or s.name != "choose_algorithm"]
    graph = run_pipeline(Graph(inputs_of(value), (value,)), target, kept)
    kernels = [n for n in assign_default_schedules(graph, target).nodes if n.op == "kernel"]
    (kernel,) = [node for node in kernels if _op(node) == op]
    return kernel, build_assembly({"hot": lower_kernel(kernel)}, target)


def _op(kernel: Node) -> str | None:
    """The op that the kernel is around."""
    anchor = anchor_of(kernel)
    return None if anchor is None else anchor.op


def _promised(kernel: Node) -> float:
    """Multiply-adds for each load in the inner loop of the schedule's register tile."""
    choice: dict[str, Any] = dict(kernel.attrs["schedule"].choices)
    anchor = anchor_of(kernel)
    assert anchor is not None
    if anchor.op == "blocked_depthwise_conv":  # of stride 1: neighbours share their pixels
        taps = anchor.inputs[1].type.static_shape[2]
        return float(choice["ow"] * taps / (choice["ow"] + 2 * taps - 1))
    if anchor.op == "blocked_conv":
        rows, columns = choice["ow"], choice["oc"]
    elif anchor.op == "winograd_conv":
        rows, columns = choice["p"], choice["oc"]
    else:
        rows, columns = choice["m"], choice["n"] // choice["vector"]
    return float(rows * columns / (rows + columns))


def _hot_loops(assembly: str) -> list[Loop]:
    """Those of the kernel: LLVM adds functions of its own for float16."""
    return [loop for loop in innermost_loops(assembly) if loop.function == "hot"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_contractions_multiply_in_registers(name: str, target: str) -> None:
    kernel, assembly = _compiled(name, target)
    loop = hottest(assembly)
    assert not loop.spills, f"spills in\n{loop}"
    assert not loop.calls, f"calls in\n{loop}"
    assert not any(i.is_scalar_fma for i in instructions(assembly)), "a scalar tail"
    assert loop.fmas / loop.loads >= _promised(kernel), str(loop)
    others = len(loop.instructions) - len(loop.copies) - loop.fmas
    assert loop.fmas > 0.7 * others, f"more than multiply-adds in\n{loop}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_are_taken_in_vectors(name: str, target: str) -> None:
    """No vector is stored to be loaded again; AVX2 may load constants of `exp` from the stack."""
    _, assembly = _compiled(name, target)
    assert not any(i.is_scalar_fma for i in instructions(assembly)), "a scalar tail"
    assert _hot_loops(assembly)
    for loop in _hot_loops(assembly):
        assert not any(i.vector_stores for i in loop.spills), f"spills in\n{loop}"
        assert not loop.calls, f"calls in\n{loop}"
        assert loop.loads + loop.stores > 0, f"no vector in\n{loop}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", MOVEMENT)
def test_movement_is_of_vectors(name: str, target: str) -> None:
    """Vectors are loaded in pieces of 16 bytes, turned in registers, and stored whole."""
    kernel, assembly = _compiled(name, target)
    size = dict(kernel.attrs["schedule"].choices)["tile"]
    assert size == find_target(target).lanes(4)
    assert _hot_loops(assembly)
    for loop in _hot_loops(assembly):
        assert not loop.spills, f"spills in\n{loop}"
        pieces = loop.stores * size // 4
        assert loop.loads == pieces > 0
        assert loop.stores % size == 0
        joined, shuffles = pieces - loop.stores, 2 * loop.stores
        most = loop.stores + pieces + joined + shuffles + 12
        assert len(loop.instructions) <= most, f"more than {most} instructions in\n{loop}"


def test_the_parser_knows_loops_spills_and_calls() -> None:
    """A loop inside another, as LLVM prints it for both architectures."""
    x86 = (
        "f:\n\tmovq\t%rdi, %rax\n.LBB0_1:\n\txorl\t%ecx, %ecx\n.LBB0_2:\n"
        "\tvmovups\t%zmm1, 64(%rsp)\n\tvmovaps\t%zmm4, %zmm1\n\tvbroadcastss\t(%rax,%rcx), %zmm2\n"
        "\tvfmadd231ps\t(%rsi){1to16}, %zmm2, %zmm3\n\tvfmadd231ss\t%xmm1, %xmm2, %xmm3\n"
        "\tcallq\texpf\n\tvmovups\t%zmm3, (%rsp,%rcx)\n\tjne\t.LBB0_2\n\tjne\t.LBB0_1\n"
    )
    arm = (
        "g:\n.LBB1_1:\n\tldp\tq0, q1, [x8], #32\n\tfmla\tv2.4s, v0.4s, v1.s[0]\n"
        "\tstr\tq2, [sp, #16]\n\tmov\tv1.16b, v2.16b\n\tfmadd\ts0, s1, s2, s3\n"
        "\tbl\texpf\n\tcbnz\tx1, .LBB1_1\n"
    )
    first, second = innermost_loops(x86 + arm)
    assert (first.function, second.function) == ("f", "g")
    assert (len(first.instructions), len(second.instructions)) == (8, 7)
    for loop in (first, second):
        assert (loop.fmas, loop.scalar_fmas, loop.loads) == (1, 1, 2)
        assert (len(loop.spills), len(loop.calls), len(loop.copies)) == (1, 1, 1)
    assert (first.stores, second.stores) == (1, 0)
