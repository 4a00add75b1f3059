"""Activations that are several element-wise steps on one value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attrs
from planish.ir.op import AttrSpec, OpDef, OpKind, Types
from planish.ir.ops import shapes
from planish.ir.ops.attributes import REQUIRED_TEXT
from planish.ir.ops.elementwise import sigmoid
from planish.ir.ops.erf import erf
from planish.ir.ops.precision import rounded
from planish.ir.types import TensorType

#: Of D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units" (arXiv 1606.08415).
GELU_CUBIC, GELU_SLOPE = 0.044715, math.sqrt(2 / math.pi)
GELU_FORMS = ("none", "tanh")


def _infer(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    shapes.float_dtype(inputs)
    return (inputs[0],)


def _infer_gelu(inputs: Types, attrs: Attrs) -> tuple[TensorType, ...]:
    if attrs["approximate"] not in GELU_FORMS:
        raise InvalidGraph(
            f"approximate must be one of {', '.join(GELU_FORMS)}, got '{attrs['approximate']}'"
        )
    return _infer(inputs, attrs)


def gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    """x/2 · (1 + erf(x/√2)), or the same with tanh of a cubic in place of erf."""
    if approximate == "none":
        bent = erf(x * math.sqrt(0.5))
    else:
        bent = np.tanh(GELU_SLOPE * (x + GELU_CUBIC * x**3))
    return np.asarray(0.5 * x * (1 + bent))


def hard_swish(x: np.ndarray) -> np.ndarray:
    """x · min(max(x/6 + 1/2, 0), 1)."""
    return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))


def silu(x: np.ndarray) -> np.ndarray:
    """x / (1 + exp(-x))."""
    return np.asarray(x * sigmoid(x))


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def mish(x: np.ndarray) -> np.ndarray:
    """x · tanh(softplus(x))."""
    return np.asarray(x * np.tanh(softplus(x)))


def _activation(
    name: str,
    summary: str,
    function: Callable[..., np.ndarray],
    flops: int,
    infer: Callable[[Types, Attrs], tuple[TensorType, ...]] = _infer,
    attrs: Mapping[str, AttrSpec] | None = None,
) -> OpDef:
    """An op on one float tensor; `function` gets it in float64; `flops` for an element."""

    def reference(arrays: Sequence[np.ndarray], values: Attrs) -> np.ndarray:
        return function(arrays[0].astype(np.float64), **values)

    def count(inputs: Types, outputs: Types, values: Attrs) -> int:
        return flops * outputs[0].elements

    kind = OpKind.ELEMENTWISE
    return OpDef(name, summary, kind, (1, 1), infer, rounded(reference), attrs or {}, count)


OPS: tuple[OpDef, ...] = (
    _activation(
        "gelu",
        "x/2 · (1 + erf(x/√2)); approximate=tanh: tanh(√(2/π) · (x + 0.044715 x³)) for erf",
        gelu,
        5,
        _infer_gelu,
        {"approximate": REQUIRED_TEXT},
    ),
    _activation("hard_swish", "x · min(max(x/6 + 1/2, 0), 1)", hard_swish, 5),
    _activation("silu", "x · sigmoid(x)", silu, 2),
    _activation("softplus", "log(1 + exp(x)), finite where exp(x) is not", softplus, 3),
    _activation("mish", "x · tanh(softplus(x))", mish, 5),
)
