"""Everything that `planish.compile` takes for a model, and a compilation without a folder."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import planish
from planish.ir.reference import evaluate
from planish.sources import onnx_model
from tests.compiler.small_models import perceptron


def test_in_memory_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    path = perceptron(tmp_path / "open.onnx", batch="batch")
    x = np.random.default_rng(1).standard_normal((3, 12)).astype("f4")
    model = planish.compile(path, example_inputs=x, threads=1)
    assert isinstance(model, planish.Model)
    assert not list(scratch.iterdir())
    assert model.threads == 1
    assert repr(model) == "<planish.Model open(x: float32[3, 12]) -> y: float32[3, 5]>"
    assert type(model.report) is planish.Compilation
    assert model.report.verification is not None
    assert model.report.verification.ok
    assert model.report.manifest.digest == model.manifest.digest
    wanted = evaluate(planish.import_model(path, dims={"batch": 3}), {"x": x})["y"]
    pickled = pickle.dumps(model)
    twins = (model, copy.copy(model), pickle.loads(pickled))
    for twin in twins:
        np.testing.assert_allclose(twin(x), wanted, rtol=1e-5, atol=1e-5)
    assert not list(scratch.iterdir())
    del model, twins, twin
    gc.collect()
    assert pickle.loads(pickled).report is None


def test_examples_tell_the_shapes_of_an_onnx_model(tmp_path: Path) -> None:
    path = perceptron(tmp_path / "open.onnx", batch="batch")
    x = np.zeros((4, 12), np.float32)
    for examples in (x, (x,), [x], {"x": x}):
        with onnx_model(path, examples) as given:
            assert given.shapes == {"x": (4, 12)}
            assert given.name == "open"
    for examples, message in (
        ((x, x), "example_inputs has 2 arrays, the inputs of the model are: x"),
        ({"x": 3}, "the example of input 'x' is an int, expected an array"),
        ({"X": x}, "the model has no such input"),
    ):
        with pytest.raises(planish.InvalidModel, match=re.escape(message)):
            planish.compile(path, example_inputs=examples)


@pytest.mark.parametrize("model", [None, 3, ["model.onnx"], object(), np.zeros(3)])
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises(planish.InvalidModel, match=r"a model is the path .*; got an? "):
        planish.compile(model)


def test_models_in_memory_with_weights_in_files(tmp_path: Path) -> None:
    inline = perceptron(tmp_path / "inline.onnx")
    stored = tmp_path / "stored"
    stored.mkdir()
    onnx.save_model(
        onnx.load(inline), stored / "model.onnx", save_as_external_data=True,
        location="weights.data", size_threshold=0,
    )  # fmt: skip
    proto = onnx.load(stored / "model.onnx", load_external_data=False)
    content = (stored / "model.onnx").read_bytes()
    x = np.random.default_rng(1).standard_normal((2, 12)).astype("f4")
    wanted = evaluate(planish.import_model(inline), {"x": x})["y"]
    for model in (proto, bytearray(content)):
        with pytest.raises(planish.InvalidModel, match=r"or the folder of that file as external_"):
            planish.compile(model)
        loaded = planish.compile(model, external_data=stored)
        np.testing.assert_allclose(loaded(x), wanted, rtol=1e-5, atol=1e-5)
        assert loaded.report is not None
        assert loaded.report.verification is not None
        assert "onnxruntime" in loaded.report.verification.reference
        assert "refused" not in loaded.report.verification.reference
    with pytest.raises(planish.InvalidModel, match="external_data is for a model in memory"):
        planish.compile(inline, external_data=stored)
