"""Building small ONNX models, and comparing their import with onnx's own reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from planish import tolerances
from planish.ir.graph import Graph
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.verifier import verify


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node; names are separated by spaces, "_" stands for an omitted one."""
    names = [["" if name == "_" else name for name in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, **attributes)


def value(name: str, shape: Sequence[int | str | None] | None, dtype: int = 1) -> ValueInfoProto:
    """A tensor input or output; float32 by default."""
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 18,
    **arguments: Any,
) -> ModelProto:
    """A model whose outputs declare no shape; `arguments` go to make_model."""
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    declared = [helper.make_empty_tensor_value_info(name) for name in outputs]
    for entry in declared:
        entry.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(nodes, "test", inputs, declared, tensors)
    imports = arguments.pop("opset_imports", [helper.make_opsetid("", opset)])
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **arguments)


def input_of(name: str, array: np.ndarray) -> ValueInfoProto:
    """The declaration of an input that takes `array`."""
    return value(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))


def import_and_compare(proto: ModelProto, feeds: Mapping[str, np.ndarray], **how: Any) -> Graph:
    """Imports `proto`, verifies the graph, and compares it with onnx's evaluator on `feeds`."""
    graph = import_model(proto, **how)
    verify(graph)
    expected = ReferenceEvaluator(proto).run(None, dict(feeds))
    names = [output.name for output in proto.graph.output]
    compare(evaluate(graph, dict(feeds)), dict(zip(names, map(np.asarray, expected))))
    return graph


def compare(
    got: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    floors: Mapping[str, float] | None = None,
) -> None:
    """AssertionError where names, types, shapes differ, or values beyond the table's tolerance."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        difference = tolerances.compare(got[name], array, floor=(floors or {}).get(name, 0.0))
        assert difference.ok, f"{name}: {difference.reason}"
