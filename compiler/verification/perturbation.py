"""The same model with inputs and weights off by less than anything means: what rounding can do,
and processors that take subnormal numbers for zeros.

Numbers move by a relative 1e-6, or by a unit in the last place where their type is coarser. Where
that moves a result, no two implementations agree on it, and none of them is wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from planish.ir.graph import Constant, Graph, Node, Value, constant, with_inputs
from planish.ir.onnx.model import Located, Source
from planish.ir.subnormals import flush_subnormals
from planish.ir.types import DType

#: How far numbers move, relative to themselves.
RELATIVE = 1e-6

#: Arrays of fewer elements are parameters (thresholds, exponents, epsilons) rather than weights:
#: rounding does not touch them, and a comparison with a moved one answers another question.
_FEWEST = 8

#: Ops whose floating-point operands of one element are weights all the same: they are scales.
_SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})


def perturbed(
    array: np.ndarray, rng: np.random.Generator, relative: float = RELATIVE
) -> np.ndarray:
    """`array` with its numbers moved at random; whole numbers and what is not finite stay."""
    if array.dtype.kind in "iub" or not DType.of(array.dtype).is_float or not array.size:
        return array
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        if np.array_equal(wide, np.rint(wide), equal_nan=True):
            return array  # flags, identifiers, lengths, or pixels: values that somebody chose
        step = max(relative, float(ml_dtypes.finfo(array.dtype).eps))
        return (wide * (1 + step * rng.uniform(-1, 1, array.shape))).astype(array.dtype)


def perturbed_inputs(
    inputs: Mapping[str, np.ndarray], rng: np.random.Generator, relative: float = RELATIVE
) -> dict[str, np.ndarray]:
    """All of them, each moved."""
    return {name: perturbed(array, rng, relative) for name, array in inputs.items()}


def perturbed_graph(graph: Graph, rng: np.random.Generator) -> Graph:
    """The graph with its weights moved."""
    return _with_weights(graph, lambda data: perturbed(data, rng) if data.size >= _FEWEST else data)


def flushed_graph(graph: Graph) -> Graph:
    """The graph with zeros for its weights' subnormal numbers; itself where it has none."""
    return _with_weights(graph, flush_subnormals)


def _with_weights(graph: Graph, change: Callable[[np.ndarray], np.ndarray]) -> Graph:
    weights = [value for value in graph.values() if isinstance(value, Constant)]
    changed = {value: change(value.data) for value in weights}
    new: dict[Value, Value] = {
        value: constant(data, value.name)
        for value, data in changed.items()
        if data is not value.data
    }
    if not new:
        return graph

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        moved = tuple(new.get(value, value) for value in inputs)
        return None if moved == inputs else with_inputs(node, moved).outputs

    return graph.rebuild(rewrite)


def perturbed_model(source: Source | Located, rng: np.random.Generator) -> bytes:
    """The ONNX model with its weights moved.

    Raises ValueError or a protobuf error for a model too large to be held in one piece (2 GiB).
    """
    model = _copy(source)
    for graph in _graphs(model.graph):
        scales = {
            name for node in graph.node if node.op_type in _SCALED for name in node.input[1:2]
        }
        for tensor, name in _weights(graph):
            if (tensor.dims and np.prod(tensor.dims) >= _FEWEST) or name in scales:
                _replace(tensor, perturbed(numpy_helper.to_array(tensor), rng))
    return model.SerializeToString()  # type: ignore[no-any-return]


def flushed_model(source: Source | Located) -> bytes:
    """The ONNX model with zeros for its weights' subnormal numbers; raises as perturbed_model."""
    model = _copy(source)
    for graph in _graphs(model.graph):
        for tensor, _ in _weights(graph):
            array = numpy_helper.to_array(tensor)
            flushed = flush_subnormals(array)
            if flushed is not array:
                _replace(tensor, flushed)
    return model.SerializeToString()  # type: ignore[no-any-return]


def _replace(tensor: TensorProto, array: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _copy(source: Source | Located) -> ModelProto:
    if isinstance(source, Located):
        model = _copy(source.model)
        load_external_data_for_model(model, os.fspath(source.folder))
        return model
    if isinstance(source, bytes):
        return onnx.load_from_string(source)
    if isinstance(source, ModelProto):
        model = ModelProto()
        model.CopyFrom(source)
        return model
    return onnx.load(os.fspath(source))


_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _weights(graph: GraphProto) -> Iterator[tuple[TensorProto, str]]:
    """Initializers and constants of floating-point numbers, and the names they are read by."""
    for tensor in graph.initializer:
        if tensor.data_type in _FLOATS:
            yield tensor, tensor.name
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and attribute.t.data_type in _FLOATS:
                    yield attribute.t, node.output[0]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)
