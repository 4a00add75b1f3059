"""Ops that hold graphs: if, loop, scan and kernel.

A region reads nothing from outside: what it needs of the graph around it is passed as an input
(below: captures), the same values to each region.

    if      inputs cond, captures..; regions then(captures..), else(captures..)
    loop    inputs trip count, cond, carried.., captures..;
            body(iteration, cond, carried.., captures..) -> cond, carried.., collected..
    scan    inputs carried.., scanned.., captures..;
            body(carried.., one slice of each scanned.., captures..) -> carried.., collected..
    kernel  inputs as its body's

Results are those of a branch; the last carried values, then what was collected, stacked; those of
the body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from planish.ir.dim import Dim, DimLike
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs, Graph
from planish.ir.op import AttrSpec, Axis, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_INT, REQUIRED_INTS, REQUIRED_TEXT
from planish.ir.schedule import Schedule
from planish.ir.types import DType, TensorType

_CONDITION = TensorType(DType.BOOL, ())
_COUNT = TensorType(DType.INT64, ())


def region_types(
    op: str, inputs: Types, attrs: Attrs, regions: Sequence[Graph]
) -> tuple[TensorType, ...]:
    """Output types of an op of kind REGION; InvalidGraph where its graphs do not fit."""
    count = 2 if op == "if" else 1
    if len(regions) != count:
        raise InvalidGraph(f"{op} holds {count} graph{'s'[: count - 1]}, got {len(regions)}")
    return _RULES[op](inputs, attrs, regions)


def _need_types(expected: Types, found: Types, what: str) -> None:
    if list(expected) != list(found):
        wanted, got = (", ".join(map(str, types)) for types in (expected, found))
        raise InvalidGraph(f"{what} must be ({wanted}), got ({got})")


def _parameters(graph: Graph) -> list[TensorType]:
    return [value.type for value in graph.inputs]


def _results(graph: Graph) -> list[TensorType]:
    return [value.type for value in graph.outputs]


def _if_types(inputs: Types, attrs: Attrs, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    _need_types([_CONDITION], inputs[:1], "the condition")
    for name, region in zip(("then", "else"), regions):
        _need_types(inputs[1:], _parameters(region), f"the inputs of the {name} graph")
    then, other = map(_results, regions)
    _need_types(then, other, "the outputs of the else graph")
    return tuple(then)


def _loop_types(inputs: Types, attrs: Attrs, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    (body,) = regions
    carried = list(inputs[2 : 2 + attrs["carried"]])
    _need_types([_COUNT, _CONDITION], inputs[:2], "trip count and condition")
    _need_types([_COUNT, *inputs[1:]], _parameters(body), "the inputs of the body")
    results = _results(body)
    _need_types([_CONDITION, *carried], results[: 1 + len(carried)], "the body's first outputs")
    collected = results[1 + len(carried) :]
    if collected and attrs["trips"] is None:
        raise InvalidGraph("a loop that collects outputs needs the attribute trips, their length")
    return (*carried, *(TensorType(t.dtype, (attrs["trips"], *t.shape)) for t in collected))


def _scan_types(inputs: Types, attrs: Attrs, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    (body,) = regions
    states, scanned = attrs["carried"], len(attrs["input_axes"])
    carried, sequences = list(inputs[:states]), inputs[states : states + scanned]
    if not sequences or len(sequences) != scanned:
        raise InvalidGraph(f"input_axes names {scanned} scanned inputs, got {len(sequences)}")
    length, slices = _scanned(sequences, attrs["input_axes"])
    captures = inputs[states + scanned :]
    _need_types([*carried, *slices, *captures], _parameters(body), "the inputs of the body")
    results = _results(body)
    _need_types(carried, results[:states], "the body's first outputs")
    collected = results[states:]
    shapes.need_per_dimension(attrs, ("output_axes", "output_reverse"), len(collected))
    shapes.need_per_dimension(attrs, ("input_reverse",), scanned)
    stacked = (
        TensorType(t.dtype, (*t.shape[:axis], length, *t.shape[axis:]))
        for t, axis in zip(collected, attrs["output_axes"])
    )
    return (*carried, *stacked)


def _scanned(sequences: Types, axes: Sequence[int]) -> tuple[DimLike, list[TensorType]]:
    """The common length, and the types of the slices."""
    length = sequences[0].shape[axes[0]]
    slices = []
    for t, axis in zip(sequences, axes):
        length = shapes.unify(length, t.shape[axis], "the lengths of scanned inputs")
        slices.append(TensorType(t.dtype, t.shape[:axis] + t.shape[axis + 1 :]))
    return length, slices


def _kernel_types(inputs: Types, attrs: Attrs, regions: Sequence[Graph]) -> tuple[TensorType, ...]:
    (body,) = regions
    _need_types(inputs, _parameters(body), "the inputs of the body")
    return tuple(_results(body))


_RULES: dict[str, Callable[[Types, Attrs, Sequence[Graph]], tuple[TensorType, ...]]] = {
    "if": _if_types,
    "loop": _loop_types,
    "scan": _scan_types,
    "kernel": _kernel_types,
}


def _infer(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    raise InvalidGraph("output types follow from the graphs it holds: use region_types")


def _reference(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    raise InvalidGraph("its graphs are needed to compute: use planish.ir.reference.run_node")


def _flops(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    raise InvalidGraph("its work is that of its graphs: use planish.ir.cost.node_cost")


def _loops(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    raise InvalidGraph("its loops are those of the ops in its graphs")


def _region(name: str, fewest: int, attrs: dict[str, AttrSpec], summary: str) -> OpDef:
    arity = (fewest, None)
    return OpDef(name, summary, OpKind.REGION, arity, _infer, _reference, attrs, _flops, _loops)


OPS: tuple[OpDef, ...] = (
    _region("if", 1, {}, "The results of one of two graphs"),
    _region(
        "loop",
        2,
        {"carried": REQUIRED_INT, "trips": AttrSpec((int, Dim))},
        "A graph repeated at most `trip count` times while the condition holds",
    ),
    _region(
        "scan",
        1,
        {
            "carried": REQUIRED_INT,
            "input_axes": REQUIRED_INTS,
            "output_axes": REQUIRED_INTS,
            "input_reverse": REQUIRED_INTS,
            "output_reverse": REQUIRED_INTS,
        },
        "A graph applied to each slice of the scanned inputs in turn",
    ),
    _region(
        "kernel",
        0,
        {"name": REQUIRED_TEXT, "schedule": AttrSpec((Schedule,))},
        "A group of ops compiled as one function",
    ),
)
