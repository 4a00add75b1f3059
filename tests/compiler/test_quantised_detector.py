"""Detectors in 8 bits: every activation rounded, parts cut out and joined, boxes at the end."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import planish


class Detector:
    """A small random detector of the YOLO family, as quantisers write it (QDQ, signed)."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: object, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def rounded(self, x: str) -> str:
        scale = self.constant(self.rng.uniform(0.01, 0.1))
        zero = self.constant(self.rng.integers(-20, 20), "int8")
        return self.node(
            "DequantizeLinear", self.node("QuantizeLinear", x, scale, zero), scale, zero
        )

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> str:
        codes = self.constant(
            self.rng.integers(-100, 100, (outputs, inputs, kernel, kernel)), "int8"
        )
        scales = self.constant(self.rng.uniform(0.001, 0.01, outputs))
        zeros = self.constant(np.zeros(outputs), "int8")
        weight = self.node("DequantizeLinear", codes, scales, zeros, axis=0)
        bias = self.constant(self.rng.standard_normal(outputs))
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        y = self.rounded(self.node("Conv", x, weight, bias, **window))
        return self.rounded(self.node("Mul", y, self.rounded(self.node("Sigmoid", y))))

    def columns(self, x: str, first: int, last: int) -> str:
        bounds = (self.constant([bound], "int64") for bound in (first, last, 1))
        return self.node("Slice", x, *bounds)

    def backbone(self, channels: int) -> str:
        x = self.conv(self.rounded("x"), 3, channels, 3, 2)
        y = self.conv(x, channels, channels)
        axis = self.constant([1], "int64")
        half = channels // 2
        ends = [self.constant([end], "int64") for end in (0, half, channels)]
        low, high = (self.node("Slice", y, a, b, axis) for a, b in itertools.pairwise(ends))
        deep = self.conv(self.conv(high, half, half, 3), half, half, 3)
        deep = self.rounded(self.node("Add", high, deep))
        joined = self.rounded(self.node("Concat", low, high, deep, axis=1))
        levels = [self.conv(self.conv(joined, 3 * half, channels), channels, half)]
        for _ in range(3):
            pool = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2] * 4}
            levels.append(self.node("MaxPool", levels[-1], **pool))
        return self.conv(self.rounded(self.node("Concat", *levels, axis=1)), 4 * half, channels)

    def boxes(self, features: str, channels: int, side: int) -> str:
        code = self.conv(features, channels, 16, 3)
        mixed = self.constant(self.rng.standard_normal((16, 16, 1, 1)))
        code = self.rounded(self.node("Conv", code, mixed, kernel_shape=[1, 1]))
        bins = self.node("Reshape", code, self.constant([1, 4, 4, side * side], "int64"))
        bins = self.node("Transpose", bins, perm=[0, 2, 1, 3])
        bins = self.rounded(self.node("Softmax", bins, axis=1))
        steps = self.constant(np.arange(4).reshape(1, 4, 1, 1))
        sides = self.rounded(self.node("Conv", bins, steps, kernel_shape=[1, 1]))
        sides = self.node("Reshape", sides, self.constant([1, 4, side * side], "int64"))
        anchors = self.constant(self.rng.uniform(0, side, (1, 2, side * side)))
        first = self.rounded(self.node("Sub", anchors, self.columns(sides, 0, 2)))
        last = self.rounded(self.node("Add", anchors, self.columns(sides, 2, 4)))
        total = self.rounded(self.node("Add", first, last))
        centre = self.rounded(self.node("Div", total, self.constant(2)))
        size = self.rounded(self.node("Sub", last, first))
        box = self.rounded(self.node("Concat", centre, size, axis=1))
        box = self.rounded(self.node("Mul", box, self.constant(8)))
        scores = self.rounded(self.node("Sigmoid", sides))
        return self.rounded(self.node("Concat", box, scores, axis=1))

    def model(self) -> onnx.ModelProto:
        channels, side = (int(self.rng.choice(sizes)) for sizes in ((8, 12, 16), (12, 16, 20)))
        out = self.boxes(self.backbone(channels), channels, side // 2)
        graph = helper.make_graph(
            self.nodes,
            "detector",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, side, side])],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_detectors_compile_and_verify(seed: int, tmp_path: Path) -> None:
    onnx.save(Detector(seed).model(), tmp_path / "detector.onnx")
    report = planish.compile(tmp_path / "detector.onnx", tmp_path / "artefact", log=False)
    assert report.verification is not None
    assert report.verification.ok
