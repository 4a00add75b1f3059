"""Real data to verify on: checked, used, and telling the shapes that a model leaves open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import planish
from planish.cli.app import app
from planish.ir.onnx import import_model
from planish.verification.given import checked_inputs
from tests.compiler.small_models import embedding, perceptron


def test_given_inputs_are_a_run_of_their_own_and_fix_shapes(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "open.onnx", batch="batch")
    np.savez(tmp_path / "real.npz", x=np.full((3, 12), 0.25, "f4"))
    command = ["compile", model, "-o", tmp_path / "out", "--inputs", tmp_path / "real.npz"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    with planish.load(tmp_path / "out") as loaded:
        assert loaded.manifest.inputs[0].shape == (3, 12)
        runs = loaded.manifest.verify["runs"]
    assert [run["inputs"] for run in runs][:2] == ["random inputs", "the given inputs"]
    assert all(run["ok"] for run in runs)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "the given inputs lack 'x'"),
        ({"x": np.zeros((2, 12), "f4"), "z": np.zeros(1)}, "have 'z', which the model has not"),
        ({"x": np.zeros((2, 12))}, r"'x' is float32\[2, 12\], the given one is float64\[2, 12\]"),
        ({"x": np.zeros((12, 2), "f4")}, r"the given one is float32\[12, 2\]"),
    ],
)
def test_what_does_not_fit_is_told(given: dict[str, np.ndarray], told: str, tmp_path: Path) -> None:
    graph = import_model(perceptron(tmp_path / "small.onnx"))
    with pytest.raises(planish.InvalidModel, match=told):
        checked_inputs(graph, given)


@pytest.mark.parametrize("wrong", [11, -12])
def test_given_indices_point_into_their_tensor(wrong: int, tmp_path: Path) -> None:
    graph = import_model(embedding(tmp_path / "rows.onnx"))
    (ids,) = graph.inputs
    array = np.zeros(ids.type.static_shape, ids.type.dtype.numpy)
    assert checked_inputs(graph, {ids.name: array - 11})
    array.flat[0] = wrong
    with pytest.raises(planish.InvalidModel, match=f"holds {wrong} and points into a tensor of 11"):
        checked_inputs(graph, {ids.name: array})
