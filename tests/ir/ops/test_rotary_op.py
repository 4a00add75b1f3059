"""The rotary embedding against complex numbers, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph
from planish.ir.ops import op_def
from planish.ir.types import tensor


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("width", [6, 8])
def test_pairs_are_complex_numbers_turned(interleaved, width, run_op, rng):
    x = rng.standard_normal((2, 3, 5, 8))
    angles = rng.uniform(-3, 3, (5, width // 2))
    cos, sin = np.cos(angles), np.sin(angles)
    found = run_op("rotary_embedding", x, cos, sin, width=width, interleaved=interleaved)
    rows = x[..., :width]
    if interleaved:
        a, b = rows[..., 0::2], rows[..., 1::2]
    else:
        a, b = np.split(rows, 2, axis=-1)
    turned = (a + 1j * b) * np.exp(1j * angles)
    halves = (turned.real, turned.imag)
    expected = (
        np.stack(halves, -1).reshape(rows.shape) if interleaved else np.concatenate(halves, -1)
    )
    np.testing.assert_allclose(found[..., :width], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found[..., width:], x[..., width:])


@pytest.mark.parametrize("interleaved", [False, True])
def test_whole_tables_need_not_be_equal_for_both_elements(interleaved, run_op, rng):
    x, cos, sin = rng.standard_normal((3, 4, 6))
    found = run_op("rotary_embedding", x, cos, sin, width=6, interleaved=interleaved)
    order = [1, 0, 3, 2, 5, 4] if interleaved else [3, 4, 5, 0, 1, 2]
    sign = np.array([-1, 1, -1, 1, -1, 1] if interleaved else [-1, -1, -1, 1, 1, 1])
    np.testing.assert_allclose(found, x * cos + x[:, order] * sign * sin, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "table", "width", "message"),
    [
        ((4, 6), (4, 3), 5, r"width must be even and in 2..6, got 5"),
        ((4, 6), (4, 3), 8, r"width must be even and in 2..6, got 8"),
        ((4, 6), (4, 2), 6, r"tables must have rows of 6 or 3 elements, got float32\[4, 2\]"),
        ((4, 6), (2, 4, 3), 6, r"table float32\[2, 4, 3\] does not broadcast to the rows of"),
    ],
)
def test_refusals(x, table, width, message):
    types = [tensor("float32", shape) for shape in (x, table, table)]
    with pytest.raises(InvalidGraph, match=message):
        op_def("rotary_embedding").infer(types, {"width": width, "interleaved": False})
