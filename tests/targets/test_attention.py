"""The attention kernel against the reference: odd sizes, masks, groups, strided operands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Result, Value, constant
from planish.ir.ops.attention import dense
from planish.ir.types import tensor
from tests.targets.compiled import check_against_reference, random_inputs, run_compiled

#: batch, heads, queries, keys, depth, value depth
SIZES = [
    (1, 2, 1, 77, 13, 13),
    (2, 3, 21, 21, 32, 32),
    (1, 1, 50, 3, 8, 5),
    (1, 4, 130, 70, 16, 24),
    (1, 1, 33, 3000, 4, 4),
]


def operand(name: str, *shape: int, dtype: str = "float32") -> Input:
    return Input(tensor(dtype, shape), name)


def attend(sizes: tuple[int, ...], *operands: Value, group: int = 1, **attrs: object) -> Result:
    b, h, m, n, d, dv = sizes
    plain = {
        "q": dense((b, h, m, d)),
        "k": dense((b, h // group, n, d)),
        "v": dense((b, h // group, n, dv)),
    }
    return emit("attention", *operands, sizes=sizes, group=group, **plain | attrs)


def inputs_for(sizes: tuple[int, ...], group: int = 1, dtype: str = "float32") -> list[Input]:
    b, h, m, n, d, dv = sizes
    shapes = {"q": (b, h, m, d), "k": (b, h // group, n, d), "v": (b, h // group, n, dv)}
    return [operand(name, *shape, dtype=dtype) for name, shape in shapes.items()]


def check(inputs: list[Input], outputs: dict[str, Value], folder: Path) -> None:
    graph = Graph(tuple(inputs), tuple(outputs.values()), tuple(outputs))
    check_against_reference(graph, random_inputs(graph, np.random.default_rng(5)), folder)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(sizes: tuple[int, ...], tmp_path: Path) -> None:
    b, h, m, n, _, _ = sizes
    inputs = inputs_for(sizes)
    rng = np.random.default_rng(2)
    scale = 1 / np.sqrt(sizes[4])
    outputs: dict[str, Value] = {"plain": attend(sizes, *inputs, scale=float(scale))}
    for shape in ((1, 1, 1, n), (b, 1, m, n), (1, h, m, 1)):
        mask = constant(rng.standard_normal(shape).astype("float32"))
        outputs[f"mask{shape}"] = attend(sizes, *inputs, mask)
    for causal in (0, 2, n - m):
        if causal >= 0:
            outputs[f"causal{causal}"] = attend(sizes, *inputs, causal=causal, heads_inside=True)
    check(inputs, outputs, tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_element_types(dtype: str, tmp_path: Path) -> None:
    sizes = (1, 2, 19, 40, 8, 8)
    inputs = inputs_for(sizes, dtype=dtype)
    check(inputs, {"y": attend(sizes, *inputs, scale=0.25, causal=21)}, tmp_path)


def test_grouped_heads(tmp_path: Path) -> None:
    sizes = (2, 6, 9, 18, 12, 12)
    inputs = inputs_for(sizes, group=3)
    check(inputs, {"y": attend(sizes, *inputs, group=3)}, tmp_path)


def test_packed_projection(tmp_path: Path) -> None:
    """q, k and v are columns of one matrix [batch, row, (q, k, v) of each head]."""
    sizes = b, h, m, _, d, _ = (2, 3, 10, 10, 8, 8)
    packed = operand("x", b, m, 3 * h * d)
    row = 3 * h * d
    views = {name: (i * h * d, m * row, d, row, 1) for i, name in enumerate("qkv")}
    y = attend(sizes, packed, packed, packed, heads_inside=True, **views)
    check([packed], {"y": y}, tmp_path)


@pytest.mark.parametrize("guarded", [False, True])
def test_rows_that_see_nothing(guarded: bool, tmp_path: Path) -> None:
    """They are NaN, or 0 if guarded; also where only later blocks of keys are seen."""
    sizes = (1, 1, 4, 5000, 4, 4)
    inputs = inputs_for(sizes)
    mask = np.zeros((1, 1, 4, 5000), "float32")
    mask[0, 0, 1] = -np.inf
    mask[0, 0, 2, :4990] = -np.inf
    mask[0, 0, 3] = np.finfo("float32").min
    graph = Graph(tuple(inputs), (attend(sizes, *inputs, constant(mask), guarded=guarded),), ("y",))
    given = random_inputs(graph, np.random.default_rng(1))
    found = run_compiled(graph, given, tmp_path)["y"]
    assert np.isnan(found[0, 0, 1]).all() != guarded
    if guarded:
        assert not found[0, 0, 1].any()
    check_against_reference(graph, given, tmp_path)
