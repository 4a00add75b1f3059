"""Real models: the zoo at its reference inputs, and the topologies in the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import ZOO, compare

from planish.ir.errors import UnsupportedModel
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.verifier import verify

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))

FLOAT_MODELS = [
    "basic_pitch",
    "dtln_1",
    "dtln_2",
    "magika_v3_3",
    "minilm_l6_int8w",
    "mobilenet_v2",
    "mtcnn_onet",
    "mtcnn_pnet",
    "mtcnn_rnet",
    "ppocr_cls",
    "ppocrv4_det",
    "romanizer_encoder",
    "shufflenet_v2_x1_0",
    "silero_vad_v6_static16k",
    "squeezenet1_1",
]


def reference(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and outputs of a zoo model; the test is skipped where the zoo is missing."""
    path = ZOO / name / "reference.npz"
    if not path.exists():
        pytest.skip(f"no model zoo at {ZOO}; set PLANISH_ZOO")
    arrays = dict(np.load(path))
    parts = ("in:", "out:")
    inputs, outputs = (
        {key[len(p) :].replace("|", "/"): a for key, a in arrays.items() if key.startswith(p)}
        for p in parts
    )
    return inputs, outputs


@pytest.mark.zoo
@pytest.mark.parametrize("name", FLOAT_MODELS)
def test_zoo_model(name: str):
    inputs, outputs = reference(name)
    shapes = {key: array.shape for key, array in inputs.items()}
    graph = import_model(ZOO / name / f"{name}.onnx", shapes=shapes)
    verify(graph)
    with np.errstate(all="ignore"):
        found = evaluate(graph, inputs)
    # onnxruntime itself moves by 2e-4 in basic_pitch between its optimisation levels
    worst = {k: float(np.abs(found[k].astype("f8") - outputs[k]).max()) for k in outputs}
    if name == "basic_pitch":
        assert max(worst.values()) < 5e-4, worst
    else:
        compare({k: found[k] for k in outputs}, outputs)


@pytest.mark.zoo
def test_dynamic_dimensions_stay_symbolic():
    inputs, outputs = reference("romanizer_encoder")
    graph = import_model(ZOO / "romanizer_encoder/romanizer_encoder.onnx", dynamic=True)
    assert str(graph.outputs[0].type) == "float32[batch, src_len, 256]"
    compare(evaluate(graph, inputs), {k: outputs[k] for k in graph.output_names})


@pytest.mark.zoo
def test_all_foreign_ops_are_listed():
    shapes = {key: array.shape for key, array in reference("tashkeel_bilstm_int8")[0].items()}
    with pytest.raises(UnsupportedModel, match="3 parts") as error:
        import_model(ZOO / "tashkeel_bilstm_int8/tashkeel_bilstm_int8.onnx", shapes=shapes)
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
