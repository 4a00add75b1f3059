"""Activations as compiled: every element type, and where exp overflows or the result is tiny."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit
from tests.targets.compiled import Cases, run_compiled

ACTIVATIONS = ("hard_swish", "mish", "silu", "softplus")


def _all(cases: Cases, *shape: int, dtype: str = "float32") -> None:
    x = cases.input(*shape, dtype=dtype)
    for name in ACTIVATIONS:
        cases.add(name, emit(name, x))
    for form in ("none", "tanh"):
        cases.add(f"gelu_{form}", emit("gelu", x, approximate=form))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_activations(tmp_path: Path, dtype: str) -> None:
    cases = Cases()
    _all(cases, 5, 48, dtype=dtype)
    cases.check(tmp_path)


def test_activations_of_extremes(tmp_path: Path) -> None:
    """Relative errors, where the tolerance by the largest element would hide them."""
    cases = Cases()
    _all(cases, 64)
    wide = np.concatenate([np.linspace(-80, -5, 48), [88, 90, 1000, 3e38], [0] * 12])
    x = wide.astype(np.float32)
    graph = cases.graph()
    found = run_compiled(graph, {"x0": x}, tmp_path)
    wide = x[:51].astype(np.float64)
    with np.errstate(over="ignore"):
        softplus = np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
        exact = {"softplus": softplus, "mish": wide * np.tanh(softplus)}
    exact["silu"] = wide / (1 + np.exp(-wide))
    for name, expected in exact.items():
        np.testing.assert_allclose(found[name][:51], expected, rtol=2e-6, err_msg=name)
    for name, result in found.items():
        assert result[51] == np.float32(3e38), name
        assert np.isfinite(result).all(), name
