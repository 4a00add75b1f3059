"""Files as they come: broken, hostile, with external data, large."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import import_and_compare, model, node, value

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Constant, Graph
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate

RNG = np.random.default_rng(1)
WEIGHT = RNG.normal(size=(64, 32)).astype("f4")
X = RNG.normal(size=(2, 64)).astype("f4")


def product(weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """y = x · w."""
    given = {"w": WEIGHT} if weights is None else weights
    return model([node("MatMul", "x w", "y", name="mm")], [value("x", [2, 64])], ["y"], given)


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def external(location: str, offset: str = "0", length: str | None = None) -> onnx.ModelProto:
    """The product with its weight outside."""
    proto = product()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset}
    if length is not None:
        entries["length"] = length
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)
    return proto


def weight_of(graph: Graph) -> np.ndarray:
    constants = [v for v in graph.values() if isinstance(v, Constant) and v.name == "w"]
    return constants[0].data


def is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def test_weights_inside_the_file_stay_mapped(tmp_path: Path):
    graph = import_model(saved(tmp_path / "m.onnx", product()))
    assert is_mapped(weight_of(graph))
    np.testing.assert_array_equal(weight_of(graph), WEIGHT)
    np.testing.assert_allclose(evaluate(graph, {"x": X})["y"], X @ WEIGHT, rtol=1e-4, atol=1e-5)


def test_weights_of_constant_nodes_and_branches_stay_mapped(tmp_path: Path):
    tensor = onnx.numpy_helper.from_array(WEIGHT, "t")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor), node("MatMul", "x c", "z")],
        "branch",
        [],
        [value("z", None)],
    )
    proto = model(
        [node("If", "yes", "y", then_branch=branch, else_branch=branch)],
        [value("x", [2, 64])],
        ["y"],
        {"yes": np.array(True)},
    )
    graph = import_model(saved(tmp_path / "m.onnx", proto))
    (matmul,) = graph.nodes
    assert is_mapped(matmul.inputs[1].data)
    np.testing.assert_array_equal(matmul.inputs[1].data, WEIGHT)


def test_file_that_states_its_default_data_location(tmp_path: Path):
    proto = product()
    proto.graph.initializer[0].data_location = TensorProto.DEFAULT
    assert is_mapped(weight_of(import_model(saved(tmp_path / "m.onnx", proto))))


def test_bytes_and_proto_give_the_same_graph(tmp_path: Path):
    proto = product()
    for source in (proto, proto.SerializeToString(), str(saved(tmp_path / "m.onnx", proto))):
        np.testing.assert_array_equal(weight_of(import_model(source)), WEIGHT)


def test_external_data(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/w.bin").write_bytes(b"\0" * 4 + WEIGHT.tobytes() + b"tail")
    proto = external("data/w.bin", "4", str(WEIGHT.nbytes))
    graph = import_model(saved(tmp_path / "m.onnx", proto))
    assert is_mapped(weight_of(graph))
    np.testing.assert_array_equal(weight_of(graph), WEIGHT)


@pytest.mark.parametrize(
    ("location", "offset", "length", "message"),
    [
        ("gone.bin", "0", None, "tensor 'w' is stored in 'gone.bin', which cannot be read at"),
        ("../../etc/passwd", "0", None, "in '../../etc/passwd', outside the model's folder"),
        ("/etc/passwd", "0", None, "in '/etc/passwd', outside the model's folder"),
        ("link.bin", "0", None, "in 'link.bin', outside the model's folder"),
        (".", "0", None, "in '.', outside the model's folder"),
        ("inner", "0", None, "'inner', which cannot be read"),
        ("w.bin", "1", None, "takes bytes 1 to 8193 of 'w.bin', which has 8192 bytes"),
        ("w.bin", "0", "8188", "has 8188 bytes of data, but its type float32.64, 32. takes 8192"),
        ("w.bin", "-4", None, "has the offset '-4', which is not a natural number"),
        ("w.bin", "0", "x", "has the length 'x'"),
        ("w\0.bin", "0", None, "the bad location"),
    ],
)
def test_bad_external_data(tmp_path: Path, location, offset, length, message):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    with pytest.raises(InvalidModel, match=message) as error:
        import_model(saved(folder / "m.onnx", external(location, offset, length)))
    assert "'w'" in str(error.value)


def cached(root: Path, inner: str) -> Path:
    """The model in a cache as Hugging Face lays it out: links to blobs, named by digests."""
    blobs, snapshot = root / "blobs", root / "snapshots/f00d" / inner
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    saved(blobs / "a1b2", external("model.onnx_data", "4", str(WEIGHT.nbytes)))
    (blobs / "c3d4").write_bytes(b"\0" * 4 + WEIGHT.tobytes())
    up = "../" * (2 + len(Path(inner).parts))
    for name, blob in (("model.onnx", "a1b2"), ("model.onnx_data", "c3d4")):
        (snapshot / name).symlink_to(f"{up}blobs/{blob}")
    return snapshot / "model.onnx"


@pytest.mark.parametrize("inner", ["", "onnx", "onnx/fp32"])
def test_external_data_of_a_cache_of_links(tmp_path: Path, inner: str):
    graph = import_model(cached(tmp_path / "hub", inner))
    assert is_mapped(weight_of(graph))
    np.testing.assert_array_equal(weight_of(graph), WEIGHT)


def test_external_data_beside_the_file_that_a_link_leads_to(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/w.bin").write_bytes(WEIGHT.tobytes())
    saved(tmp_path / "real/m.onnx", external("w.bin", "0"))
    (tmp_path / "link.onnx").symlink_to("real/m.onnx")
    np.testing.assert_array_equal(weight_of(import_model(tmp_path / "link.onnx")), WEIGHT)


@pytest.mark.parametrize("target", ["../../secret.bin", "/etc/passwd", "../snapshots"])
def test_links_of_a_cache_that_lead_elsewhere_are_refused(tmp_path: Path, target: str):
    model = cached(tmp_path / "hub", "")
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4 + WEIGHT.tobytes())
    data = tmp_path / "hub/blobs/c3d4"
    data.unlink()
    data.symlink_to(target)
    with pytest.raises(InvalidModel, match=r"'w' is stored in 'model.onnx_data', outside"):
        import_model(model)


def test_external_data_need_a_folder():
    with pytest.raises(InvalidModel, match=r"outside the model, in 'w.bin': give the path"):
        import_model(external("w.bin"))


def test_every_truncation_is_an_error(tmp_path: Path):
    whole = product().SerializeToString()
    for size in {0, 1, 7, 50, len(whole) // 2, len(whole) - 1}:
        path = tmp_path / f"{size}.onnx"
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidModel, match=r"empty|whole|no graph|opset|operator set|outputs"):
            import_model(path)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n" * 9, b"{}" * 40, RNG.bytes(300)])
def test_not_onnx(data: bytes):
    with pytest.raises(InvalidModel, match=r"ONNX|holds no graph"):
        import_model(data)


def test_names_that_are_not_text():
    data = product().SerializeToString()
    for name, message in ((b"mm", "node 0"), (b"test", "the model")):
        with pytest.raises(InvalidModel, match=f"{message} has a name that is not UTF-8"):
            import_model(data.replace(name, b"\xff" * len(name)))


def test_missing_file(tmp_path: Path):
    with pytest.raises(InvalidModel, match=r"cannot read '.*none.onnx': No such file"):
        import_model(tmp_path / "none.onnx")


def test_deeply_nested_messages():
    data = b""
    for _ in range(3000):  # attribute(5).graph(6).node(1) without end
        for key in (0x0A, 0x2A, 0x32):
            size, length = len(data), bytearray()
            while size >= 128:
                length.append(size & 127 | 128)
                size >>= 7
            data = bytes([key]) + bytes([*length, size]) + data
    with pytest.raises(InvalidModel):
        import_model(b"\x3a" + onnx_varint(len(data)) + data)


def onnx_varint(size: int) -> bytes:
    out = bytearray()
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


def test_empty_graphs():
    with pytest.raises(InvalidModel, match="holds no graph"):
        import_model(onnx.ModelProto())
    proto = product()
    del proto.graph.output[:]
    with pytest.raises(InvalidModel, match="has no outputs"):
        import_model(proto)


def test_raw_data_that_do_not_fit_the_shape(tmp_path: Path):
    proto = product()
    proto.graph.initializer[0].dims[0] = 65
    message = r"tensor 'w' has 8192 bytes of data, but its type float32\[65, 32\] takes 8320"
    for source in (proto, saved(tmp_path / "m.onnx", proto)):
        with pytest.raises(InvalidModel, match=message):
            import_model(source)


def test_typed_data_that_do_not_fit_the_shape():
    proto = product({})
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [64, 32], [0] * 2048))
    proto.graph.initializer[0].dims[0] = 3
    with pytest.raises(InvalidModel, match=r"data of tensor 'w' do not match its shape \[3, 32\]"):
        import_model(proto)


def test_negative_dimension_and_unknown_type():
    proto = product()
    proto.graph.initializer[0].dims[0] = -64
    with pytest.raises(InvalidModel, match=r"tensor 'w' has the shape \[-64, 32\]"):
        import_model(proto)
    proto.graph.initializer[0].data_type = 99
    with pytest.raises(InvalidModel, match="tensor 'w' has the unknown element type 99"):
        import_model(proto)


@pytest.mark.parametrize("number", [TensorProto.INT4, TensorProto.UINT4])
def test_packed_types(number: int):
    low = -8 if number == TensorProto.INT4 else 0
    codes = RNG.integers(low, low + 16, 7)
    tensor = helper.make_tensor("w", number, [7], codes.tolist())
    raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), "w")
    assert raw.HasField("raw_data")
    proto = model([node("Cast", "w", "y", to=TensorProto.INT8)], [], ["y"])
    proto.graph.initializer.append(raw)
    np.testing.assert_array_equal(evaluate(import_model(proto), {})["y"], codes)


@pytest.mark.parametrize("dtype", ["f8", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "?"])
def test_element_types(dtype: str):
    data = (RNG.normal(size=5) * 50).astype(dtype)
    proto = model([node("Identity", "w", "y")], [], ["y"], {"w": data})
    found = evaluate(import_model(proto), {})["y"]
    assert found.dtype == data.dtype
    np.testing.assert_array_equal(found, data)


def test_string_tensors_are_refused():
    tensor = helper.make_tensor("w", TensorProto.STRING, [1], ["a"])
    proto = model([node("Identity", "w", "y", name="id")], [], ["y"])
    proto.graph.initializer.append(tensor)
    with pytest.raises(UnsupportedModel, match="initializer 'w': tensor 'w' holds strings"):
        import_model(proto)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_an_import(tmp_path: Path):
    """At most 1.3 times the model; in fact next to nothing, since weights stay in the file."""
    proto = product()
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros((64, 1 << 18), "f4"), "large")
    )
    proto.graph.node.append(node("MatMul", "x large", "z"))
    proto.graph.output.append(helper.make_empty_tensor_value_info("z"))
    path = saved(tmp_path / "m.onnx", proto)
    del proto

    def anonymous() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024

    before = anonymous()
    graph = import_model(path)
    assert anonymous() - before < 0.3 * path.stat().st_size
    assert graph.output_names == ("y", "z")


def test_duplicate_initializer_inputs_of_old_files():
    proto = product()
    proto.graph.input.append(value("w", [64, 32]))
    graph = import_and_compare(proto, {"x": X})
    assert [v.name for v in graph.inputs] == ["x"]
