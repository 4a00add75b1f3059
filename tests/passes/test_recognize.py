"""Why the recognising passes, and the merging of siblings, leave places alone."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import TARGET, assert_same_results

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.types import tensor
from planish.passes.merge_siblings import merge_siblings
from planish.passes.pass_ import Pass
from planish.passes.recognize_activations import recognize_activations
from planish.passes.recognize_attention import recognize_attention
from planish.passes.recognize_norms import recognize_norms
from planish.passes.trace import recording


def _input(name: str, *shape: int) -> Input:
    return Input(tensor("float32", shape), name)


def _weights(*shape: int, seed: int = 0) -> Value:
    return constant(np.random.default_rng(seed).standard_normal(shape).astype("float32"))


def _refusals(run: Pass, graph: Graph) -> list[str]:
    with recording() as events:
        assert run(graph, TARGET) is graph
    return [event.refused for event in events if event.refused]


def _ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_columns_are_not_transposed_to_be_normalised() -> None:
    x = _input("x", 4, 6, 8)
    mean = emit("reduce_mean", emit("mul", x, x), axes=(1,), keepdims=True)
    deviation = emit("sqrt", emit("add", mean, constant(np.float32(1e-5))))
    graph = Graph((x,), (emit("div", x, deviation),))
    assert _refusals(recognize_norms, graph) == ["the normalised dimensions are not the last"]


def test_an_erf_that_someone_else_reads_is_not_computed_twice() -> None:
    x = _input("x", 4, 8)
    bent = emit("erf", emit("mul", x, constant(np.float32(0.70710677))))
    sum_ = emit("add", bent, constant(np.float32(1)))
    gelu = emit("mul", emit("mul", x, constant(np.float32(0.5))), sum_)
    graph = Graph((x,), (gelu, bent))
    assert _refusals(recognize_activations, graph) == ["erf has other users"]


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_factors_of_an_activation_are_as_exact_as_its_type(dtype: str) -> None:
    """0.7071 is 1/√2 in float16, not in float64."""
    x = Input(tensor(dtype, (4, 8)), "x")
    scalar = np.dtype(dtype).type
    bent = emit("erf", emit("mul", x, constant(np.asarray(scalar(0.7071)))))
    sum_ = emit("add", bent, constant(np.asarray(scalar(1))))
    graph = Graph((x,), (emit("mul", emit("mul", x, constant(np.asarray(scalar(0.5)))), sum_),))
    after = recognize_activations(graph, TARGET)
    assert (_ops(after) == ["gelu"]) == (dtype == "float16")


def test_arithmetic_of_any_length_is_read_in_bounded_time() -> None:
    x = value = _input("x", 4)
    for _ in range(3000):
        value = emit("mul", emit("add", value, x), x)  # type: ignore[assignment]
    graph = Graph((x,), (value,))
    assert recognize_activations(graph, TARGET) is graph


def _attention(x: Value, hidden: float) -> tuple[Value, Value]:
    """The weights, and the result, of attention of x to itself under a mask that replaces."""
    scores = emit("matmul", x, emit("transpose", x, perm=(0, 1, 3, 2)))
    seen = constant(np.tri(5, dtype=bool))
    masked = emit("where", seen, scores, constant(np.float32(hidden)))
    weights = emit("softmax", masked, axis=3)
    return weights, emit("matmul", weights, x)


def test_a_small_number_in_place_of_scores_is_no_mask() -> None:
    x = _input("x", 1, 2, 5, 8)
    graph = Graph((x,), (_attention(x, -1e4)[1],))
    (reason,) = _refusals(recognize_attention, graph)
    assert reason == "-10000.0 in place of a score is not as good as -infinity"


def test_weights_that_someone_else_reads_stay() -> None:
    x = _input("x", 1, 2, 5, 8)
    graph = Graph((x,), _attention(x, -np.inf))
    (reason,) = _refusals(recognize_attention, graph)
    assert reason == "the weights of softmax have other users"


def test_multi_head_attention_over_batched_products() -> None:
    """torch's form: heads are batches of rank-3 products; nothing is transposed in memory."""
    x = _input("x", 6, 2, 24)  # rows, batch, heads · depth

    def heads(value: Value) -> Value:
        return emit("transpose", emit("reshape", value, shape=(6, 6, 8)), perm=(1, 0, 2))

    q, k, v = (heads(emit(name, x)) for name in ("tanh", "neg", "abs"))
    scores = emit("matmul", q, emit("transpose", k, perm=(0, 2, 1)))
    result = emit("matmul", emit("softmax", scores, axis=2), v)
    back = emit("reshape", emit("transpose", result, perm=(1, 0, 2)), shape=(6, 2, 24))
    graph = Graph((x,), (back,))
    after = recognize_attention(graph, TARGET)
    assert_same_results(graph, after, rtol=1e-5)
    assert _ops(after).count("attention") == 1
    assert "matmul" not in _ops(after)
    (node,) = (node for node in after.nodes if node.op == "attention")
    assert [value.node.op for value in node.inputs] == ["tanh", "neg", "abs"]  # type: ignore[attr-defined]


def test_parts_that_must_be_copied_do_not_pay() -> None:
    x = _input("x", 16, 64)
    products = [emit("matmul", x, _weights(64, 32, seed=seed)) for seed in range(2)]
    graph = Graph((x,), tuple(emit("cumsum", y, axis=0, exclusive=False) for y in products))
    (reason,) = _refusals(merge_siblings, graph)
    assert reason == "copies of the parts cost as much as moving 139264 bytes, it saves 65536"


@pytest.mark.parametrize("extra", [False, True])
def test_attention_takes_its_projections_without_a_third_reader(extra: bool) -> None:
    """A further product of the same input stays by itself: its part would have to be copied."""
    x = _input("x", 1, 5, 16)
    q, k, v = (emit("matmul", x, _weights(16, 8, seed=seed)) for seed in range(3))
    row = (0, 40, 4, 8, 1)
    y = emit("attention", q, k, v, sizes=(1, 2, 5, 5, 4, 4), q=row, k=row, v=row)
    other = [emit("relu", emit("matmul", x, _weights(16, 8, seed=9)))] if extra else []
    graph = Graph((x,), (y, *other))
    after = recognize_attention(merge_siblings(graph, TARGET), TARGET)
    assert_same_results(graph, after, rtol=1e-5)
    assert _ops(after).count("matmul") == 1 + extra
    assert "slice" not in _ops(after)
