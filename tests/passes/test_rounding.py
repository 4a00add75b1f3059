"""What folds into constants keeps the digits of the model as written, in every float type."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from random_graphs import TARGET

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Input, Value, constant
from planish.ir.reference import evaluate
from planish.ir.types import DType, tensor
from planish.passes.fold_batch_norm import fold_batch_norm
from planish.passes.fold_constants import fold_constants
from planish.passes.fold_input_scale import fold_input_scale
from planish.passes.fold_scale import fold_scale
from planish.passes.pipeline import run_pipeline
from planish.passes.rounding import round_weights
from planish.passes.trace import recording

F16, F32, BF16 = np.dtype("float16"), np.dtype("float32"), np.dtype(ml_dtypes.bfloat16)
Make = Callable[[Value, np.ndarray, np.ndarray], Value]


def _number(data: object, dtype: np.dtype) -> Constant:
    with np.errstate(all="ignore"):
        return constant(np.asarray(data, np.float64).astype(dtype))


def _spatial(x: Value, w: Value, op: str) -> Value:
    attrs = {"strides": (1, 1), "dilations": (1, 1), "before": (0, 0), "after": (0, 0)}
    attrs |= {"output_padding": (0, 0)} if op == "conv_transpose" else {}
    return emit(op, x, w, groups=1, **attrs)


def _linear(x: Value, w: np.ndarray, op: str) -> Value:
    if op == "matmul":
        return emit("matmul", x, constant(w))
    shape = (w.shape[1], w.shape[0], 1, 1) if op == "conv" else (*w.shape, 1, 1)
    kernel = np.ascontiguousarray(w.T if op == "conv" else w).reshape(shape)
    return _spatial(x, constant(kernel), op)


def _graph(op: str, dtype: np.dtype, make: Callable[[Value], Value]) -> Graph:
    shape = (2, 16) if op == "matmul" else (1, 16, 2, 1)
    x = Input(tensor(DType.of(dtype), shape), "x")
    return Graph((x,), (make(x),), ("y",))


def _results(graph: Graph, size: float) -> tuple[np.ndarray, np.ndarray, float, list[str]]:
    """What a graph gives before and after the passes, its largest value, and the refusals."""
    (x,) = graph.inputs
    rng = np.random.default_rng(3)
    data = (rng.uniform(0.5, 1.5, x.type.static_shape) * size).astype(x.type.dtype.numpy)
    with recording() as events:
        after = run_pipeline(graph, TARGET)
    before, found = (evaluate(g, {"x": data})["y"].astype(np.float64) for g in (graph, after))
    refused = [event.refused for event in events if event.refused]
    return before, found, float(np.abs(before).max()), refused


#: dtype, weights, factor, data: the products are ordinary numbers, factor times weights are not.
EXTREME = [
    (F16, 1e-4, 1e-4, 3e4),
    (F16, 1e-4, 1e-3, 3e4),
    (F16, 3e-4, 3e-2, 1e3),
    (F16, 60.0, 3e3, 1e-3),
    (F32, 1e-30, 1e-20, 1e30),
    (F32, 1e-20, 1e-18, 1e30),
    (F32, 1e-25, 1e-17, 1e20),
    (F32, 1e20, 1e-25, 1.0),
    (BF16, 1e-30, 1e-10, 1e20),
    (BF16, 1e-20, 1e-25, 1e30),
]


@pytest.mark.parametrize("op", ["matmul", "conv", "conv_transpose"])
@pytest.mark.parametrize("place", ["before", "behind", "divided", "batch_norm"])
def test_factors_that_cost_weights_digits_stay(op: str, place: str) -> None:
    rng = np.random.default_rng(1)
    for dtype, weight, factor, size in EXTREME:
        w = (rng.uniform(0.2, 1.5, (16, 8)) * weight).astype(dtype)
        s = _number(factor, dtype)

        def make(x: Value, w: np.ndarray = w, s: Constant = s, f: float = factor) -> Value:
            if place == "before":
                return _linear(emit("mul", x, s), w, op)
            y = _linear(x, w, op)
            if place == "behind":
                return emit("mul", y, s)
            if place == "divided":
                return emit("div", y, _number(1 / f, w.dtype))
            shape = (int(y.type.shape[1]),)
            ones, zeros = np.ones(shape, w.dtype), np.zeros(shape, w.dtype)
            parameters = (np.full(shape, s.data), zeros, zeros, ones)
            return emit("batch_norm", y, *map(constant, parameters), epsilon=0.0)

        before, found, largest, _ = _results(_graph(op, dtype, make), size)
        limit = {F16: 2e-3, BF16: 2e-2, F32: 2e-6}[dtype]
        finite = np.isfinite(before)
        np.testing.assert_array_equal(np.isfinite(found)[~finite], False, f"{dtype} {factor}")
        error = np.abs(found - before)[finite].max(initial=0)
        assert error <= limit * largest or not finite.all(), f"{dtype} {weight} · {factor}"


@pytest.mark.parametrize("dtype", [F16, F32, BF16])
def test_ordinary_factors_fold(dtype: np.dtype) -> None:
    """Batch norms behind, and scales before and behind, convolutions of trained size."""
    rng = np.random.default_rng(5)
    w = rng.normal(0, 0.25, (16, 8)).astype(dtype)
    w[3, 2] = np.asarray(2e-5).astype(dtype)  # below the least normal number of float16

    def make(x: Value) -> Value:
        y = _linear(emit("mul", x, _number(0.25, dtype)), w, "conv")
        y = emit("add", y, _number(rng.normal(0, 1, (8, 1, 1)), dtype))
        scale, bias, mean, var = rng.uniform(0.05, 2, (4, 8))
        parameters = (_number(v, dtype) for v in (scale, bias, mean, var))
        return emit("mul", emit("batch_norm", y, *parameters, epsilon=1e-5), _number(0.3, dtype))

    graph = _graph("conv", dtype, make)
    for run in (fold_batch_norm, fold_input_scale, fold_scale):
        graph = run(graph, TARGET)
    assert [node.op for node in graph.nodes] == ["conv", "add"]


def test_each_folded_weight_is_its_product_rounded_once() -> None:
    rng = np.random.default_rng(7)
    for dtype in (F16, F32, BF16):
        w = (rng.standard_normal((16, 8)) * 0.1).astype(dtype)
        factor = np.exp(rng.uniform(-3, 3, 8))
        wide = w.astype(np.float64) * factor
        found = round_weights(wide, DType.of(dtype), ((0,), (1,)))
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, wide.astype(dtype))


def test_a_refusal_says_why() -> None:
    def make(x: Value) -> Value:
        return emit("mul", _linear(x, np.full((16, 8), 1e-4, F16), "matmul"), _number(1e-4, F16))

    *_, refused = _results(_graph("matmul", F16, make), 1.0)
    assert "a factor of 0.0001 changes what overflows or vanishes on the way" in refused


# --- sums and products of one value with several constants

MAGIC = 12582912.0
#: (x op c) op d …; the first numbers round, or overflow on the way.
CHAINS: tuple[tuple[tuple[str, float], ...], ...] = (
    (("add", MAGIC), ("sub", MAGIC)),
    (("sub", MAGIC), ("add", MAGIC)),
    (("add", MAGIC), ("add", -MAGIC)),
    (("sub", -MAGIC), ("sub", MAGIC)),
    (("add", MAGIC), ("add", 3 - MAGIC)),
    (("add", MAGIC), ("neg", 0), ("add", MAGIC)),
    (("mul", 3.0), ("add", MAGIC), ("mul", 3.0), ("sub", 3 * MAGIC)),
    (("mul", 2.0), ("add", MAGIC), ("sub", MAGIC), ("mul", 0.5)),
    (("add", 1e8), ("sub", 1e8)),
    (("add", 2.0**23), ("sub", 2.0**23 - 1), ("sub", 1)),
    (("mul", 1e30), ("mul", 1e-30)),
    (("mul", 1e-30), ("mul", 1e30)),
    (("mul", 1e20), ("mul", 1e20), ("mul", 1e-20)),
    (("div", 1e30), ("mul", 1e30)),
    (("mul", 1e-25), ("div", 1e-25)),
    (("mul", 1e-20), ("mul", 1e-20), ("mul", 1e20), ("mul", 1e20)),
)
DATA = np.array(
    [
        0.3,
        1.5,
        2.5,
        -0.6,
        1e9,
        -3e38,
        1e-20,
        0,
        -0.0,
        np.nan,
        np.inf,
        -np.inf,
        4e-39,
        7,
        1e15,
        -2.5,
    ],
    np.float32,
)


@pytest.mark.parametrize("shape", [(), (16,), (1, 16)])
@pytest.mark.parametrize("through", ["", "broadcast_to", "reshape", "where", "concat", "matmul"])
def test_constants_that_round_stay_apart(shape: tuple[int, ...], through: str) -> None:
    for chain in CHAINS:
        x = Input(tensor("float32", (2, 16)), "x")
        y: Value = x
        if through == "matmul":
            y = emit("matmul", x, constant(np.eye(16, dtype=np.float32)))
        for number, (op, c) in enumerate(chain):
            operand = constant(np.full(shape, c, np.float32))
            y = emit("neg", y) if op == "neg" else emit(op, y, operand)
            y = _moved(y, x, through) if number == 0 else y
        graph = Graph((x,), (y,), ("y",))
        data = np.stack([DATA, DATA[::-1]])
        if through == "matmul":
            data = np.where(np.isfinite(data), data, 1)  # 0 · inf
        expected = evaluate(graph, {"x": data})["y"]
        found = evaluate(run_pipeline(graph, TARGET), {"x": data})["y"]
        np.testing.assert_allclose(found, expected, 3e-7, 1e-37, err_msg=str(chain))


def _moved(y: Value, x: Value, through: str) -> Value:
    if through == "broadcast_to":
        return emit("broadcast_to", emit("reshape", y, shape=(1, 2, 16)), shape=(2, 2, 16))
    if through == "reshape":
        return emit("reshape", emit("reshape", y, shape=(32,)), shape=(2, 16))
    if through == "where":
        return emit("where", emit("is_nan", x), x, y)
    if through == "concat":
        return emit("concat", y, y, axis=0)
    return y


@pytest.mark.parametrize("chain", [CHAINS[0], CHAINS[1], CHAINS[5], CHAINS[6], CHAINS[7]])
def test_rounding_before_weights_stays(chain: tuple[tuple[str, float], ...]) -> None:
    """Nor do the weights take one addend of a pair: both would be as large as their difference."""
    x = Input(tensor("float32", (2, 16)), "x")
    y: Value = x
    for op, c in chain:
        y = emit("neg", y) if op == "neg" else emit(op, y, constant(np.float32(c)))
    w = np.random.default_rng(2).normal(0, 0.3, (16, 4)).astype(np.float32)
    graph = Graph((x,), (emit("matmul", y, constant(w)),), ("y",))
    data = np.random.default_rng(3).normal(0, 2, (2, 16)).astype(np.float32)
    expected = evaluate(graph, {"x": data})["y"]
    found = evaluate(run_pipeline(graph, TARGET), {"x": data})["y"]
    np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def test_constants_that_do_not_round_become_one() -> None:
    x = Input(tensor("float32", (3,)), "x")
    y = emit("add", emit("add", x, constant(np.float32(0.5))), constant(np.float32(2.25)))
    y = emit("mul", emit("mul", y, constant(np.float32(3))), constant(np.float32(1.5)))
    after = fold_scale(Graph((x,), (y,)), TARGET)
    assert [node.op for node in after.nodes] == ["add", "mul"]


# --- integers, which wrap around, and divisions by nothing


def _truncated(a: int, b: int) -> int:
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) if b else 0


def _exact(op: str, a: int, b: int, info: np.iinfo) -> int:
    """The result with Python's integers, wrapped: x / 0 and x mod 0 are 0, shifts saturate."""
    if op in ("shift_left", "shift_right"):
        far = not 0 <= b < info.bits
        result = (0 if op == "shift_left" or a >= 0 else -1) if far else a
        result = result if far else (a << b if op == "shift_left" else a >> b)
    elif op == "pow":
        inverse = (a if b % 2 else 1) if abs(a) == 1 else 0
        result = pow(a, b, 1 << info.bits) if b >= 0 else inverse
    else:
        table = {"div": _truncated(a, b), "mod": a % b if b else 0, "mul": a * b, "sub": a - b}
        result = table[op]
    result %= 1 << info.bits
    return result - (1 << info.bits) if info.min and result > info.max else result


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op", ["div", "mod", "pow", "mul", "sub", "shift_left", "shift_right"])
@pytest.mark.parametrize("name", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_folded_integers_wrap_as_machines_do(op: str, name: str) -> None:
    info = np.iinfo(name)
    known = sorted({0, 1, 2, 3, 7, 31, info.min, info.max, info.min + 1, info.bits, info.max // 2})
    numbers = [*known, *((-1, -2, -3) if info.min else ())]
    a, b = (np.array(side, name) for side in zip(*[(x, y) for x in numbers for y in numbers]))
    attrs = {"fmod": False} if op == "mod" else {}
    made = emit(op, constant(a), constant(b), **attrs)
    (found,) = fold_constants(Graph((), (made,), ("y",)), TARGET).outputs
    assert isinstance(found, Constant)
    expected = [_exact(op, int(x), int(y), info) for x, y in zip(a, b)]
    np.testing.assert_array_equal(found.data, np.array(expected, name))


@pytest.mark.filterwarnings("error")
def test_folded_numbers_that_are_no_integers() -> None:
    """NaN and what lies out of range fold without a warning; to 8 bits they wrap."""
    x = constant(np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 300.0], np.float32))
    outputs = [emit("cast", x, to=to) for to in (DType.INT32, DType.UINT8, DType.BOOL)]
    outputs += [emit("div", x, _number(0, F32)), emit("mod", x, _number(0, F32), fmod=True)]
    found = fold_constants(Graph((), tuple(outputs)), TARGET).outputs
    assert all(isinstance(value, Constant) for value in found)
    assert found[1].data[-1] == 300 - 256  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found[2].data, True)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(
        found[3].data,  # type: ignore[attr-defined]
        np.float32([np.nan, np.inf, -np.inf, np.inf, -np.inf, np.inf]),
    )
    assert np.isnan(found[4].data).all()  # type: ignore[attr-defined]
