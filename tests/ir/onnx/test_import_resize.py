"""Resize reads the elements that onnxruntime reads: random members of the family."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnx_models import input_of, model, node

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx import import_model
from planish.ir.ops.resize import NEAREST
from planish.ir.reference import evaluate

TYPES = [np.float32, np.float32, np.int32, np.int8, np.uint8]
SCALES = [1 / 3, 0.5, 0.6, 0.7, 1.3, 1.5, 2.0, 2.1, 2.9, 3.0]
COORDINATES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def onnxruntime_gives(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    """What onnxruntime gives as the model stands; the test is skipped where it is missing."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def resize_model(
    x: np.ndarray,
    opset: int = 19,
    roi: list[float] | None = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    declared: list[int] | None = None,
    **attributes: Any,
) -> ModelProto:
    """y = Resize(x), or Upsample before opset 10."""
    weights = {"s": np.float32(scales)} if scales is not None else {"z": np.int64(sizes)}
    if opset <= 10:
        operands = "x s"
    elif roi is not None:
        weights["r"] = np.float32(roi)
        operands = "x r s" if scales is not None else "x r _ z"
    else:
        weights["e"] = np.zeros(0, np.float32)  # opsets before 13 require roi and scales
        operands = "x e s" if scales is not None else "x e e z"
    op = "Upsample" if opset < 10 else "Resize"
    proto = model(
        [node(op, operands, "y", name="r", **attributes)], [input_of("x", x)], ["y"], weights, opset
    )
    kind = proto.graph.output[0].type.tensor_type
    kind.elem_type = helper.np_dtype_to_tensor_dtype(x.dtype)
    for dim in declared or []:
        kind.shape.dim.add(dim_value=dim)
    return proto


def random_member(r: random.Random, mode: str) -> tuple[np.ndarray, dict[str, Any]]:
    """An input and the arguments of `resize_model`."""
    opset = r.choice([11, 13, 18, 19] if mode == "cubic" else [10, 11, 13, 18, 19])
    resized = r.choice([1, 2, 3]) if mode == "nearest" else 2
    shape = [r.choice([1, 2])] * 2 + [r.randint(2, 40) for _ in range(resized)]
    attributes: dict[str, Any] = {"mode": mode}
    if opset > 10:
        known = [*COORDINATES, *["tf_half_pixel_for_nn"] * (opset < 13)]
        known += ["half_pixel_symmetric"] * (opset >= 19)
        attributes["coordinate_transformation_mode"] = r.choice(known)
        if mode == "nearest":
            attributes["nearest_mode"] = r.choice(NEAREST)
        elif mode == "cubic":
            attributes["exclude_outside"] = r.choice([0, 1])
        if mode != "nearest" and opset >= 18 and r.random() < 0.4:
            attributes["antialias"] = 1
    if opset <= 10 or r.random() < 0.6:
        scales = [r.choice([*SCALES, r.uniform(0.3, 3)]) for _ in range(resized)]
        scales = [s if n * s >= 1 else 1.0 / s for n, s in zip(shape[2:], scales)]
        how: dict[str, Any] = {"scales": [1.0, 1.0, *scales]}
    else:
        how = {"sizes": shape[:2] + [r.randint(1, 60) for _ in range(resized)]}
    if opset >= 18 and r.random() < 0.5:
        how = {name: numbers[2:] for name, numbers in how.items()}
        attributes["axes"] = list(range(2, 2 + resized))
        if "sizes" in how:
            policies = ["stretch", "not_larger", "not_smaller"]
            attributes["keep_aspect_ratio_policy"] = r.choice(policies)
    floats = [np.float32] if mode == "cubic" or "antialias" in attributes else TYPES
    numbers = np.random.default_rng(r.randrange(2**32)).uniform(-100, 100, shape)
    x = np.abs(numbers).astype(r.choice(floats))
    if mode == "nearest" and x.dtype == np.float32:
        x.flat[0] = np.nan
    return x, {"opset": opset, **how, **attributes}


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_random_members_are_as_in_onnxruntime(mode: str):
    r = random.Random(f"resize {mode}")
    for number in range(120 if mode == "nearest" else 60):
        x, arguments = random_member(r, mode)
        if arguments.get("nearest_mode", "").startswith("round"):
            continue  # releases of onnxruntime differ in ties: test_ties
        proto = resize_model(x, **arguments)
        expected = onnxruntime_gives(proto, x)
        got = evaluate(import_model(proto), {"x": x})["y"]
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype), (number, arguments)
        if mode == "nearest":
            np.testing.assert_array_equal(got, expected, str((number, x.shape, arguments)))
        else:  # integers are truncated: their last digit may differ
            off = np.abs(got.astype(np.float64) - expected)
            limit = 1 if x.dtype.kind in "iu" else 2e-3
            assert off.max() <= limit, (number, x.shape, arguments)


@pytest.mark.parametrize(("mode", "up"), [("round_prefer_floor", 0), ("round_prefer_ceil", 1)])
@pytest.mark.parametrize("coordinate", ["half_pixel", "pytorch_half_pixel", "asymmetric"])
def test_ties(mode: str, up: int, coordinate: str):
    """Nearest with the tie rule computed by exact fractions of the float32 scale's intent."""
    for size, out in [(20, 6), (6, 20), (7, 5), (14, 4), (9, 3), (10, 4), (3, 9)]:
        x = np.arange(size, dtype=np.float32)
        proto = resize_model(
            x,
            sizes=[out],
            mode="nearest",
            nearest_mode=mode,
            coordinate_transformation_mode=coordinate,
        )
        half = 0 if coordinate == "asymmetric" else 1
        expected = []
        for i in range(out):
            # the place is top / (2 · out), exactly
            top = (2 * i + half) * size - half * out
            below, rest = divmod(top, 2 * out)
            nearest = below + (rest > out or (rest == out and bool(up)))
            expected.append(min(max(nearest, 0), size - 1))
        np.testing.assert_array_equal(evaluate(import_model(proto), {"x": x})["y"], expected)


def test_crops_read_between_fractions_and_fill_outside():
    r = random.Random("crops")
    for number in range(40):
        mode = r.choice(["nearest", "linear", "cubic"])
        shape = [1, 2, r.randint(3, 20), r.randint(3, 20)]
        roi = [0, 0, r.uniform(-0.3, 0.5), r.uniform(0, 0.5), 1, 1, r.uniform(0.6, 1.3), 0.9]
        x = np.random.default_rng(number).normal(size=shape).astype(np.float32)
        if mode == "nearest":
            x.flat[r.randrange(x.size)] = np.inf  # and stays one element
        sizes = [1, 2, *(n + r.choice([-1, 1, 5]) for n in shape[2:])]
        proto = resize_model(
            x,
            roi=roi,
            sizes=sizes,
            mode=mode,
            nearest_mode="floor",
            extrapolation_value=7.0,
            coordinate_transformation_mode="tf_crop_and_resize",
        )
        got = evaluate(import_model(proto), {"x": x})["y"]
        expected = onnxruntime_gives(proto, x)
        np.testing.assert_allclose(got, expected, 1e-3, 1e-4, err_msg=f"{number} {mode}")


@pytest.mark.parametrize(
    ("size", "scale", "declared", "expected"),
    [
        (30, 0.7, None, 21),  # 20.9999996 in exact arithmetic, 21 in float32
        (30, 0.7, 21, 21),
        (30, 0.7, 20, 20),
        (10, 1.26, None, 12),
        (10, 1.26, 13, 13),  # rounded by its exporter
        (10, 1.26, 14, 12),  # nothing that rounding explains
        (10, 1.26, -1, 12),
    ],
)
def test_size_by_scales(size: int, scale: float, declared: int | None, expected: int):
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    stated = None if declared is None else [1, 1, 1, declared]
    proto = resize_model(x, scales=[1, 1, 1, scale], declared=stated, **attributes)
    assert import_model(proto).outputs[0].type.shape == (1, 1, 1, expected)


def test_a_size_declared_inside_the_graph_counts_as_well():
    x = np.arange(10, dtype=np.float32).reshape(1, 1, 1, 10)
    proto = resize_model(x, scales=[1, 1, 1, 1.26], mode="nearest")
    proto.graph.node.append(node("Add", "y c", "z"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(13, np.float32), "c"))
    proto.graph.value_info.append(helper.make_tensor_value_info("y", 1, [1, 1, 1, 13]))
    proto.graph.output[0].name = "z"
    assert import_model(proto).outputs[0].type.shape == (1, 1, 1, 13)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0, 1e38])
def test_scales_that_are_no_ratio(scale: float):
    x = np.ones((1, 1, 4, 4), np.float32)
    for coordinate in ("half_pixel", "tf_crop_and_resize"):
        proto = resize_model(
            x,
            scales=[1, 1, 1, scale],
            roi=[0] * 4 + [1] * 4,
            mode="linear",
            coordinate_transformation_mode=coordinate,
        )
        with pytest.raises((InvalidModel, UnsupportedModel), match="node 'r'"):
            import_model(proto)
