"""planish against a peer on one model: outputs are compared, refusals are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import planish
from planish.bench.contest import Contest, Course, compete
from planish.bench.turns import EngineFailed
from tests.compiler.small_models import embedding, perceptron

pytest.importorskip("onnxruntime", reason="the peer of these tests")

QUICK = Course(threads=1, rounds=2, seconds=0.01)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled perceptron; its model lies beside it."""
    folder = tmp_path_factory.mktemp("contest")
    perceptron(folder / "small.onnx")
    planish.compile(folder / "small.onnx", folder / "out", verify=False)
    return folder / "out"


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    """Inputs of the perceptron."""
    return {"x": np.random.default_rng(5).standard_normal((2, 12)).astype("f4")}


def race(model: Path, artefact: Path, inputs: dict[str, np.ndarray], scratch: Path) -> Contest:
    """Against onnxruntime."""
    return compete(model, artefact, inputs, ["onnxruntime"], QUICK, scratch)


def test_engines_are_timed_and_agree(
    artefact: Path, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = race(artefact.parent / "small.onnx", artefact, inputs, tmp_path)
    assert list(found.timings) == ["planish", "onnxruntime"]
    assert all(timing.median > 0 and timing.spread >= 0 for timing in found.timings.values())
    assert found.timings["planish"].speed == 1
    assert not found.refused
    difference = found.differences("onnxruntime")["y"]
    assert difference.ok
    assert found.outputs["planish"]["y"].any()


def test_another_model_is_out_of_tolerance(
    artefact: Path, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    other = perceptron(tmp_path / "other.onnx", op="Tanh")
    difference = race(other, artefact, inputs, tmp_path).differences("onnxruntime")["y"]
    assert not difference.ok
    assert "out of tolerance" in difference.reason


def test_a_peer_that_refuses_is_told_and_left_out(
    artefact: Path, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_text("no model")
    found = race(tmp_path / "broken.onnx", artefact, inputs, tmp_path)
    assert list(found.timings) == ["planish"]
    assert "broken.onnx" in found.refused["onnxruntime"]


def test_planish_that_refuses_is_an_error(
    artefact: Path, inputs: dict[str, np.ndarray], tmp_path: Path
) -> None:
    wrong = {"x": inputs["x"][:1]}
    with pytest.raises(EngineFailed, match=r"TensorError: input 'x': expected float32 \[2, 12\]"):
        race(artefact.parent / "small.onnx", artefact, wrong, tmp_path)


def test_openvino_takes_integers_and_gives_outputs_by_name(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the peer of this test")
    model = embedding(tmp_path / "lookup.onnx")
    planish.compile(model, tmp_path / "out", verify=False)
    ids = {"ids": np.array([3, 0, 10, 7, 7, 1])}
    found = compete(model, tmp_path / "out", ids, ["openvino"], QUICK, tmp_path)
    assert not found.refused
    assert {name: d.ok for name, d in found.differences("openvino").items()} == {
        "rows": True,
        "sum": True,
    }
