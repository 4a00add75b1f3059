"""Subnormal numbers in inputs, weights and results: zeros by default, kept on request, and fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish
from planish.artefact.format import read_manifest
from planish.ir.subnormals import flush_subnormals

TINY = {np.float32: 1.17549435e-38, np.float64: 2.2250738585072014e-308, np.float16: 6.104e-5}


def numbers(dtype: Any, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Subnormal, normal and zero numbers of both signs, mixed."""
    draw = np.random.default_rng(seed)
    spread = draw.uniform(-1, 1, shape) * draw.choice([0, TINY[dtype], 1e3 * TINY[dtype], 1], shape)
    return spread.astype(dtype)


def flushed(array: np.ndarray) -> np.ndarray:
    """What a processor makes of them, by numpy's own comparison."""
    if array.dtype == np.float16:
        return array
    small = np.abs(array) < np.finfo(array.dtype).smallest_normal
    return np.where(small, np.copysign(array.dtype.type(0), array), array)


def mixed_model(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """For each type a product, a sum, and a transpose, which moves bits as they are."""
    nodes, inputs, outputs, initializers = [], [], [], []
    for name, weight in weights.items():
        kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
        inputs.append(helper.make_tensor_value_info(f"x_{name}", kind, weight.shape))
        initializers.append(numpy_helper.from_array(weight, f"w_{name}"))
        nodes.append(helper.make_node("Mul", [f"x_{name}", f"w_{name}"], [f"product_{name}"]))
        nodes.append(helper.make_node("Add", [f"x_{name}", f"w_{name}"], [f"sum_{name}"]))
        nodes.append(helper.make_node("Transpose", [f"x_{name}"], [f"moved_{name}"]))
        outputs += [
            helper.make_tensor_value_info(f"{what}_{name}", kind, shape)
            for what, shape in (
                ("product", weight.shape),
                ("sum", weight.shape),
                ("moved", weight.shape[::-1]),
            )
        ]
    graph = helper.make_graph(nodes, "mixed", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("keep", [False, True])
def test_results_are_flushed_or_kept(keep: bool, tmp_path: Path) -> None:
    kinds = {"single": np.float32, "double": np.float64, "half": np.float16}
    weights = {name: numbers(kind, (40, 31), 1) for name, kind in kinds.items()}
    x = {name: numbers(kind, (40, 31), 2) for name, kind in kinds.items()}
    planish.compile(mixed_model(weights), tmp_path / "a", keep_subnormals=keep, log=False)
    manifest = read_manifest(tmp_path / "a")
    assert manifest.options["keep_subnormals"] is keep
    with planish.load(tmp_path / "a", threads=2) as model:
        outputs = model.run({f"x_{name}": array for name, array in x.items()})
    seen = (lambda array: array) if keep else flushed
    for name, weight in weights.items():
        a, b = seen(x[name]), seen(weight)
        for what, expected in (
            ("product", seen(a * b)),
            ("sum", seen(a + b)),
            ("moved", x[name].T),
        ):
            np.testing.assert_array_equal(outputs[f"{what}_{name}"], expected, err_msg=what + name)
    packed = (tmp_path / "a" / "weights.bin").read_bytes()
    for weight in weights.values():
        held = seen(weight)
        at = packed.find(held.tobytes())
        assert at >= 0 or held.tobytes() == weight.tobytes(), "weights are packed in another way"
        if held.tobytes() != weight.tobytes():
            assert packed.find(weight.tobytes()) < 0


@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16", "float16", "int32", "bool"])
def test_flushing_an_array(name: str) -> None:
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name, name))
    bits = np.random.default_rng(3).integers(0, 256, 4 * 3000 * dtype.itemsize, np.uint8)
    array = (bits & 1).view(bool) if name == "bool" else bits.view(dtype)
    array[::7] = 0
    if name in ("float32", "float64", "bfloat16"):
        exponent = {"float32": 0x7F800000, "float64": 0x7FF << 52, "bfloat16": 0x7F80}[name]
        integers = array.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.itemsize])
        integers[::5] &= np.array(~exponent & (1 << 8 * dtype.itemsize) - 1).astype(integers.dtype)
        got = flush_subnormals(array.reshape(-1, 10)).reshape(-1).view(integers.dtype)
        sign = np.array(1 << 8 * dtype.itemsize - 1).astype(integers.dtype)
        zero = (integers & np.array(exponent).astype(integers.dtype)) == 0
        np.testing.assert_array_equal(got, np.where(zero, integers & sign, integers))
        assert (got != integers).any()
    else:
        assert flush_subnormals(array) is array
    ones = np.ones((3, 4), dtype)
    assert flush_subnormals(ones) is ones
    assert flush_subnormals(ones[:0]).size == 0


@pytest.mark.slow
def test_subnormal_numbers_take_no_longer_than_others(tmp_path: Path) -> None:
    """Before they were flushed the ratio was between 65 and 350 for such models."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Mul", ["product", "half"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (256, 256))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (256, 256))],
        [
            numpy_helper.from_array(np.full((256, 256), 0.01, np.float32), "w"),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    planish.compile(model, tmp_path / "a", log=False)
    draw = np.random.default_rng(0).uniform(0.1, 1, (256, 256)).astype(np.float32)
    with planish.load(tmp_path / "a", threads=1) as loaded:
        seconds = {}
        for name, scale in (("normal", 1.0), ("subnormal", 1e-39), ("normal again", 1.0)):
            inputs = {"x": draw * np.float32(scale)}
            taken = []
            for _ in range(30):
                begin = time.perf_counter()
                loaded.run(inputs)
                taken.append(time.perf_counter() - begin)
            seconds[name] = min(taken)
    assert seconds["subnormal"] < 5 * max(seconds["normal"], seconds["normal again"])
