"""Real models: the zoo at its reference inputs, and the topologies in the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import compare

from planish.ir.errors import UnsupportedModel
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.verifier import verify
from tests.zoo.models import STORED, zoo_model

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


@pytest.mark.zoo
@pytest.mark.parametrize("name", STORED)
def test_zoo_model(name: str, tmp_path: Path):
    model = zoo_model(name, tmp_path)
    shapes = {key: array.shape for key, array in model.inputs.items()}
    graph = import_model(model.path, shapes=shapes)
    verify(graph)
    with np.errstate(all="ignore"):
        found = evaluate(graph, model.inputs)
    compare({key: found[key] for key in model.outputs}, model.outputs, model.floors)


@pytest.mark.zoo
def test_dynamic_dimensions_stay_symbolic(tmp_path: Path):
    model = zoo_model("romanizer_encoder", tmp_path)
    graph = import_model(model.path, dynamic=True)
    assert str(graph.outputs[0].type) == "float32[batch, src_len, 256]"
    compare(evaluate(graph, model.inputs), {k: model.outputs[k] for k in graph.output_names})


@pytest.mark.zoo
def test_all_foreign_ops_are_listed(tmp_path: Path):
    model = zoo_model("tashkeel_bilstm_int8", tmp_path)
    shapes = {key: array.shape for key, array in model.inputs.items()}
    with pytest.raises(UnsupportedModel, match="3 parts") as error:
        import_model(model.path, shapes=shapes)
    for name in ("/lstm/LSTM_quant", "/lstm/LSTM_1_quant", "/lstm/LSTM_2_quant"):
        assert f"node '{name}' (com.microsoft.DynamicQuantizeLSTM)" in str(error.value)


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_model(path: Path):
    graph = import_model(path)
    declared = onnx.load(path).graph.output[0]
    shape = tuple(dim.dim_value for dim in declared.type.tensor_type.shape.dim)
    assert graph.output_names == (declared.name,)
    assert graph.outputs[0].type.shape == shape


def test_all_nine_light_models_are_there():
    assert len(LIGHT) == 9
