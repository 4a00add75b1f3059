"""What the op table says of one op."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from planish.ir.graph import Attr, Attrs
from planish.ir.types import TensorType


class OpKind(enum.Enum):
    """How an op reads its inputs; fusion and lowering go by it."""

    ELEMENTWISE = "elementwise"  # out[i] from in[i], inputs broadcast as numpy does
    MOVEMENT = "movement"  # out[i] from in[j], j from i: an element, a fill, or a pair turned
    REDUCTION = "reduction"  # out[i] from a set of in[i, r]
    CONTRACTION = "contraction"  # sums of products: matmul and convolutions
    COMPOSITE = "composite"  # several stages over the same rows: softmax, layer_norm
    EMITTED = "emitted"  # TensorIR written by an emitter: recurrent cells, top-k
    REGION = "region"  # holds graphs: if, loop, scan, kernel


@dataclass(frozen=True, slots=True)
class AttrSpec:
    """Type and default of an attribute; `required` attributes have no default."""

    types: tuple[type, ...]
    default: Attr = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A named loop of an op: extent in elements; `reduce` loops carry a sum or the like."""

    name: str
    extent: int
    reduce: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one call: floating-point (or integer) operations, and bytes read plus written."""

    flops: int
    bytes: int


Types = Sequence[TensorType]
Infer = Callable[[Types, Attrs], tuple[TensorType, ...]]
Reference = Callable[[Sequence[np.ndarray], Attrs], tuple[np.ndarray, ...]]


def _output_axes(inputs: Types, outputs: Types, attrs: Attrs) -> tuple[Axis, ...]:
    return tuple(Axis(f"d{i}", n) for i, n in enumerate(outputs[0].static_shape))


def _one_flop_an_element(inputs: Types, outputs: Types, attrs: Attrs) -> int:
    return sum(t.elements for t in outputs)


@dataclass(frozen=True, slots=True)
class OpDef:
    """All that the IR knows of an op; its tensor expression stands in `planish.targets`.

    `infer` gives the output types or raises InvalidGraph with what was expected and got.
    `reference` computes the op with numpy. `flops` and `axes` are for static types.
    `arity` is (fewest, most) inputs; most None means any number.
    """

    name: str
    summary: str
    kind: OpKind
    arity: tuple[int, int | None]
    infer: Infer
    reference: Reference
    attrs: Mapping[str, AttrSpec] = field(default_factory=dict)
    flops: Callable[[Types, Types, Attrs], int] = _one_flop_an_element
    axes: Callable[[Types, Types, Attrs], tuple[Axis, ...]] = _output_axes

    def cost(self, inputs: Types, outputs: Types, attrs: Attrs) -> Cost:
        """Flops and bytes of one call on static types."""
        moved = sum(t.nbytes for t in (*inputs, *outputs))
        return Cost(self.flops(inputs, outputs, attrs), moved)
