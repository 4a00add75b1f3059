"""Digits of kernels that permute."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Value
from planish.ir.reference import evaluate
from planish.ir.types import tensor
from planish.passes.local.permutation import Digit, permutation, turned


def _input(*shape: int) -> Input:
    return Input(tensor("int32", shape), "x")


def _digits(value: Value, x: Input) -> tuple[Digit, ...] | None:
    return permutation(Graph((x,), (value,)))


IMAGE, BLOCKS = _input(2, 48, 7, 5), _input(2, 3, 7, 5, 16)
HEADS = _input(2, 9, 4 * 8)
PERMUTED = {
    "channels_last": (IMAGE, emit("transpose", IMAGE, perm=(0, 2, 3, 1)), 3),
    "pack": (IMAGE, emit("pack", IMAGE, axis=1, block=16), 3),
    "unpack": (BLOCKS, emit("unpack", BLOCKS, axis=1, block=16, size=48), 3),
    "heads": (
        HEADS,
        emit("transpose", emit("reshape", HEADS, shape=(2, 9, 4, 8)), perm=(0, 2, 3, 1)),
        3,
    ),
    "heads_kept": (
        HEADS,
        emit("transpose", emit("reshape", HEADS, shape=(2, 9, 4, 8)), perm=(0, 2, 1, 3)),
        4,
    ),
    "same": (IMAGE, emit("reshape", IMAGE, shape=(96, 35)), 1),
    "unit_axes": (IMAGE, emit("reshape", IMAGE, shape=(1, 2, 48, 1, 35)), 1),
}


@pytest.mark.parametrize("name", PERMUTED)
def test_digits_say_where_each_element_comes_from(name: str) -> None:
    x, value, count = PERMUTED[name]
    digits = _digits(value, x)
    assert digits is not None
    assert len(digits) == count
    source = np.arange(x.type.elements, dtype="int32")
    (expected,) = evaluate(
        Graph((x,), (value,)), {"x": source.reshape(x.type.static_shape)}
    ).values()
    read = np.zeros((), int)
    written = np.zeros((), int)
    for digit in digits:
        steps = np.arange(digit.extent)
        read = read[..., None] + steps * digit.read
        written = written[..., None] + steps * digit.written
    np.testing.assert_array_equal(written.reshape(-1), source)
    np.testing.assert_array_equal(source[read].reshape(-1), expected.reshape(-1))


def test_the_turned_digit() -> None:
    found = {name: _digits(value, x) for name, (x, value, _) in PERMUTED.items()}
    column = {name: turned(digits) for name, digits in found.items() if digits}
    assert column["channels_last"] == Digit(35, read=1, written=48)
    assert column["unpack"] == Digit(16, read=1, written=35)
    assert column["heads"] == Digit(32, read=1, written=9)
    assert column["heads_kept"] is None
    assert column["same"] is None


def test_what_is_no_permutation() -> None:
    x = _input(2, 10, 5)
    for value in (
        emit("neg", emit("transpose", x, perm=(2, 0, 1))),
        emit("pack", x, axis=1, block=8),  # filled up
        emit("slice", x, starts=(0, 0, 0), stops=(2, 10, 5), steps=(1, 2, 1)),
        emit("pad", emit("transpose", x, perm=(2, 0, 1)), before=(0, 0, 1), after=(0, 0, 0)),
        emit("reshape", emit("transpose", x, perm=(2, 1, 0)), shape=(4, 25)),
    ):
        assert _digits(value, x) is None
