"""Every op that has a lowering computes what its reference computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit
from planish.ir.graph import Value, constant
from planish.ir.types import DType
from tests.targets.compiled import Cases

RNG = np.random.default_rng(7)


def weights(*shape: int) -> Value:
    return constant(RNG.standard_normal(shape).astype("float32"))


UNARY = [
    "neg",
    "abs",
    "exp",
    "sin",
    "cos",
    "atan",
    "sinh",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "ceil",
    "sign",
    "round",
    "relu",
    "cosh",
    "asinh",
    "reciprocal",
    "is_nan",
    "is_inf",
]
POSITIVE = ["sqrt", "log", "log1p"]
WITHIN_ONE = ["asin", "acos", "atanh"]
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "maximum",
    "minimum",
    "equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "mod",
]


def test_elementwise_float(tmp_path: Path) -> None:
    cases = Cases()
    x, y = cases.input(3, 5, 16), cases.input(5, 1)
    for op in UNARY:
        cases.add(op, emit(op, x))
    square = emit("mul", x, x)
    for op in POSITIVE:
        cases.add(op, emit(op, square))
    for op in WITHIN_ONE:
        cases.add(op, emit(op, emit("tanh", x)))
    for op in BINARY:
        cases.add(op, emit(op, x, y))
    cases.add("fmod", emit("mod", x, y, fmod=True))
    cases.add("pow", emit("pow", square, y))
    cases.add("cube", emit("pow", x, constant(np.float32(3))))
    cases.add("where", emit("where", emit("less", x, y), x, y))
    below = emit("less", x, y)
    cases.add("shared_condition", emit("where", emit("not", below), x, emit("where", below, y, x)))
    cases.add(
        "prelu", emit("where", emit("less", x, constant(np.float32(0))), emit("mul", x, y), x)
    )
    cases.add("nan", emit("maximum", emit("sqrt", x), y))
    cases.add("int", emit("cast", x, to=DType.INT32))
    cases.add("bool", emit("cast", emit("round", x), to=DType.BOOL))
    cases.add("double", emit("exp", emit("cast", x, to=DType.FLOAT64)))
    cases.add("half", emit("tanh", emit("cast", x, to=DType.FLOAT16)))
    cases.check(tmp_path)


def test_elementwise_integers(tmp_path: Path) -> None:
    cases = Cases()
    x, y = cases.input(7, 9, dtype="int64"), cases.input(9, dtype="int64")
    odd = emit("bitwise_or", y, constant(np.int64(1)))
    for op in ("add", "sub", "mul", "maximum", "minimum", "less", "equal"):
        cases.add(op, emit(op, x, y))
    for op in ("div", "mod"):
        cases.add(op, emit(op, x, odd))
    cases.add("fmod", emit("mod", x, odd, fmod=True))
    for op in ("neg", "abs", "sign", "bitwise_not"):
        cases.add(op, emit(op, x))
    for op in ("bitwise_and", "bitwise_xor"):
        cases.add(op, emit(op, x, y))
    u, v = cases.input(8, dtype="uint32"), cases.input(8, dtype="uint32")
    cases.add("left", emit("shift_left", u, v))
    cases.add("right", emit("shift_right", u, v))
    a, b = emit("less", x, y), emit("greater", x, odd)
    for op in ("and", "or", "xor"):
        cases.add(op, emit(op, a, b))
    cases.add("not", emit("not", a))
    cases.add("float", emit("cast", x, to=DType.FLOAT32))
    cases.add("from_bool", emit("cast", a, to=DType.FLOAT32))
    cases.add("small", emit("cast", x, to=DType.INT8))
    cases.check(tmp_path)


def test_movement(tmp_path: Path) -> None:
    cases = Cases()
    x, y = cases.input(2, 6, 5, 8), cases.input(2, 3, 5, 8)
    flat = emit("relu", emit("reshape", emit("neg", x), shape=(12, 40)))
    cases.add("reshape", flat)
    cases.add("transpose", emit("transpose", x, perm=(0, 2, 3, 1)))
    cases.add("broadcast", emit("broadcast_to", cases.input(5, 1), shape=(2, 5, 8)))
    cases.add(
        "slice", emit("slice", x, starts=(1, 0, 4, 1), stops=(2, 6, -1, 8), steps=(1, 2, -1, 3))
    )
    cases.add("concat", emit("concat", x, y, emit("neg", y), axis=1))
    cases.add("concat_last", emit("concat", x, emit("exp", x), axis=3))
    cases.add("pad", emit("pad", x, before=(0, 0, 1, 2), after=(0, 1, 0, 3), value=1.5))
    cases.add("crop", emit("pad", x, before=(0, -1, 1, 0), after=(0, 0, -2, 0)))
    for mode in ("reflect", "edge", "wrap"):
        cases.add(mode, emit("pad", x, before=(0, 1, 2, 0), after=(0, 0, 1, 3), mode=mode))
    index = constant(np.array([[0, -1], [2, 1]], dtype=np.int64))
    cases.add("gather", emit("gather", x, index, axis=2))
    spread = constant(RNG.integers(-6, 6, (2, 4, 5, 8)))
    cases.add("gather_elements", emit("gather_elements", x, spread, axis=1))
    points = constant(RNG.integers(0, 2, (3, 2)))
    cases.add("gather_nd", emit("gather_nd", x, points, batch_dims=0))
    packed = emit("pack", x, axis=1, block=4)
    cases.add("pack", packed)
    cases.add("unpack", emit("unpack", emit("neg", packed), axis=1, block=4, size=6))
    groups = emit("pack", x, axis=1, block=4, segments=2)
    cases.add("pack_segments", groups)
    attrs = {"axis": 1, "block": 4, "segments": 2, "size": 6}
    cases.add("unpack_segments", emit("unpack", emit("neg", groups), **attrs))
    cases.check(tmp_path)


def test_padding_after_an_anchor(tmp_path: Path) -> None:
    """The kernel writes inside the padded tensor and fills the border."""
    cases = Cases()
    x = cases.input(1, 2, 9, 14, 16)
    border = dict(before=(0, 0, 1, 2, 0), after=(0, 0, 3, 0, 0))
    conv = emit("blocked_conv", x, weights(2, 2, 1, 1, 16, 16), strides=(1, 1), dilations=(1, 1))
    cases.add("conv", emit("pad", emit("relu", conv), **border))
    cases.add("value", emit("pad", emit("exp", x), **border, value=-2.5))
    rows = cases.input(5, 37)
    softmax = emit("softmax", rows, axis=1)
    cases.add("rows", emit("pad", softmax, before=(2, 3), after=(0, 1)))
    product = emit("matmul", rows, weights(37, 24))
    cases.add("matmul", emit("pad", product, before=(1, 0), after=(0, 5)))
    cases.check(tmp_path)


def test_fused_padding_does_not_read_out_of_bounds(tmp_path: Path) -> None:
    """A value read twice under the guard of a pad is bound under that guard."""
    cases = Cases()
    x = cases.input(1, 4, 8)
    e = emit("exp", x)
    value = emit("add", emit("mul", e, e), e)
    cases.add("pad", emit("pad", value, before=(0, 3, 5), after=(0, 2, 2)))
    cases.check(tmp_path)


def test_reductions(tmp_path: Path) -> None:
    cases = Cases()
    x = cases.input(3, 6, 7, 16)
    for op in ("sum", "mean", "max", "min", "prod"):
        for axes in ((3,), (2, 3), (0, 1, 2, 3), (1,), (1, 2), (0, 3)):
            for keep in (False, True):
                name = f"{op}{axes}{keep}"
                cases.add(name, emit(f"reduce_{op}", x, axes=axes, keepdims=keep))
    long = cases.input(4, 203)
    cases.add("tail", emit("reduce_sum", emit("abs", long), axes=(1,), keepdims=False))
    cases.add("tail_max", emit("relu", emit("reduce_max", long, axes=(1,), keepdims=True)))
    for axis in (1, 3):
        cases.add(f"arg_max{axis}", emit("arg_max", x, axis=axis, keepdims=True))
        cases.add(f"arg_min{axis}", emit("arg_min", x, axis=axis, keepdims=False))
    ties = emit("round", x)
    cases.add("first", emit("arg_max", ties, axis=2, keepdims=False))
    cases.add("last", emit("arg_max", ties, axis=2, keepdims=False, last=True))
    cases.check(tmp_path)


SIX = constant(np.float32(6))


def test_maximum_keeps_nan(tmp_path: Path) -> None:
    cases = Cases()
    x = cases.input(4, 64)
    data = RNG.standard_normal((4, 64)).astype("float32")
    data[1, 3] = data[2, 63] = np.nan
    for op in ("max", "min", "sum"):
        cases.add(op, emit(f"reduce_{op}", x, axes=(1,), keepdims=False))
    cases.add("relu", emit("relu", x))
    cases.add("relu6", emit("minimum", emit("maximum", x, constant(np.float32(-1))), SIX))
    cases.add("other_order", emit("minimum", SIX, emit("add", x, x)))
    cases.check(tmp_path, x0=data)


def test_pool(tmp_path: Path) -> None:
    cases = Cases()
    x, blocked = cases.input(1, 3, 13, 17), cases.input(1, 2, 9, 9, 16)
    unit = (1, 1)
    for kind in ("max", "average", "sum"):
        for include in (False, True):
            attrs = dict(
                kind=kind, window=(*unit, 3, 2), strides=(*unit, 2, 1), dilations=(*unit, 1, 2),
                before=(0, 0, 1, 0), after=(0, 0, 1, 1), include_pad=include,
            )  # fmt: skip
            cases.add(f"{kind}{include}", emit("pool", x, **attrs))
    one = dict(window=(1,) * 4, strides=(1,) * 4, dilations=(1,) * 4, after=(0,) * 4)
    cases.add("padded", emit("pool", x, kind="average", before=(0, 0, 1, 0), **one))
    cases.add(
        "blocked",
        emit(
            "pool", blocked, kind="max", window=(1, 1, 3, 3, 1), strides=(1, 1, 2, 2, 1),
            dilations=(1,) * 5, before=(0, 0, 1, 1, 0), after=(0, 0, 1, 1, 0),
        ),
    )  # fmt: skip
    cases.check(tmp_path)


def test_rows(tmp_path: Path) -> None:
    cases = Cases()
    x, odd = cases.input(2, 5, 64), cases.input(3, 77)
    for op in ("softmax", "log_softmax"):
        cases.add(op, emit(op, x, axis=2))
        cases.add(f"{op}_middle", emit(op, x, axis=1))
        cases.add(f"{op}_first", emit(op, odd, axis=0))
        cases.add(f"{op}_odd", emit(op, odd, axis=1))
    scale, bias = weights(64), weights(64)
    norm = emit("layer_norm", x, scale, bias, axis=2, epsilon=1e-5)
    cases.add("layer_norm", norm)
    cases.add("rms_norm", emit("rms_norm", x, scale, axis=2, epsilon=1e-5))
    cases.add("rms_odd", emit("relu", emit("rms_norm", odd, weights(77), axis=1, epsilon=1e-5)))
    cases.add("norm_epilogue", emit("relu", emit("add", norm, x)))
    cases.add(
        "norm_two", emit("layer_norm", x, weights(5, 64), weights(5, 64), axis=1, epsilon=1e-5)
    )
    cases.add(
        "softmax_prologue", emit("softmax", emit("mul", x, constant(np.float32(0.3))), axis=2)
    )
    cases.check(tmp_path)


@pytest.mark.parametrize("rows", [1, 5, 33])
def test_matmul(tmp_path: Path, rows: int) -> None:
    cases = Cases()
    a, b = cases.input(rows, 40), cases.input(40, 24)
    cases.add("plain", emit("matmul", a, b))
    cases.add("odd", emit("matmul", a, cases.input(40, 7)))
    cases.add("epilogue", emit("relu", emit("add", emit("matmul", a, b), weights(24))))
    p, q = cases.input(2, 3, rows, 16), cases.input(3, 16, 20)
    cases.add("batch", emit("matmul", p, q))
    cases.add(
        "integers",
        emit("matmul", cases.input(rows, 6, dtype="int32"), cases.input(6, 8, dtype="int32")),
    )
    for columns, block in ((96, 32), (100, 20), (10, 16)):
        panels = weights(-(-columns // block), 40, block)
        cases.add(f"packed{columns}", emit("packed_matmul", a, panels, size=columns))
    cases.add("packed_batch", emit("packed_matmul", p, weights(2, 16, 16), size=32))
    cases.check(tmp_path)


def test_conv(tmp_path: Path) -> None:
    cases = Cases()
    x = cases.input(2, 6, 13, 14)
    base = dict(strides=(1, 1), dilations=(1, 1), before=(1, 1), after=(1, 1), groups=1)
    cases.add("plain", emit("conv", x, weights(5, 6, 3, 3), **base))
    cases.add("strided", emit("conv", x, weights(5, 6, 3, 2), **base | {"strides": (2, 3)}))
    cases.add("dilated", emit("conv", x, weights(5, 6, 3, 3), **base | {"dilations": (2, 2)}))
    cases.add("grouped", emit("conv", x, weights(9, 2, 3, 3), **base | {"groups": 3}))
    cases.add("depthwise", emit("conv", x, weights(12, 1, 3, 3), **base | {"groups": 6}))
    line = cases.input(1, 4, 30)
    one = dict(strides=(2,), dilations=(1,), before=(2,), after=(1,), groups=1)
    cases.add("line", emit("conv", line, weights(7, 4, 5), **one))
    cube = cases.input(1, 2, 5, 6, 7)
    three = dict(strides=(1, 2, 1), dilations=(1,) * 3, before=(1,) * 3, after=(0,) * 3, groups=1)
    cases.add("cube", emit("relu", emit("conv", cube, weights(3, 2, 2, 3, 3), **three)))
    cases.check(tmp_path)


def test_blocked_conv(tmp_path: Path) -> None:
    cases = Cases()
    for width in (7, 14, 59, 97):
        x = cases.input(1, 2, 9, width, 16)
        for kernel, stride in ((1, 1), (3, 1), (3, 2), (1, 2)):
            w = weights(4, 2, kernel, kernel, 16, 16)
            y = emit("blocked_conv", x, w, strides=(stride, stride), dilations=(1, 1))
            bias = constant(RNG.standard_normal((1, 4, 1, 1, 16)).astype("float32"))
            cases.add(f"conv{width}_{kernel}_{stride}", emit("relu", emit("add", y, bias)))
        depthwise = emit(
            "blocked_depthwise_conv", x, weights(2, 5, 3, 16), strides=(2, 1), dilations=(1, 2)
        )
        cases.add(f"depthwise{width}", depthwise)
    grouped = cases.input(1, 6, 9, 14, 16)
    for kernel, stride in ((1, 1), (3, 2)):
        w = weights(4, 3, kernel, kernel, 16, 16)
        window = {"strides": (stride, stride), "dilations": (1, 1)}
        y = emit("blocked_conv", grouped, w, groups=2, **window)
        cases.add(f"grouped_{kernel}_{stride}", emit("relu", y))
    first = cases.input(1, 3, 11, 12, 1)
    w = weights(2, 3, 3, 3, 1, 16)
    y = emit("blocked_conv", first, w, strides=(2, 2), dilations=(1, 1))
    cases.add("first", y)
    cases.add("residual", emit("relu", emit("add", y, cases.input(*y.type.static_shape))))
    cases.check(tmp_path)


def test_a_product_with_zero_keeps_the_anchor(tmp_path: Path) -> None:
    """TVM folds x * 0; the schedule still names the stage of x."""
    cases = Cases()
    x = cases.input(1, 4, 5, 6)
    ones = (1,) * 4
    for kind in ("average", "max"):
        attrs = {"window": (1, 1, 2, 1), "strides": ones, "dilations": ones, "kind": kind}
        pooled = emit("pool", x, before=(0, 0, 1, 0), after=(0,) * 4, **attrs)
        cases.add(kind, emit("mul", pooled, constant(np.float32(0))))
    cases.add("rows", emit("mul", emit("softmax", x, axis=3), constant(np.float32(0))))
    cases.check(tmp_path)
