"""Kernels on every element type of the interface, on scalars and on tensors without elements."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit, make_node
from planish.ir.graph import Value, constant
from planish.ir.types import DType
from tests.targets.compiled import Cases

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float16", "float32", "float64")
TYPES = ("bool", *INTEGERS, *FLOATS)


def add_movement(cases: Cases, x: Value, y: Value) -> None:
    wide = emit("broadcast_to", y, shape=x.type.shape)
    cases.add("concat", emit("concat", x, wide, axis=0))
    cases.add("concat_last", emit("concat", x, x, axis=1))
    cases.add("transpose", emit("transpose", x, perm=(1, 0)))
    cases.add("pad", emit("pad", x, before=(1, 2), after=(0, 3), value=1))
    cases.add("gather", emit("gather", x, constant(np.array([3, -1, 2])), axis=1))
    cases.add("where", emit("where", cases.input(*x.type.static_shape, dtype="bool"), x, y))
    cases.add("equal", emit("equal", x, y))
    for to in TYPES:
        cases.add(f"to_{to}", emit("cast", x, to=DType(to)))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "float16", "float64"])
def test_movement_and_cast(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    x, y = cases.input(7, 16, dtype=dtype), cases.input(16, dtype=dtype)
    add_movement(cases, x, y)
    cases.check(tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "uint64"])
def test_integer_arithmetic(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    x, y = cases.input(7, 16, dtype=dtype), cases.input(16, dtype=dtype)
    number = constant(np.array(3, dtype))
    for op in ("add", "sub", "mul", "maximum", "minimum", "less", "greater_equal", "bitwise_and"):
        cases.add(op, emit(op, x, y))
        cases.add(f"{op}_number", emit(op, x, number))
        cases.add(f"number_{op}", emit(op, number, x))
    for op in ("neg", "abs", "sign", "relu", "bitwise_not"):
        cases.add(op, emit(op, x))
    cases.add("clip", emit("clip", x, number, constant(np.array(7, dtype))))
    cases.check(tmp_path)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_integer_division_never_traps(tmp_path: Path, dtype: str) -> None:
    """By 0, and the least integer by -1: also where a select seems to keep 0 out."""
    cases = Cases()
    x, y = cases.input(16, dtype=dtype), cases.input(16, dtype=dtype)
    zero, one = constant(np.array(0, dtype)), constant(np.array(1, dtype))
    for name, divisor in (("plain", y), ("three", constant(np.array(3, dtype)))):
        cases.add(f"div_{name}", emit("div", x, divisor))
        for fmod in (False, True):
            cases.add(f"mod_{name}_{fmod}", emit("mod", x, divisor, fmod=fmod))
    is_zero = emit("equal", y, zero)
    cases.add("guarded", emit("where", is_zero, one, emit("div", x, y)))
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x_data = np.array([low, high, 5, 0] * 4, dtype)
    minus_one = 0 if dtype == "uint8" else -1
    cases.check(tmp_path, x0=x_data, x1=np.repeat(np.array([0, minus_one, 1, 3], dtype), 4))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int32", "float16", "float64"])
def test_reductions(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    x = cases.input(3, 40, 16, dtype=dtype)
    kinds = ("max", "min") if dtype == "bool" else ("sum", "mean", "max", "min", "prod")
    for kind in kinds:
        for axes in ((2,), (1,), (0, 1, 2)):
            y = emit(f"reduce_{kind}", x, axes=axes, keepdims=False)
            cases.add(f"{kind}{axes}", y)
    if dtype != "bool":
        cases.add("arg_max", emit("arg_max", x, axis=1, keepdims=True))
        window = {"window": (1, 3, 3), "strides": (1, 2, 1), "dilations": (1, 1, 1)}
        window |= {"before": (0, 1, 1), "after": (0, 1, 1)}
        for kind in ("max", "average"):
            cases.add(f"pool_{kind}", emit("pool", x, kind=kind, **window))
    cases.check(tmp_path)


def test_indices_of_extremes_in_rows_of_one_element_and_with_nan(tmp_path: Path) -> None:
    cases = Cases()
    for shape in ((3, 1), (3, 7), (3, 33)):
        x = cases.input(*shape)
        for op, last in itertools.product(("arg_max", "arg_min"), (False, True)):
            y = emit(op, x, axis=1, keepdims=False, last=last)
            cases.add(f"{op}_{shape[1]}_{last}", y)
    inputs = cases.random_inputs()
    for data in inputs.values():
        data[1, data.shape[1] // 2 :] = np.nan
    cases.check(tmp_path, **inputs)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "float16"])
def test_contractions(tmp_path: Path, dtype: str) -> None:
    """Sums of 300 and 576 products: float16 needs wider sums to stay in its tolerance."""
    cases = Cases()
    a = cases.input(5, 300, dtype=dtype)
    cases.add("matmul", emit("matmul", a, cases.input(300, 24, dtype=dtype)))
    cases.add("odd", emit("matmul", a, cases.input(300, 7, dtype=dtype)))
    cases.add("packed", emit("packed_matmul", a, cases.input(2, 300, 16, dtype=dtype), size=30))
    window = {"strides": (1, 1), "dilations": (1, 1)}
    padded = {**window, "before": (1, 1), "after": (1, 1), "groups": 1}
    x, w = cases.input(1, 64, 9, 9, dtype=dtype), cases.input(6, 64, 3, 3, dtype=dtype)
    cases.add("conv", emit("conv", x, w, **padded))
    x, w = cases.input(1, 4, 9, 9, 16, dtype=dtype), cases.input(2, 4, 3, 3, 16, 16, dtype=dtype)
    cases.add("blocked", emit("blocked_conv", x, w, **window))
    cases.check(tmp_path)


def test_half_precision_rows(tmp_path: Path) -> None:
    """Squares of some hundreds are beyond float16, their mean and root are not."""
    cases = Cases()
    x = cases.input(4, 300, dtype="float16")
    scale, bias = cases.input(300, dtype="float16"), cases.input(300, dtype="float16")
    big = emit("mul", x, constant(np.array(100, "float16")))
    cases.add("norm", emit("layer_norm", big, scale, bias, axis=1, epsilon=1e-5))
    thrice = emit("mul", emit("abs", big), constant(np.array(3, "float16")))
    cases.add("mean", emit("reduce_mean", thrice, axes=(1,), keepdims=False))
    for op in ("softmax", "log_softmax"):
        for axis in (0, 1):
            cases.add(f"{op}{axis}", emit(op, x, axis=axis))
    cases.check(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_scalars(tmp_path: Path, dtype: str) -> None:
    """Tensors of rank 0 as inputs, outputs and between kernels."""
    cases = Cases()
    x, y, v = cases.input(dtype=dtype), cases.input(dtype=dtype), cases.input(5, dtype=dtype)
    cases.add("add", emit("add", x, y))
    cases.add("cast", emit("cast", x, to=DType.INT64))
    cases.add("where", emit("where", emit("less", x, y), x, y))
    cases.add("reduced", emit("reduce_sum", x, axes=(), keepdims=False))
    cases.add("no_axes", emit("reduce_max", v, axes=(), keepdims=False))
    total = emit("reduce_sum", emit("mul", v, v), axes=(0,), keepdims=False)
    cases.add("total", emit("add", total, x))
    cases.add("arg_max", emit("arg_max", v, axis=0, keepdims=False))
    cases.add("vector", emit("add", v, x))
    cases.add("broadcast", emit("broadcast_to", x, shape=(3, 4)))
    cases.add("square", emit("neg", emit("reshape", x, shape=(1, 1))))
    cases.add("back", emit("neg", emit("reshape", cases.input(1, 1, dtype=dtype), shape=())))
    cases.add("gather", emit("gather", v, constant(np.array(-2)), axis=0))
    cases.add("transpose", emit("transpose", emit("neg", x), perm=()))
    cases.add("constant", constant(np.array(3, dtype)))
    cases.check(tmp_path)


def test_nothing_moves(tmp_path: Path) -> None:
    """Dimensions of size 0: kernels that write nothing are not called."""
    cases = Cases()
    empty, x = cases.input(2, 0, 8), cases.input(2, 3, 8)
    flat = emit("reshape", cases.input(2, 8, 0), shape=(2, 0, 8))
    cases.add("cache", emit("concat", empty, x, axis=1))
    cases.add("fused", emit("concat", emit("exp", empty), emit("neg", x), flat, axis=1))
    cases.add("still_empty", emit("concat", empty, empty, axis=1))
    cases.add("unary", emit("neg", empty))
    cases.add("broadcast", emit("add", empty, cases.input(1, 1, 8)))
    cases.add("pad", emit("pad", empty, before=(0, 1, 0), after=(0, 2, 0), value=1.5))
    bounds = {"starts": (0, 1, 0), "stops": (2, 1, 8), "steps": (1, 1, 1)}
    cases.add("slice", emit("slice", emit("neg", x), **bounds))
    cases.add("gather", emit("gather", x, cases.input(0, dtype="int64"), axis=0))
    cases.add("constant", constant(np.zeros((0, 3), "float32")))
    cases.check(tmp_path)


def test_reductions_of_nothing(tmp_path: Path) -> None:
    cases = Cases()
    empty = cases.input(2, 0, 8)
    for kind in ("sum", "max", "min", "prod", "mean"):
        for axes in ((1,), (0, 1, 2), (0,)):
            y = emit("relu", emit(f"reduce_{kind}", empty, axes=axes, keepdims=False))
            cases.add(f"{kind}{axes}", y)
    product = emit("matmul", cases.input(3, 0), cases.input(0, 5))
    cases.add("epilogue", emit("add", product, cases.input(5)))
    cases.add("no_rows", emit("matmul", cases.input(0, 7), cases.input(7, 5)))
    cases.add("no_columns", emit("matmul", cases.input(4, 7), cases.input(7, 0)))
    for op in ("softmax", "log_softmax"):
        cases.add(op, emit(op, empty, axis=1))
    weights = cases.input(8), cases.input(8)
    cases.add("norm", emit("layer_norm", empty, *weights, axis=2, epsilon=1e-5))
    cases.add("arg_max", emit("arg_max", empty, axis=2, keepdims=True))
    cases.check(tmp_path)


def test_emitters_of_nothing(tmp_path: Path) -> None:
    cases = Cases()
    empty, x, n = cases.input(0, 8), cases.input(5, 8), 8
    column = cases.input(0, 8, dtype="int64")
    cases.add("elements", emit("scatter_elements", x, column, empty, axis=0, reduction="add"))
    rows = cases.input(0, 1, dtype="int64")
    cases.add("nd", emit("scatter_nd", x, rows, empty, reduction="none"))
    cases.add("cumsum", emit("cumsum", empty, axis=0))
    for source, k in ((empty, 3), (x, 0)):
        for result in make_node("top_k", [source], {"k": k, "axis": 1, "largest": True}).outputs:
            cases.add(f"top_{k}_{result.index}", result)
    state = cases.input(2, n), cases.input(2, n)
    gates = [cases.input(0, 2, 4 * n), cases.input(4 * n, n), *state, cases.input(3 * n)]
    for result in make_node("lstm", gates, {"reverse": False}).outputs:
        cases.add(f"no_steps{result.index}", result)
    gates = [cases.input(3, 0, n), cases.input(n, n), cases.input(0, n)]
    for result in make_node("rnn", gates, {}).outputs:
        cases.add(f"no_batch{result.index}", result)
    cases.check(tmp_path)
