"""Gathers and scatters whose indices are computed: random expressions, and whatever reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit
from planish.ir.graph import Value, constant
from planish.ir.types import DType
from tests.targets.compiled import Cases

_WINDOW = {"before": (0, 1), "after": (0, 1), "dilations": (1, 1)}


class Indices:
    """Random integer expressions of one shape, for tensors of `n` elements along an axis."""

    def __init__(self, cases: Cases, rng: np.random.Generator, dtype: str) -> None:
        self.cases, self.rng, self.dtype = cases, rng, dtype

    def _literal(self) -> Value:
        return constant(np.array(self.rng.integers(-3, 4), self.dtype))

    def within(self, n: int, shape: tuple[int, ...], depth: int) -> Value:
        """Indices of an axis of n elements, counted from either end."""
        x = self.make(shape, depth)
        low, high = (constant(np.array(i, self.dtype)) for i in (-n, n - 1))
        rest = emit("mod", x, constant(np.array(n, self.dtype)), fmod=False)
        kinds: list[Callable[[], Value]] = [
            lambda: rest,
            lambda: emit("clip", x, low, high),
            lambda: emit("add", rest, low),
            lambda: emit("where", emit("equal", x, rest), rest, emit("sub", high, rest)),
            lambda: emit("neg", emit("minimum", emit("abs", x), high)),
        ]
        return kinds[self.rng.integers(len(kinds))]()

    def make(self, shape: tuple[int, ...], depth: int) -> Value:
        """An expression; its values are small, or large and negative."""
        if depth == 0:
            return self.cases.input(*shape, dtype=self.dtype)
        x = self.make(shape, depth - 1)
        kinds: list[Callable[[], Value]] = [
            lambda: emit("add", x, self._literal()),
            lambda: emit("sub", x, self.cases.input(*shape, dtype=self.dtype)),
            lambda: emit("add", emit("mul", x, x), self._literal()),
            lambda: emit("neg", x),
            lambda: emit("abs", x),
            lambda: emit("mod", x, constant(np.array(5, self.dtype)), fmod=False),
            lambda: emit("div", x, constant(np.array(2, self.dtype))),
            lambda: emit("maximum", x, emit("sub", self._literal(), x)),
            lambda: emit("clip", x, constant(np.array(-2, self.dtype)), self._literal()),
            lambda: emit("where", emit("less", x, self._literal()), emit("neg", x), x),
            lambda: emit("cast", emit("cast", x, to=DType.FLOAT32), to=DType(self.dtype)),
            lambda: self._of_gather(x),
            lambda: self._of_concat(x),
        ]
        return kinds[self.rng.integers(len(kinds))]()

    def _of_gather(self, x: Value) -> Value:
        table = self.cases.input(6, dtype=self.dtype)
        return emit("gather", table, emit("mod", x, constant(np.array(6, self.dtype))), axis=0)

    def _of_concat(self, x: Value) -> Value:
        whole = emit("concat", x, self.make(x.type.static_shape, 0), axis=0)
        extent = x.type.static_shape[0]
        starts = (extent // 2, *[0] * (x.type.rank - 1))
        stops = tuple(b + n for b, n in zip(starts, x.type.static_shape))
        return emit("slice", whole, starts=starts, stops=stops, steps=(1,) * x.type.rank)


def gathered(cases: Cases, rng: np.random.Generator, made: Indices) -> Value:
    """Rows of a table, sometimes of a single one, by one of the gathers: a tensor [5, 12]."""
    kind, n = rng.integers(4), int(rng.choice([1, 3, 7, 9]))
    if kind == 0:
        return emit("gather", cases.input(n, 12), made.within(n, (5,), 2), axis=0)
    if kind == 1:
        return emit("gather_elements", cases.input(n, 12), made.within(n, (5, 12), 2), axis=0)
    if kind == 2:
        starts = made.within(n, (5, 2), 2)
        return emit("gather_nd", cases.input(n, n, 12), starts, batch_dims=0)
    return emit("gather", cases.input(5, n), made.within(n, (12,), 2), axis=1)


def read(cases: Cases, rng: np.random.Generator, x: Value, made: Indices) -> Value:
    """Something that reads each element of x, often several times."""

    def other() -> Value:
        return emit("gather", cases.input(6, 12), made.within(6, (5,), 1), axis=0)

    def places() -> Value:
        return made.within(5, (2, 12), 2)

    kinds: list[Callable[[], Value]] = [
        lambda: x,
        lambda: emit("mul", x, emit("sigmoid", x)),
        lambda: emit("concat", x, emit("neg", x), axis=1),
        lambda: emit("pad", x, before=(1, 2), after=(0, 3), value=1),
        lambda: emit("pad", x, before=(1, 2), after=(0, 3), mode="reflect"),
        lambda: emit("transpose", x, perm=(1, 0)),
        lambda: emit("reshape", x, shape=(3, 4, 5)),
        lambda: emit("reduce_max", x, axes=(1,), keepdims=False),
        lambda: emit("reduce_sum", emit("exp", x), axes=(0,), keepdims=True),
        lambda: emit("softmax", x, axis=1),
        lambda: emit("matmul", x, cases.input(12, 3)),
        lambda: emit("gather", x, made.within(12, (4,), 1), axis=1),
        lambda: emit("arg_max", x, axis=1, keepdims=False, last=False),
        lambda: emit("add", emit("mul", x, x), other()),
        lambda: emit("pool", x, kind="max", window=(1, 3), strides=(1, 2), **_WINDOW),
        lambda: emit("scatter_elements", x, places(), cases.input(2, 12), axis=0, reduction="add"),
    ]
    return kinds[rng.integers(len(kinds))]()


def check_random(seed: int, count: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    cases = Cases()
    for number in range(count):
        made = Indices(cases, rng, str(rng.choice(["int32", "int64"])))
        cases.add(f"case{number}", read(cases, rng, gathered(cases, rng, made), made))
    cases.check(folder)


def test_random_indices(tmp_path: Path) -> None:
    check_random(5, 24, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_random_indices(seed: int, tmp_path: Path) -> None:
    check_random(100 + seed, 40, tmp_path)
