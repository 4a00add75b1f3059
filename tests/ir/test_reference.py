"""Evaluating whole graphs with numpy: inputs, symbols, lifetimes, regions."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

from planish.ir import reference
from planish.ir.builder import emit, make_node
from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Graph, Input, constant
from planish.ir.reference import evaluate
from planish.ir.types import tensor

F32 = np.float32


def test_by_name_and_by_input(rng):
    x, y = Input(tensor("float32", (3, 4)), "x"), Input(tensor("float32", (4,)), "y")
    total = emit("add", emit("mul", x, y), constant(F32(2)))
    graph = Graph((x, y), (total, x), ("total", "same"))
    a, b = rng.standard_normal((3, 4), F32), rng.standard_normal(4, F32)
    found = evaluate(graph, {"x": a, "y": b})
    assert list(found) == ["total", "same"]
    np.testing.assert_array_equal(found["total"], a * b + 2)
    np.testing.assert_array_equal(found["same"], a)
    np.testing.assert_array_equal(evaluate(graph, {x: a, y: b})["total"], a * b + 2)


def test_symbols_come_from_the_inputs(rng):
    n = Dim.symbol("batch size", 1, 8)
    x = Input(tensor("float32", (n, 2, 3)), "x")
    y = Input(tensor("float32", (2 * n, 3)), "y")
    flat = emit("reshape", x, shape=(2 * n, 3))
    graph = Graph((x, y), (emit("add", flat, y),), ("z",))
    a, b = rng.standard_normal((4, 2, 3), F32), rng.standard_normal((8, 3), F32)
    np.testing.assert_array_equal(evaluate(graph, {"x": a, "y": b})["z"], a.reshape(8, 3) + b)
    with pytest.raises(
        InvalidGraph, match=r"input 'y' is .*got float32\[7, 3\] where batch size = 4"
    ):
        evaluate(graph, {"x": a, "y": b[:7]})
    with pytest.raises(InvalidGraph, match=r"dimension 'batch size' = 9 is outside 1\.\.8"):
        evaluate(graph, {"x": np.zeros((9, 2, 3), F32), "y": b})


def test_wrong_inputs():
    x = Input(tensor("float32", (3,)), "x")
    graph = Graph((x,), (emit("neg", x),), ("y",))
    with pytest.raises(InvalidGraph, match=r"takes the inputs \(x\), got \(z\)"):
        evaluate(graph, {"z": np.ones(3, F32)})
    with pytest.raises(InvalidGraph, match=r"input 'x' is float32\[3\], got float64\[3\]"):
        evaluate(graph, {"x": np.ones(3)})
    with pytest.raises(InvalidGraph, match=r"input 'x' is float32\[3\], got float32\[4\]"):
        evaluate(graph, {"x": np.ones(4, F32)})


def test_errors_name_the_node():
    x = Input(tensor("int64", (1,)), "x")
    node = make_node("gather", [constant(np.ones(3)), x], {"axis": 0}, provenance=["/emb/Gather"])
    graph = Graph((x,), node.outputs, ("y",))
    with pytest.raises(
        InvalidGraph, match=r"gather .from '/emb/Gather'.: index 7 lies outside axis 0"
    ):
        evaluate(graph, {"x": np.array([7])})


def test_values_are_freed_after_their_last_use(monkeypatch):
    x = Input(tensor("float32", (10,)), "x")
    value = x
    for _ in range(20):
        value = emit("add", value, x)
    alive: list[weakref.ref] = []
    most = 0
    run_node = reference.run_node

    def watched(*args):
        nonlocal most
        results = run_node(*args)
        alive.extend(map(weakref.ref, results))
        gc.collect()
        most = max(most, sum(array() is not None for array in alive))
        return results

    monkeypatch.setattr(reference, "run_node", watched)
    found = evaluate(Graph((x,), (value,), ("y",)), {"x": np.ones(10, F32)})
    np.testing.assert_array_equal(found["y"], np.full(10, 21, F32))
    assert most <= 3


def test_a_deep_graph_needs_no_recursion():
    x = Input(tensor("float32", ()), "x")
    value = x
    for _ in range(20_000):
        value = emit("neg", value)
    assert evaluate(Graph((x,), (value,), ("y",)), {"x": F32(3)})["y"] == 3


def test_a_resnet_block_is_quick(rng):
    x = Input(tensor("float32", (1, 64, 56, 56)), "x")
    attrs = {"strides": (1, 1), "dilations": (1, 1), "groups": 1}
    w = constant(rng.standard_normal((64, 64, 3, 3), F32))
    y = emit("relu", emit("conv", x, w, **attrs, before=(1, 1), after=(1, 1)))
    data = rng.standard_normal((1, 64, 56, 56), F32)
    start = time.perf_counter()
    evaluate(Graph((x,), (y,), ("y",)), {"x": data})
    assert time.perf_counter() - start < 2  # 20 ms; naive loops take minutes


def test_if(rng):
    condition, x = Input(tensor("bool", ()), "c"), Input(tensor("float32", (3,)), "x")
    branches = []
    for op in ("neg", "exp"):
        inner = Input(x.type, "inner")
        branches.append(Graph((inner,), (emit(op, inner),), ("y",), op))
    node = make_node("if", [condition, x], regions=branches)
    graph = Graph((condition, x), node.outputs, ("y",))
    a = rng.standard_normal(3, F32)
    np.testing.assert_array_equal(evaluate(graph, {"c": True, "x": a})["y"], -a)
    np.testing.assert_array_equal(evaluate(graph, {"c": False, "x": a})["y"], np.exp(a))


def counting_loop(trips):
    """state doubles and is collected, plus a captured step, while it is below 100."""
    iteration, going = Input(tensor("int64", ()), "i"), Input(tensor("bool", ()), "c")
    state, step = Input(tensor("int64", ()), "s"), Input(tensor("int64", ()), "k")
    doubled = emit("add", emit("add", state, state), step)
    more = emit("less", doubled, constant(np.int64(100)))
    collected = emit("add", state, iteration)
    body = Graph((iteration, going, state, step), (more, doubled, collected), name="body")
    outer = [Input(value.type, name) for name, value in zip("tcsk", body.inputs)]
    node = make_node("loop", outer, {"carried": 1, "trips": trips}, [body])
    return Graph(tuple(outer), node.outputs, ("last", "all"))


@pytest.mark.parametrize(
    ("trips", "going", "last", "collected"),
    [(3, True, 15, [1, 4, 9]), (100, True, 127, [1, 4, 9, 18, 35, 68]), (3, False, 1, [])],
)
def test_loop(trips, going, last, collected):
    graph = counting_loop(Dim.symbol("trips"))
    inputs = {"t": trips, "c": going, "s": 1, "k": 1}
    found = evaluate(graph, inputs)
    assert found["last"] == last
    assert found["all"].tolist() == collected


@pytest.mark.parametrize("reverse", [False, True])
def test_scan(reverse, rng):
    total, row = Input(tensor("float32", (2,)), "t"), Input(tensor("float32", (2,)), "r")
    after = emit("add", total, row)
    body = Graph((total, row), (after, emit("neg", after)), name="body")
    first, rows = Input(tensor("float32", (2,)), "first"), Input(tensor("float32", (2, 5)), "rows")
    attrs = {"carried": 1, "input_axes": (1,), "output_axes": (1,)}
    attrs |= {"input_reverse": (reverse,), "output_reverse": (False,)}
    node = make_node("scan", [first, rows], attrs, [body])
    a, b = rng.standard_normal(2, F32), rng.standard_normal((2, 5), F32)
    found = evaluate(Graph((first, rows), node.outputs, ("last", "all")), {"first": a, "rows": b})
    sums = a[:, None] + np.cumsum(b[:, ::-1] if reverse else b, axis=1)
    np.testing.assert_allclose(found["last"], sums[:, -1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["all"], -sums, rtol=1e-5, atol=1e-6)


def test_kernel(rng):
    inner = Input(tensor("float32", (4,)), "inner")
    body = Graph((inner,), (emit("relu", emit("neg", inner)),), ("y",), "body")
    x = Input(inner.type, "x")
    node = make_node("kernel", [x], {"name": "neg_relu"}, [body])
    a = rng.standard_normal(4, F32)
    found = evaluate(Graph((x,), node.outputs, ("y",)), {"x": a})
    np.testing.assert_array_equal(found["y"], np.maximum(-a, 0))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
