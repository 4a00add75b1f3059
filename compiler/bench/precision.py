"""How far engines are from the exact result: their errors against the reference in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planish.ir.builder import make_node
from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Attr, Constant, Graph, Input, Value, constant
from planish.ir.reference import evaluate
from planish.ir.types import DType, TensorType

Arrays = Mapping[str, np.ndarray]

#: The types whose rounding is the error that is measured.
_ROUNDED = frozenset({DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16})


@dataclass(frozen=True, slots=True)
class Error:
    """The error of all floating-point outputs, the worst output's each.

    `largest` is the largest absolute error by the output's largest magnitude, `rms` the root mean
    square of the errors by that of the output.
    """

    largest: float
    rms: float


def in_float64(graph: Graph) -> Graph:
    """The same graph with float64 in place of float16, bfloat16 and float32, casts included.

    UnsupportedModel where the graph holds graphs (If, Loop, Scan).
    """
    inputs = tuple(Input(_wide_type(value.type), value.name) for value in graph.inputs)
    new: dict[Value, Value] = dict(zip(graph.inputs, inputs))
    for node in graph.nodes:
        if node.regions:
            raise UnsupportedModel(
                f"{node.where()}: the precision check does not open control flow; leave it out"
            )
        operands = [_widened(value, new) for value in node.inputs]
        attrs = {name: _wide_attribute(value) for name, value in node.attrs.items()}
        made = make_node(node.op, operands, attrs, provenance=node.provenance)
        new.update(zip(node.outputs, made.outputs))
    outputs = tuple(_widened(value, new) for value in graph.outputs)
    return Graph(inputs, outputs, graph.output_names, graph.name)


def exact_outputs(graph: Graph, inputs: Arrays) -> dict[str, np.ndarray]:
    """The outputs of `graph` on the given inputs, computed in float64 by the numpy reference."""
    wide = in_float64(graph)
    given = {value.name: inputs[value.name].astype(value.type.dtype.numpy) for value in wide.inputs}
    return evaluate(wide, given)


def error_of(actual: Arrays, exact: Arrays) -> Error:
    """The error of an engine's outputs; infinite where NaN or infinity stands for a number.

    Outputs of integers and bools, and places where the exact result is not finite, are left out.
    """
    largest = rms = 0.0
    for name, expected in exact.items():
        finite = np.isfinite(expected)
        if expected.dtype.kind != "f" or not finite.any():
            continue
        wanted = expected[finite]
        off = actual[name].astype(np.float64)[finite] - wanted
        if not np.isfinite(off).all():
            return Error(math.inf, math.inf)
        # An output of zeros has no magnitude to measure by: then the error itself.
        largest = max(largest, float(np.abs(off).max()) / (float(np.abs(wanted).max()) or 1.0))
        rms = max(rms, float(np.linalg.norm(off)) / (float(np.linalg.norm(wanted)) or 1.0))
    return Error(largest, rms)


def _wide_type(type_: TensorType) -> TensorType:
    return TensorType(DType.FLOAT64, type_.shape) if type_.dtype in _ROUNDED else type_


def _wide_attribute(value: Attr) -> Attr:
    return DType.FLOAT64 if isinstance(value, DType) and value in _ROUNDED else value


def _widened(value: Value, new: dict[Value, Value]) -> Value:
    if isinstance(value, Constant) and value not in new:
        wide = value.type.dtype in _ROUNDED
        new[value] = constant(value.data.astype(np.float64), value.name) if wide else value
    return new[value]
