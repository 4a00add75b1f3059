"""The attention of a decoder as exporters write it: rotary embeddings, grouped heads, masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from random_graphs import TARGET, assert_same_results

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.types import DType, tensor
from planish.passes.fold_constants import fold_constants
from planish.passes.merge_siblings import merge_siblings
from planish.passes.pass_ import Step
from planish.passes.pipeline import run_pipeline
from planish.passes.recognize_attention import recognize_attention
from planish.passes.recognize_rope import recognize_rope
from planish.passes.simplify import simplify

HEADS, KEY_HEADS, DEPTH, WIDTH = 4, 2, 8, 32
STEPS = (
    Step(fold_constants, "as in the pipeline"),
    Step(simplify, "as in the pipeline"),
    Step(recognize_rope, "as in the pipeline"),
    Step(recognize_attention, "as in the pipeline"),
)
LEAST = float(np.finfo("float32").min)


def _number(value: float) -> Value:
    return constant(np.float32(value))


def _ranges(rows: int) -> tuple[Value, Value]:
    """Keys as a row, queries as a column."""
    positions = constant(np.arange(rows))
    keys = emit("reshape", positions, shape=(1, rows))
    return keys, emit("reshape", positions, shape=(rows, 1))


def _selected(scores: Value, rows: int) -> Value:
    return emit("where", emit("less_equal", *_ranges(rows)), scores, _number(-np.inf))


def _filled(scores: Value, rows: int) -> Value:
    seen = emit("broadcast_to", emit("less_equal", *_ranges(rows)), shape=(1, 1, rows, rows))
    return emit("where", emit("not", seen), _number(LEAST), scores)


def _added(scores: Value, rows: int) -> Value:
    hidden = emit("cast", emit("greater", *_ranges(rows)), to=DType.FLOAT32)
    return emit("add", scores, emit("mul", hidden, _number(LEAST)))


def _projection(x: Value, heads: int, seed: int) -> Value:
    weights = np.random.default_rng(seed).standard_normal((WIDTH, heads * DEPTH)) * 0.3
    rows = x.type.static_shape[1]
    y = emit("matmul", x, constant(weights.astype("float32")))
    split = emit("reshape", y, shape=(1, rows, heads, DEPTH))
    return emit("transpose", split, perm=(0, 2, 1, 3))


def _part(x: Value, start: int, stop: int) -> Value:
    shape = x.type.static_shape
    starts, stops = (0, 0, 0, start), (*shape[:3], stop)
    return emit("slice", x, starts=starts, stops=stops, steps=(1, 1, 1, 1))


def _turned(x: Value, cos: Value, sin: Value) -> Value:
    half = DEPTH // 2
    quarter = emit("concat", emit("neg", _part(x, half, DEPTH)), _part(x, 0, half), axis=3)
    return emit("add", emit("mul", x, cos), emit("mul", quarter, sin))


def _repeated(x: Value, rows: int) -> Value:
    grouped = emit("reshape", x, shape=(1, KEY_HEADS, 1, rows, DEPTH))
    wide = emit("broadcast_to", grouped, shape=(1, KEY_HEADS, HEADS // KEY_HEADS, rows, DEPTH))
    return emit("reshape", wide, shape=(1, HEADS, rows, DEPTH))


def _decoder(rows: int, masked: Callable[[Value, int], Value], *more: Input) -> Graph:
    x = Input(tensor("float32", (1, rows, WIDTH)), "x")
    positions = Input(tensor("float32", (1, rows, 1)), "positions")
    angles = emit("mul", positions, constant((10.0 ** -np.arange(DEPTH // 2)).astype("float32")))
    both = emit("concat", angles, angles, axis=2)
    cos, sin = (emit("reshape", emit(f, both), shape=(1, 1, rows, DEPTH)) for f in ("cos", "sin"))
    q = _turned(_projection(x, HEADS, 1), cos, sin)
    k = _repeated(_turned(_projection(x, KEY_HEADS, 2), cos, sin), rows)
    v = _repeated(_projection(x, KEY_HEADS, 3), rows)
    product = emit("matmul", q, emit("transpose", k, perm=(0, 1, 3, 2)))
    scores = masked(emit("mul", product, _number(DEPTH**-0.5)), rows)
    y = emit("transpose", emit("matmul", emit("softmax", scores, axis=3), v), perm=(0, 2, 1, 3))
    flat = emit("reshape", y, shape=(1, rows, HEADS * DEPTH))
    return Graph((x, positions, *more), (flat,))


def _attention_of(graph: Graph) -> Node:
    """The attention that all became; nothing is moved in memory around it."""
    after = run_pipeline(graph, TARGET, STEPS)
    assert_same_results(graph, after, rtol=1e-5)
    ops = [node.op for node in after.nodes]
    assert ops.count("rotary_embedding") == 2
    assert not {"transpose", "softmax", "broadcast_to", "neg"} & set(ops)
    (found,) = (node for node in after.nodes if node.op == "attention")
    assert found.attrs["group"] == HEADS // KEY_HEADS
    return found


@pytest.mark.parametrize("masked", [_selected, _filled, _added])
@pytest.mark.parametrize("rows", [6, 300])
def test_causal_attention_over_turned_grouped_heads(
    masked: Callable[[Value, int], Value], rows: int
) -> None:
    """Masks of 300 rows are too large a multiple of the ranges to be folded before."""
    found = _attention_of(_decoder(rows, masked))
    assert found.attrs["causal"] == 0
    assert len(found.inputs) == 3


def test_projections_are_one_product_whose_heads_are_read_where_they_lie() -> None:
    graph = _decoder(6, _selected)
    merging = (
        *STEPS,
        Step(merge_siblings, "as in the pipeline"),
        Step(recognize_rope, "as in the pipeline"),
        Step(recognize_attention, "as in the pipeline"),
    )
    after = run_pipeline(graph, TARGET, merging)
    assert_same_results(graph, after, rtol=1e-5)
    assert [node.op for node in after.nodes].count("matmul") == 1
    for node in after.nodes:
        if node.op == "slice":  # of whole heads
            assert node.output.type.shape[-1] in (DEPTH, DEPTH // 2)


@pytest.mark.parametrize("hidden", [-np.inf, LEAST])
def test_padding_beside_a_causal_mask(hidden: float) -> None:
    """-inf comes apart; the least number makes a row that sees nothing the mean of all keys."""
    pad = Input(tensor("bool", (1, 6)), "pad")

    def masked(scores: Value, rows: int) -> Value:
        unpadded = emit("reshape", pad, shape=(1, 1, 1, rows))
        seen = emit("and", emit("less_equal", *_ranges(rows)), unpadded)
        return emit("add", scores, emit("where", seen, _number(0.0), _number(hidden)))

    found = _attention_of(_decoder(6, masked, pad))
    (mask,) = found.inputs[3:]
    apart = hidden == -np.inf
    assert found.attrs["causal"] == (0 if apart else None)
    assert mask.type.shape == (1, 1, 1 if apart else 6, 6)
