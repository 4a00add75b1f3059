"""Turns the chains that exporters write for normalisations and softmax into one op each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from planish.ir.builder import emit
from planish.ir.dim import DimLike
from planish.ir.graph import Constant, Graph, Node, Result, Value, constant
from planish.ir.target import Target
from planish.ir.types import DType
from planish.passes.arithmetic_form import number_of
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite
from planish.passes.rounding import (
    refuse_addend,
    refuse_factor,
    refuse_overflow,
    refuse_sum,
    round_weights,
)

#: How far a factor may be from 1/n, relative, to be taken for it: what rounding to the type leaves.
_NEAR = {DType.FLOAT16: 6e-4, DType.BFLOAT16: 3e-3, DType.FLOAT64: 1e-12}
_NEAR_FLOAT32 = 5e-7


def recognize_norms(graph: Graph, target: Target) -> Graph:
    """Rewrite layer norm, RMS norm and softmax from their parts.

    before: %1 = reduce_mean(%x, axes=[2], keepdims=true)   %2 = sub(%x, %1)   %3 = mul(%2, %2)
            %4 = reduce_mean(%3, axes=[2], keepdims=true)   %5 = add(%4, 1e-5) %6 = sqrt(%5)
            %7 = div(%2, %6)   %8 = mul(%7, @scale)   %9 = add(%8, @bias)
    after:  %9 = layer_norm(%x, @scale, @bias, axis=2, epsilon=1e-5)

    The variance may be E[x²] - E[x]², means sums times 1/n, and reshapes may put reduced
    dimensions back; scale and bias may be missing, or joined to the deviation first. Rows that
    are not the last dimensions stay as they are: two passes over columns in vectors cost less
    than transposing there and back. Powers over their sum are a softmax if their exponents are
    x - max(x): else they overflow where a softmax does not.
    """
    return rewrite(graph, _RULES)


@dataclass(slots=True)
class _Path:
    """Steps back from a value; remembers the nodes, whose names the new node inherits."""

    nodes: list[Node] = field(default_factory=list)

    def inputs(self, found: Value, *ops: str) -> tuple[Value, ...] | None:
        """The inputs of the node that computes `found`, if it is of one of `ops`."""
        if not isinstance(found, Result) or found.node.op not in ops:
            return None
        self.nodes.append(found.node)
        return found.node.inputs

    def provenance(self) -> list[str]:
        """The names of the nodes passed, first to last."""
        return [name for node in reversed(self.nodes) for name in node.provenance]

    # --- numbers

    def shifted(self, found: Value) -> tuple[Value, float] | None:
        """x and the number in x + number."""
        for inner, number in _pairs(self.inputs(found, "add")):
            if number_of(number) is not None:
                return inner, number_of(number) or 0.0
        return None

    def product(self, found: Value) -> Iterator[tuple[Value, Value]]:
        """Both readings of a product."""
        yield from _pairs(self.inputs(found, "mul"))

    # --- statistics, whatever ones their shapes have

    def mean(self, found: Value) -> tuple[Value, tuple[int, ...]] | None:
        """What a value is the mean of, and over which axes."""
        found = self.kept(found)
        if isinstance(found, Result) and found.node.op == "reduce_mean":
            self.nodes.append(found.node)
            return found.node.inputs[0], found.node.attrs["axes"]
        total = self._scaled_sum(found)
        if total is None:
            return None
        node, factor = total
        count = _count(node.inputs[0], node.attrs["axes"])
        near = _NEAR.get(found.type.dtype, _NEAR_FLOAT32)
        if count is None or not math.isclose(factor * count, 1.0, rel_tol=near):
            return None
        return node.inputs[0], node.attrs["axes"]

    def _scaled_sum(self, found: Value) -> tuple[Node, float] | None:
        readings = [(a, number_of(b)) for a, b in self.product(found)]
        divided = self.inputs(found, "div")
        if divided is not None and number_of(divided[1]):
            readings.append((divided[0], 1.0 / (number_of(divided[1]) or 1.0)))
        for inner, factor in readings:
            inner = self.kept(inner)
            if factor is not None and self.inputs(inner, "reduce_sum") is not None:
                assert isinstance(inner, Result)
                return inner.node, factor
        return None

    def kept(self, found: Value) -> Value:
        """The value before reshapes that only put ones in or leave them out."""
        while isinstance(found, Result) and found.node.op == "reshape":
            inner = found.node.inputs[0]
            if _without_ones(inner) != _without_ones(found):
                break
            self.nodes.append(found.node)
            found = inner
        return found

    def square(self, found: Value) -> Value | None:
        """x in x·x or x to the power of 2."""
        operands = self.inputs(found, "mul", "pow")
        if operands is None:
            return None
        if operands[0] is operands[1] and self.nodes[-1].op == "mul":
            return operands[0]
        return operands[0] if self.nodes[-1].op == "pow" and number_of(operands[1]) == 2 else None


def _pairs(inputs: tuple[Value, ...] | None) -> Iterator[tuple[Value, Value]]:
    if inputs is not None:
        yield inputs[0], inputs[1]
        yield inputs[1], inputs[0]


def _count(found: Value, axes: Sequence[int]) -> int | None:
    """The number of elements of a mean, if it is known."""
    extents = _known([found.type.shape[axis] for axis in axes])
    return None if extents is None else math.prod(extents)


def _known(shape: Sequence[DimLike]) -> tuple[int, ...] | None:
    """The extents, if none is symbolic."""
    known = tuple(n for n in shape if isinstance(n, int))
    return known if len(known) == len(shape) else None


def _without_ones(found: Value) -> list[object]:
    return [n for n in found.type.shape if n != 1]


@dataclass(frozen=True, slots=True)
class _Inverse:
    """1 / sqrt(variance + epsilon) of `x` over `axes`; of x itself if not centred."""

    x: Value
    axes: tuple[int, ...]
    epsilon: float
    centred: bool


def _inverse_of(path: _Path, found: Value) -> _Inverse | None:
    """The inverse deviation, from whichever form of it `found` is."""
    found = path.kept(found)
    inverted = path.inputs(found, "reciprocal")
    if inverted is not None:
        return _deviation(path, inverted[0])
    divided = path.inputs(found, "div")
    if divided is not None:
        return _deviation(path, divided[1]) if number_of(divided[0]) == 1 else None
    power = path.inputs(found, "pow")
    if power is not None:
        return _variance(path, power[0]) if number_of(power[1]) == -0.5 else None
    return None


def _deviation(path: _Path, found: Value) -> _Inverse | None:
    root = path.inputs(path.kept(found), "sqrt")
    if root is None:
        power = path.inputs(path.kept(found), "pow")
        if power is None or number_of(power[1]) != 0.5:
            return None
        root = power
    return _variance(path, root[0])


def _variance(path: _Path, found: Value) -> _Inverse | None:
    """variance + epsilon, the variance as E[(x - E[x])²], E[x²] - E[x]² or E[x²] (RMS)."""
    sum_ = path.shifted(path.kept(found))
    if sum_ is None:
        return None
    variance, epsilon = path.kept(sum_[0]), sum_[1]
    clipped = path.inputs(variance, "relu")
    difference = path.inputs(path.kept(clipped[0]) if clipped else variance, "sub")
    if difference is not None:
        return _difference_of_squares(path, difference[0], difference[1], epsilon)
    mean = path.mean(variance)
    base = None if mean is None else path.square(mean[0])
    if mean is None or base is None:
        return None
    x = _centred(path, base, mean[1])
    if x is None:
        return _Inverse(base, mean[1], epsilon, centred=False)
    return _Inverse(x, mean[1], epsilon, centred=True)


def _difference_of_squares(
    path: _Path, squares: Value, square: Value, epsilon: float
) -> _Inverse | None:
    if squares.type != square.type:
        return None
    of_square, root = path.mean(squares), path.square(path.kept(square))
    mean = None if root is None else path.mean(root)
    if of_square is None or mean is None or mean[1] != of_square[1]:
        return None
    if path.square(of_square[0]) is not mean[0]:
        return None
    return _Inverse(mean[0], mean[1], epsilon, centred=True)


def _centred(path: _Path, found: Value, axes: tuple[int, ...]) -> Value | None:
    """x in x - E[x] over `axes`."""
    difference = path.inputs(found, "sub")
    if difference is None:
        return None
    x, top = difference
    mean = path.mean(top)
    if mean is None or mean[0] is not x or mean[1] != axes or not _is_reduced(top, x, axes):
        return None
    return x


def _is_reduced(statistic: Value, x: Value, axes: tuple[int, ...]) -> bool:
    """True if a statistic of x has ones in place of the axes, where broadcasting needs them."""
    shape = x.type.shape
    return statistic.type.shape == tuple(1 if i in axes else n for i, n in enumerate(shape))


def _normalised(match: Match) -> Value | Refusal | None:
    """Products and quotients that are a normalised value, perhaps times a constant."""
    root = match.root
    operands = root.inputs
    if root.op == "div":
        return _norm(root, operands[0], operands[1], None)
    for numerator, factor in _pairs(operands):
        readings: list[tuple[Value, Constant | None]] = [(factor, None)]
        readings += [(a, b) for a, b in _Path().product(factor) if isinstance(b, Constant)]
        for inverse, scale in readings:
            found = _norm(root, numerator, inverse, scale)
            if found is not None:
                return found
    return None


def _norm(
    root: Node, numerator: Value, by: Value, scale: Constant | None
) -> Value | Refusal | None:
    """The normalisation of `numerator`, if `by` is the deviation (or its inverse) of it."""
    path = _Path([root])
    inverse = _deviation(path, by) if root.op == "div" else _inverse_of(path, by)
    if inverse is None:
        return None
    x, axes = inverse.x, inverse.axes
    centred = _centred(path, numerator, axes) if inverse.centred else numerator
    if centred is not x or x.type != root.output.type or not _is_reduced(by, x, axes):
        return None
    rank = x.type.rank
    first = rank - len(axes)
    if axes != tuple(range(first, rank)):
        return Refusal("the normalised dimensions are not the last")
    inner = _known(x.type.shape[first:])
    if inner is None:
        return Refusal("the normalised extents are not known")
    refusal = None if scale is None else refuse_factor(_data(scale), x.type.dtype)
    if refusal is not None:
        return refusal
    ones = np.ones(inner, x.type.dtype.numpy)
    attrs = {"axis": first, "epsilon": inverse.epsilon}
    names = path.provenance()
    if inverse.centred:
        zeros = constant(np.zeros_like(ones))
        result = emit("layer_norm", x, constant(ones), zeros, provenance=names, **attrs)
    else:
        result = emit("rms_norm", x, constant(ones), provenance=names, **attrs)
    return result if scale is None else emit("mul", result, scale)


def _parameter(found: Value, norm: Node) -> np.ndarray | None:
    """A constant as scale or bias, float64: it must not vary over what is not normalised."""
    inner = norm.inputs[1].type.static_shape
    assert isinstance(found, Constant)
    lead = found.data.shape[: max(0, found.data.ndim - len(inner))]
    if math.prod(lead) != 1 or found.type.rank > norm.output.type.rank:
        return None
    data = _data(found).reshape(found.data.shape[len(lead) :])
    return np.broadcast_to(data, inner)


def _scaled_norm(match: Match) -> Value | Refusal | None:
    """The parameters times a constant."""
    norm = match.node("norm")
    factor, dtype = _parameter(match["c"], norm), norm.output.type.dtype
    if factor is None or not all(isinstance(v, Constant) for v in norm.inputs[1:]):
        return None
    x, scale, *bias = norm.inputs
    refusal = refuse_factor(factor, dtype)
    if refusal is None and bias:
        refusal = refuse_addend(_data(bias[0]), float(np.abs(_data(scale)).max()), dtype)
    if refusal is not None:
        return refusal
    axes = tuple(range(scale.type.rank))
    scaled = [round_weights(_data(found) * factor, dtype, (axes,)) for found in (scale, *bias)]
    rounded = [constant(data) for data in scaled if not isinstance(data, Refusal)]
    if len(rounded) < len(scaled):
        return Refusal("the scaled parameters overflow, or would lose digits")
    return emit(norm.op, x, *rounded, **norm.attrs)


def _data(parameter: Value) -> np.ndarray:
    assert isinstance(parameter, Constant)
    return np.asarray(parameter.data.astype(np.float64))


def _shifted_norm(match: Match) -> Value | Refusal | None:
    """The bias plus a constant; a normalised value is about as large as its scale."""
    norm = match.node("norm")
    shift, dtype = _parameter(match["c"], norm), norm.output.type.dtype
    x, scale, bias = norm.inputs
    if shift is None or not isinstance(bias, Constant):
        return None
    size = float(np.abs(_data(scale)).max()) if isinstance(scale, Constant) else 1.0
    total = _data(bias) + shift
    refusal = refuse_sum(_data(bias), shift, size, dtype) or refuse_overflow(total, dtype)
    if refusal is not None:
        return refusal
    return emit("layer_norm", x, scale, constant(total.astype(dtype.numpy)), **norm.attrs)


# --- softmax


def _softmax(match: Match) -> Value | Refusal | None:
    """exp(x) / sum(exp(x)), the quotient also as product with a reciprocal."""
    root = match.root
    pairs = [(root.inputs[0], root.inputs[1])]
    path = _Path([root])
    if root.op == "mul":
        inverted = [(a, path.inputs(path.kept(b), "reciprocal")) for a, b in _pairs(root.inputs)]
        pairs = [(a, b[0]) for a, b in inverted if b is not None]
    for powers, total in pairs:
        summed = path.kept(total)
        exponents = path.inputs(powers, "exp")
        terms = path.inputs(summed, "reduce_sum")
        if exponents is None or terms is None or terms[0] is not powers:
            continue
        assert isinstance(summed, Result)
        axes = summed.node.attrs["axes"]
        if len(axes) != 1 or not _is_reduced(total, powers, axes):
            return None
        if not _is_shifted(exponents[0], axes):
            return Refusal("without the maximum taken away, exp overflows where softmax does not")
        names = path.provenance()
        return emit("softmax", exponents[0], axis=axes[0], provenance=names)
    return None


def _unshifted(match: Match) -> Value | None:
    """softmax(x - max(x)) = softmax(x), which subtracts the maximum itself."""
    root, x = match.root, match["x"]
    axis, path = root.attrs["axis"], _Path([root])
    if x.type != root.output.type or not _is_maximum(path, match["top"], x, (axis,)):
        return None
    return emit("softmax", x, axis=axis, provenance=path.provenance())


def _is_maximum(path: _Path, found: Value, x: Value, axes: tuple[int, ...]) -> bool:
    """True if a value is the largest of x over `axes`, perhaps bounded by -infinity below."""
    top = path.kept(found)
    for inner, bound in _pairs(path.inputs(top, "maximum")):
        if number_of(bound) == -math.inf:
            top = path.kept(inner)
    terms = path.inputs(top, "reduce_max")
    if terms is None or terms[0] is not x:
        return False
    assert isinstance(top, Result)
    return top.node.attrs["axes"] == axes and _is_reduced(found, x, axes)


def _is_shifted(exponents: Value, axes: tuple[int, ...]) -> bool:
    """True for x - max(x): then no power overflows."""
    operands = _Path().inputs(exponents, "sub")
    return operands is not None and _is_maximum(_Path(), operands[1], operands[0], axes)


_NORM = ("layer_norm", "rms_norm")
_RULES: tuple[Rule, ...] = (
    Rule("softmax of its parts", op(("div", "mul")), _softmax),
    Rule(
        "softmax subtracts the maximum",
        op("softmax", op("sub", value("x"), value("top"))),
        _unshifted,
    ),
    Rule("norm of its parts", op(("div", "mul")), _normalised),
    Rule(
        "norm times a constant",
        op("mul", op(_NORM, name="norm", single_use=True), const("c"), commutative=True),
        _scaled_norm,
    ),
    Rule(
        "norm plus a constant",
        op("add", op("layer_norm", name="norm", single_use=True), const("c"), commutative=True),
        _shifted_norm,
    ),
)
