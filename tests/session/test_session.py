"""A script written for onnxruntime runs on planish, unchanged but for its import."""

from __future__ import annotations

import re
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import planish
from tests.compiler.small_models import embedding, perceptron, save

#: What a script does with a session; LIBRARY is the only word that changes.
SCRIPT = """
import numpy as np
import LIBRARY as ort

ort.set_default_logger_severity(3)
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
options.intra_op_num_threads = 1
options.log_severity_level = 3
assert "CPUExecutionProvider" in ort.get_available_providers()
session = ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
told = [(i.name, i.shape, i.type) for i in (*session.get_inputs(), *session.get_outputs())]
meta = session.get_modelmeta()
told += [session.get_providers(), ort.get_device(), session.get_overridable_initializers()]
told += [meta.producer_name, meta.graph_name, meta.description, meta.domain, meta.version]
told += [meta.graph_description, dict(meta.custom_metadata_map)]
names = [output.name for output in session.get_outputs()]
rng = np.random.default_rng(0)
dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
found = []
for batch in batches:
    feed = {}
    for entry in session.get_inputs():
        shape = [batch if isinstance(dim, str) else dim for dim in entry.shape]
        feed[entry.name] = rng.uniform(0, 5, shape).astype(dtypes[entry.type])
    results = session.run(None, feed, ort.RunOptions())
    assert isinstance(results, list)
    found += results
    found += session.run([], feed)
    found += session.run(names[::-1], feed)
    found += session.run(names[:1] * 2, {name: array.tolist() for name, array in feed.items()})
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feed.items()}
    found += [value.numpy() for value in session.run_with_ort_values(names, values)]
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    found += binding.copy_outputs_to_cpu()
    own = ort.OrtValue.ortvalue_from_shape_and_type(list(results[0].shape), np.float32)
    binding.clear_binding_outputs()
    binding.bind_ortvalue_output(names[0], own)
    for name, array in feed.items():
        kind = array.dtype.type
        binding.bind_input(name, "cpu", 0, kind, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    found += [own.numpy(), binding.get_outputs()[0].numpy()]
    told += [own.data_type(), own.shape(), own.device_name(), own.element_type(), own.is_tensor()]
failures = []
wrong = [{}, {**feed, "other": 0}, dict.fromkeys(feed, np.zeros(1, np.float64)),
         dict.fromkeys(feed, np.zeros((1,) * 7, np.float32))]
for feed in wrong:
    try:
        session.run(None, feed)
    except Exception as error:
        failures.append(error)
"""


def run_script(library: str, model: Any, batches: list[int]) -> dict[str, Any]:
    names = {"model": model, "batches": batches}
    exec(compile(SCRIPT.replace("LIBRARY", library), library, "exec"), names)
    return names


def check_script(model: Any, batches: list[int]) -> None:
    """Both libraries tell and compute the same."""
    theirs = run_script("onnxruntime", model, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = run_script("planish", model, batches)
    assert ours["told"] == theirs["told"]
    assert len(ours["found"]) == len(theirs["found"])
    for our, their in zip(ours["found"], theirs["found"]):
        assert (type(our), our.dtype, our.shape) == (type(their), their.dtype, their.shape)
        np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5)
    assert len(ours["failures"]) == len(theirs["failures"]) == 4
    assert all(isinstance(error, planish.TensorError) for error in ours["failures"])


def two_inputs(path: Path) -> Path:
    """y = a·b, s = a + a; float32 a (rows, 4), b (4, columns): symbols that two tensors share."""
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, ("n", 4))
    b = helper.make_tensor_value_info("b", TensorProto.FLOAT, (4, "n"))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", "n"))
    s = helper.make_tensor_value_info("s", TensorProto.FLOAT, ("n", 4))
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"]), helper.make_node("Add", "aa", ["s"])]
    save(path, nodes, [a, b], [y, s], [])
    model = onnx.load(path)
    model.producer_name, model.domain, model.model_version = "a test", "example.com", 3
    model.doc_string, model.graph.doc_string = "two products", "of a"
    helper.set_model_props(model, {"labels": "cat,dog"})
    onnx.save(model, path)
    return path


def test_a_symbolic_batch(tmp_path: Path) -> None:
    check_script(str(two_inputs(tmp_path / "two.onnx")), [3, 1])


@pytest.mark.slow
@pytest.mark.parametrize("make", [perceptron, embedding, two_inputs])
def test_more_models(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "model.onnx")
    check_script(str(path), [2, 5, 2])
    check_script(path.read_bytes(), [1])
    check_script(str(perceptron(path, batch="batch")), [1, 4])


@pytest.fixture(scope="module")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perceptron(tmp_path_factory.mktemp("models") / "open.onnx", batch="batch")


def quick(**settings: str) -> planish.SessionOptions:
    options = planish.SessionOptions()
    options.add_session_config_entry("planish.verify", "0")
    for key, value in settings.items():
        options.add_session_config_entry(f"planish.{key}", value)
    return options


def test_compiled_shapes_are_kept_and_bounded(
    open_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone.onnx"
    path.write_bytes(open_model.read_bytes())
    session = planish.InferenceSession(path, quick(cached_shapes="2"))
    path.unlink()  # what a session needs it has read
    assert session._file is not None
    compiled = []
    true_compile = session._file.compile
    monkeypatch.setattr(
        session._file,
        "compile",
        lambda shapes, options: compiled.append(shapes["x"][0]) or true_compile(shapes, options),
    )
    # Without a second thread compiling what the first one is at.
    threads = [threading.Thread(target=run_batch, args=(session, 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for batch in (2, 1, 3, 1, 2):
        run_batch(session, batch)
    assert compiled == [1, 2, 3, 2]
    assert len(session._compiled) == 2
    assert repr(session) == (
        "<planish.InferenceSession small(x: tensor(float) ['batch', 12]) -> "
        "(y: tensor(float) ['batch', 5])>"
    )


def run_batch(session: planish.InferenceSession, batch: int) -> None:
    assert session.run(["y"], {"x": np.zeros((batch, 12), "f4")})[0].shape == (batch, 5)


def test_dimensions_fixed_by_options_and_artefacts(open_model: Path, tmp_path: Path) -> None:
    options = quick()
    options.add_free_dimension_override_by_name("batch", 2)
    options.intra_op_num_threads = 1
    session = planish.InferenceSession(open_model, options)
    (model,) = session._compiled.values()
    assert model.threads == 1
    assert session.get_inputs()[0].shape == [2, 12]
    model.save(tmp_path / "artefact")
    for same in (session, planish.InferenceSession(tmp_path / "artefact")):
        assert same.get_outputs()[0].shape == [2, 5]
        run_batch(same, 2)
        with pytest.raises(ValueError, match=r"input 'x': axis 0 is 3, expected 2"):
            run_batch(same, 3)
    done = threading.Event()
    heard: list[Any] = []
    session.run_async(
        None,
        {"x": np.zeros((2, 12), "f4")},
        lambda *told: (heard.extend(told), done.set()),
        "mine",
    )
    assert done.wait(20)
    assert (heard[0][0].shape, heard[1], heard[2]) == ((2, 5), "mine", "")


@pytest.mark.parametrize(
    ("names", "feed", "message"),
    [
        (None, {}, "required inputs (['a', 'b']) are missing from input feed ([])"),
        (["z"], {"a": 0, "b": 0}, "invalid output name 'z'; outputs are y, s"),
        (None, {"a": 0, "b": 0, "c": 0}, "invalid input name 'c'; inputs are a, b"),
        (None, {"a": np.zeros((3, 4)), "b": 0}, "'a': actual tensor(double), expected tensor(flo"),
        (None, {"a": np.zeros(4, "f4"), "b": 0}, "rank for input 'a': got 1 [4], expected 2"),
        (None, {"a": np.zeros((3, 5), "f4"), "b": 0}, "for input 'a': axis 1 is 5, expected 4"),
        (
            None,
            {"a": np.zeros((3, 4), "f4"), "b": np.zeros((4, 2), "f4")},
            "for input 'b': axis 1 (n) is 2, expected 3",
        ),
        (None, {"a": ["x"], "b": 0}, "input 'a' is no tensor(float)"),
        (None, {"a": [[1], [2, 3]], "b": 0}, "input 'a' is no tensor(float)"),
        (None, {"a": object(), "b": 0}, "input 'a' is a object, expected a numpy array"),
    ],
)
def test_wrong_feeds(tmp_path: Path, names: Any, feed: Any, message: str) -> None:
    session = planish.InferenceSession(two_inputs(tmp_path / "two.onnx"))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        session.run(names, feed)
    assert isinstance(caught.value, planish.TensorError)


def test_what_has_no_effect_is_told_once(open_model: Path) -> None:
    options = planish.SessionOptions()
    options.enable_profiling = True
    options.inter_op_num_threads = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with pytest.warns(UserWarning, match="without effect: ") as told:
        session = planish.InferenceSession(
            open_model,
            options,
            [("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"],
        )
    assert len(told) == 1
    assert told[0].filename == __file__
    assert str(told[0].message).split(": ")[1].split(", ") == [
        "enable_profiling=True",
        "inter_op_num_threads=3",
        "session.intra_op.allow_spinning",
        "CUDAExecutionProvider",
    ]
    with pytest.warns(UserWarning, match="without effect: TensorrtExecutionProvider"):
        session.set_providers(["TensorrtExecutionProvider"])
    with pytest.raises(AttributeError, match="no attribute 'intra_threads'"):
        options.intra_threads = 4
    with pytest.raises(planish.PlanishError, match=r"'planish.verfy' = '0': entries "):
        options.add_session_config_entry("planish.verfy", "0")
    with pytest.raises(planish.UnsupportedModel, match=r"custom ops as planish\.compile"):
        options.register_custom_ops_library("libops.so")
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_models_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(planish.InvalidModel, match=r"cannot read '.*nope.onnx': No such file"):
        planish.InferenceSession(tmp_path / "nope.onnx")
    with pytest.raises(planish.InvalidModel, match=r"not .*ONNX model"):
        planish.InferenceSession(b"nope")
    with pytest.raises(planish.ArtefactError, match="is not an artefact"):
        planish.InferenceSession(tmp_path)


def test_values() -> None:
    value = planish.OrtValue.ortvalue_from_shape_and_type([2, 3], TensorProto.FLOAT16)
    assert (value.data_type(), value.element_type()) == ("tensor(float16)", TensorProto.FLOAT16)
    array = np.arange(6, dtype="f2").reshape(2, 3)
    value.update_inplace(array)
    np.testing.assert_array_equal(np.asarray(value), array)
    np.testing.assert_array_equal(np.from_dlpack(value), array)
    assert value.data_ptr() == value.numpy().ctypes.data
    assert value.tensor_size_in_bytes() == 12
    assert repr(value) == "<planish.OrtValue tensor(float16) [2, 3]>"
    with pytest.raises(ValueError, match="cannot update float16"):
        value.update_inplace(np.zeros(3))
    with pytest.raises(planish.TargetError, match="device 'cuda': planish runs on the CPU only"):
        planish.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
