"""Ops whose form changed between opsets, each at all of its forms, against onnx's evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import compare, import_and_compare, input_of, model, node

from planish.ir.onnx import import_model
from planish.ir.onnx.model import NEWEST_OPSET, OLDEST_OPSET
from planish.ir.onnx.table import TABLES
from planish.ir.reference import evaluate

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)).astype("f4")
IMAGE = RNG.normal(size=(1, 4, 7, 9)).astype("f4")
ALL = (7, 9, 10, 11, 12, 13, 14, 16, 18, 19, 21, 23)


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def since(first: int, last: int = 99) -> tuple[int, ...]:
    return tuple(opset for opset in ALL if first <= opset <= last)


# (id, opsets, op, inputs, weights, attributes, number of outputs)
CASES = [
    ("softmax", since(13), "Softmax", {"x": X}, {}, {"axis": 1}, 1),
    ("log_softmax_default", since(13), "LogSoftmax", {"x": X}, {}, {}, 1),
    ("hardmax", since(13), "Hardmax", {"x": X}, {}, {"axis": 1}, 1),
    ("clip_attr", since(7, 10), "Clip", {"x": X}, {}, {"min": -0.5, "max": 0.4}, 1),
    (
        "clip_input",
        since(11),
        "Clip",
        {"x": X},
        {"lo": np.float32(-0.5), "hi": np.float32(0.4)},
        {},
        1,
    ),
    (
        "slice_attr",
        since(7, 9),
        "Slice",
        {"x": X},
        {},
        {"starts": [1], "ends": [-1], "axes": [2]},
        1,
    ),
    (
        "slice_input",
        since(10),
        "Slice",
        {"x": X},
        {"s": i64(-1, 0), "e": i64(-(2**63), 2**63 - 1), "a": i64(2, 1), "t": i64(-2, 2)},
        {},
        1,
    ),
    ("squeeze_attr", since(7, 12), "Squeeze", {"x": X[:1]}, {}, {"axes": [0]}, 1),
    ("squeeze_input", since(13), "Squeeze", {"x": X[:1]}, {"a": i64(-3)}, {}, 1),
    ("squeeze_all", since(7), "Squeeze", {"x": X[:1, :, :1]}, {}, {}, 1),
    ("unsqueeze_attr", since(7, 12), "Unsqueeze", {"x": X}, {}, {"axes": [0, 4]}, 1),
    ("unsqueeze_input", since(13), "Unsqueeze", {"x": X}, {"a": i64(-1, 0)}, {}, 1),
    ("split_attr", since(7, 12), "Split", {"x": X}, {}, {"axis": 2, "split": [1, 3]}, 2),
    ("split_equal", since(7, 16), "Split", {"x": X}, {}, {"axis": 2}, 2),
    ("split_input", since(13), "Split", {"x": X}, {"s": i64(3, 1)}, {"axis": -1}, 2),
    ("split_uneven", since(18), "Split", {"x": X}, {}, {"axis": 1, "num_outputs": 2}, 2),
    ("pad_attr", since(7, 10), "Pad", {"x": X}, {}, {"pads": [0, 1, 2, 0, 0, 1], "value": 2.5}, 1),
    (
        "pad_input",
        since(11),
        "Pad",
        {"x": X},
        {"p": i64(0, 1, 2, 0, 0, 1), "v": np.float32(2.5)},
        {},
        1,
    ),
    (
        "pad_reflect",
        since(11),
        "Pad",
        {"x": X},
        {"p": i64(0, 1, 2, 0, 0, 1)},
        {"mode": "reflect"},
        1,
    ),
    ("sum_attr", since(7, 12), "ReduceSum", {"x": X}, {}, {"axes": [0, 2], "keepdims": 0}, 1),
    ("sum_input", since(13), "ReduceSum", {"x": X}, {"a": i64(-1)}, {}, 1),
    ("mean_attr", since(7, 16), "ReduceMean", {"x": X}, {}, {"axes": [-1]}, 1),
    ("mean_input", since(18), "ReduceMean", {"x": X}, {"a": i64(-1)}, {"keepdims": 0}, 1),
    ("max_all", since(7), "ReduceMax", {"x": X}, {}, {"keepdims": 0}, 1),
    ("log_sum_exp", since(7, 16), "ReduceLogSumExp", {"x": X * 100}, {}, {"axes": [1]}, 1),
    ("noop", since(18), "ReduceMin", {"x": X}, {}, {"noop_with_empty_axes": 1}, 1),
    ("top_k_input", since(11), "TopK", {"x": X}, {"k": i64(2)}, {"axis": 1, "largest": 0}, 2),
    ("arg_max", since(7), "ArgMax", {"x": X}, {}, {"axis": -1, "keepdims": 0}, 1),
    ("flatten", since(7), "Flatten", {"x": X}, {}, {"axis": 2}, 1),
    ("reshape", since(7), "Reshape", {"x": X}, {"s": i64(0, -1, 2, 1)}, {}, 1),
    ("gemm", since(11), "Gemm", {"x": X[0], "w": X[1]}, {}, {"transB": 1, "alpha": 0.5}, 1),
    (
        "gemm_bias",
        since(7),
        "Gemm",
        {"x": X[0], "w": X[1], "c": X[0, 0]},
        {},
        {"transA": 1, "beta": 2.0, "transB": 0},
        1,
    ),
    ("matmul_vector", since(7), "MatMul", {"x": X, "w": X[0, 0]}, {}, {}, 1),
    ("vector_matmul", since(7), "MatMul", {"w": X[0, :, 0], "x": X}, {}, {}, 1),
    ("dot", since(7), "MatMul", {"w": X[0, 0], "x": X[1, 1]}, {}, {}, 1),
    ("elu", since(7), "Elu", {"x": X}, {}, {"alpha": 1.5}, 1),
    ("leaky", since(7), "LeakyRelu", {"x": X}, {}, {"alpha": -2.0}, 1),
    ("prelu", since(7), "PRelu", {"x": X}, {"s": np.array([[0.1], [-2], [3]], "f4")}, {}, 1),
    ("hard_sigmoid", since(7), "HardSigmoid", {"x": X}, {}, {}, 1),
    ("dropout", since(7), "Dropout", {"x": X}, {}, {}, 1),
    (
        "max_pool_ceil",
        since(10),
        "MaxPool",
        {"x": IMAGE},
        {},
        {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 0, 1, 0]},
        1,
    ),
    (
        "average_pool",
        since(7),
        "AveragePool",
        {"x": IMAGE},
        {},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        1,
    ),
    (
        "same_lower",
        since(7),
        "AveragePool",
        {"x": IMAGE},
        {},
        {"kernel_shape": [2, 4], "strides": [2, 1], "auto_pad": "SAME_LOWER"},
        1,
    ),
    (
        "conv",
        since(7),
        "Conv",
        {"x": IMAGE, "w": RNG.normal(size=(6, 2, 3, 3)).astype("f4"), "b": X.ravel()[:6]},
        {},
        {"group": 2, "dilations": [1, 2], "pads": [1, 2, 1, 0]},
        1,
    ),
    (
        "conv_same",
        since(11),
        "Conv",
        {"x": IMAGE, "w": RNG.normal(size=(6, 4, 3, 3)).astype("f4")},
        {},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        1,
    ),
    ("upsample", since(9, 9), "Upsample", {"x": IMAGE}, {"s": np.array([1, 1, 2, 3], "f4")}, {}, 1),
    (
        "resize_cubic",
        since(13),
        "Resize",
        {"x": IMAGE},
        {"_": i64(), "s": np.array([1, 1, 1.5, 0.7], "f4")},
        {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
        1,
    ),
    (
        "batch_norm",
        since(14),
        "BatchNormalization",
        {"x": IMAGE},
        {n: RNG.uniform(0.5, 1, 4).astype("f4") for n in "sbmv"},
        {"epsilon": 1e-3},
        1,
    ),
    ("cumsum", since(11), "CumSum", {"x": X}, {"a": i64(-2)[0]}, {"exclusive": 1, "reverse": 1}, 1),
    ("mean", since(8), "Mean", {"x": X, "y": X[0], "z": X[:, :1]}, {}, {}, 1),
]


@pytest.mark.parametrize(
    ("opset", "op", "inputs", "weights", "attributes", "outputs"),
    [pytest.param(o, *case[2:], id=f"{case[0]}-{o}") for case in CASES for o in case[1]],
)
def test_matches_onnx(opset, op, inputs, weights, attributes, outputs):
    names = [f"out{i}" for i in range(outputs)]
    given = {name: np.asarray(array) for name, array in inputs.items()}
    proto = model(
        [node(op, " ".join([*inputs, *weights]), " ".join(names), **attributes)],
        [input_of(name, array) for name, array in given.items()],
        names,
        {name: np.asarray(array) for name, array in weights.items() if name != "_"},
        opset,
    )
    import_and_compare(proto, given)


def rows_of(x: np.ndarray, axis: int) -> np.ndarray:
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def numpy_softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


STATISTICS = {name: RNG.uniform(0.5, 1, 4).astype("f4") for name in ("s", "b", "m", "v")}
NORMALIZED = (IMAGE - STATISTICS["m"].reshape(4, 1, 1)) / np.sqrt(
    STATISTICS["v"].reshape(4, 1, 1) + 1e-5
) * STATISTICS["s"].reshape(4, 1, 1) + STATISTICS["b"].reshape(4, 1, 1)
DOUBLED = IMAGE.repeat(2, axis=2).repeat(3, axis=3)

# onnx's evaluator computes these forms as their newest one (or BatchNormalization by the batch):
# (op, opsets, input, weights, attributes, expected)
OLD_FORMS = [
    ("Softmax", (7, 11, 12), X, {}, {}, numpy_softmax(rows_of(X, 1)).reshape(X.shape)),
    ("Softmax", (7, 11), X, {}, {"axis": 2}, numpy_softmax(rows_of(X, 2)).reshape(X.shape)),
    (
        "LogSoftmax",
        (7, 12),
        X,
        {},
        {"axis": 0},
        np.log(numpy_softmax(rows_of(X, 0))).reshape(X.shape),
    ),
    (
        "Hardmax",
        (7, 12),
        X,
        {},
        {},
        np.eye(12, dtype="f4")[rows_of(X, 1).argmax(axis=1)].reshape(X.shape),
    ),
    ("BatchNormalization", (7, 9, 13), IMAGE, STATISTICS, {}, NORMALIZED),
    ("Upsample", (7,), IMAGE, {}, {"scales": [1.0, 1.0, 2.0, 3.0]}, DOUBLED),
    ("Resize", (10,), IMAGE, {"s": np.array([1, 1, 2, 3], "f4")}, {}, DOUBLED),
    ("TopK", (7,), X, {}, {"k": 2}, -np.sort(-X, axis=-1)[..., :2]),
    (
        "Pad",
        (7, 10),
        X,
        {},
        {"pads": [0, 0, -1, 0, 0, 2]},
        np.pad(X, [(0, 0), (0, 0), (0, 2)])[..., 1:],
    ),
]


@pytest.mark.parametrize(
    ("op", "opset", "x", "weights", "attributes", "expected"),
    [
        pytest.param(op, opset, *rest, id=f"{op}-{opset}-{index}")
        for index, (op, opsets, *rest) in enumerate(OLD_FORMS)
        for opset in opsets
    ],
)
def test_old_forms(op, opset, x, weights, attributes, expected):
    names = "y indices" if op == "TopK" else "y"
    proto = model(
        [node(op, " ".join(["x", *weights]), names, **attributes)],
        [input_of("x", x)],
        ["y"],
        weights,
        opset,
    )
    found = evaluate(import_model(proto), {"x": x})
    compare(found, {"y": expected.astype("f4")})


def test_every_row_of_the_table_starts_at_a_version_of_onnx():
    history = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        history.setdefault((schema.domain, schema.name), set()).add(schema.since_version)
    for domain, table in TABLES.items():
        assert list(table) == list(dict.fromkeys(table)), "an op has two rows"
        for op, row in table.items():
            versions = [version for version, _ in row]
            assert versions == sorted(set(versions)), op
            assert set(versions) <= history[domain, op], op


def test_newest_opset_was_reviewed():
    assert OLDEST_OPSET == 7
    assert onnx.defs.onnx_opset_version() >= NEWEST_OPSET
