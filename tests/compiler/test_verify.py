"""Where a model amplifies rounding errors, an artefact is judged by the result in float64."""

from __future__ import annotations

import numpy as np
import pytest

from planish import verify as verification
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input
from planish.ir.types import tensor
from planish.verify import model_inputs, verify

X = Input(tensor("float32", (4, 8)), "x")
GRAPH = Graph((X,), (emit("add", X, X),), ("y",))


def _off(error: float, seed: int = 0) -> dict[str, np.ndarray]:
    """The right result, each element off by a random part of `error`."""
    exact = 2.0 * model_inputs(GRAPH, 0)["x"].astype(np.float64)
    noise = np.random.default_rng(seed).uniform(-error, error, exact.shape)
    return {"y": (exact + noise).astype(np.float32)}


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The error of a stand-in for onnxruntime."""
    error = [0.0]
    monkeypatch.setattr(
        verification, "_reference", lambda *given: ("onnxruntime 0", _off(error[0], seed=1))
    )
    return error


@pytest.mark.parametrize(
    ("own", "ours", "right"),
    [
        (0.0, 0.0, True),
        (0.0, 0.1, False),  # the reference is exact, so the artefact is wrong
        (0.04, 0.04, True),
        (0.04, 0.5, False),
        (10.0, 10.0, False),  # a reference that is all wrong excuses nothing
    ],
)
def test_an_inexact_reference_is_no_measure(
    reference: list[float], own: float, ours: float, right: bool
) -> None:
    reference[0] = own
    found = verify(lambda inputs: _off(ours), GRAPH, b"")
    assert found.ok == right
    assert ("float64" in found.reference) == (right and own > 0)
