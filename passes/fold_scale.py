"""Fold per-channel factors and addends behind convolutions and products into weights and bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Node, Result, Value, constant
from planish.ir.target import Target
from planish.ir.types import DType
from planish.passes.channels import (
    LINEAR,
    add_along_channels,
    channel_dim,
    largest_row,
    per_channel,
    reads_constant_weights,
    scale_channels,
)
from planish.passes.pattern import AnyConstant, Match, Operation, Pattern, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite
from planish.passes.rounding import (
    may_join_addends,
    may_join_factors,
    refuse_addend,
    refuse_factor,
    refuse_sum,
)


def fold_scale(graph: Graph, target: Target) -> Graph:
    """Merge constants that vary along the output channels only (or are scalars).

        %1 = conv(%0, @w)
        %2 = add(%1, @a)             →     %1 = conv(%0, w·s)
        %3 = mul(%2, @s)                   %2 = add(%1, a·s + b)
        %4 = add(%3, @b)

    For conv, conv_transpose and matmul with constant weights and no other users; `div` and
    `neg` as `mul`. Without weights, factors that all enlarge or all lessen become one, and so do
    addends of one sign whose sum is exact. `planish.passes.rounding` says where it is refused.

    Not exact: weights and biases are rounded in place of results. However long the chain, each is
    its formula in float64, rounded once. Rounded at each step it would keep the error of the
    largest term on the way where terms cancel; and one that all pixels share does not average
    out in later layers.
    """
    return rewrite(graph, _rules(_Unrounded()))


@dataclass(frozen=True, slots=True)
class _Unrounded:
    """What the constants made so far were before they were rounded.

    `values` holds addends and factors in float64; `scaled` the weights that scaled ones were made
    of and their factors, float64[channels].
    """

    values: dict[Constant, np.ndarray] = field(default_factory=dict)
    scaled: dict[Constant, tuple[Constant, np.ndarray]] = field(default_factory=dict)

    def data(self, found: Value) -> np.ndarray:
        """The value of a constant, float64."""
        assert isinstance(found, Constant)
        wide = self.values.get(found)
        return found.data.astype(np.float64) if wide is None else wide

    def rounded(self, wide: np.ndarray, dtype: np.dtype[Any]) -> Constant:
        """A constant of the given type for a float64 value."""
        with np.errstate(all="ignore"):
            made = constant(wide.astype(dtype))
        self.values[made] = wide
        return made

    def add(self, linear: Node, product: Value, vector: np.ndarray) -> Value | Refusal:
        """What takes the place of a product, plus float64[channels] along its channels."""
        made = add_along_channels(product, vector, channel_dim(linear))
        if isinstance(made, Result):
            addend = made.node.inputs[1]
            assert isinstance(addend, Constant)
            self.values[addend] = vector.reshape(addend.type.static_shape)
        return made

    def scale_channels(self, linear: Node, factor: np.ndarray) -> Value | Refusal:
        """The product scaled, by weights that are rounded from the first ones."""
        current = linear.inputs[1]
        assert isinstance(current, Constant)
        first, before = self.scaled.get(current, (current, np.ones_like(factor)))
        original = emit(linear.op, linear.inputs[0], first, **linear.attrs)
        assert isinstance(original, Result)
        product = scale_channels(original.node, before * factor)
        if isinstance(product, Result):
            made = product.node.inputs[1]
            assert isinstance(made, Constant)
            self.scaled[made] = first, before * factor
        return product


def _vector(exact: _Unrounded, match: Match, name: str) -> np.ndarray | None:
    """A captured constant along the channels of the product, float64; None if it varies more."""
    linear = match.node("linear")
    return per_channel(exact.data(match[name]), linear.output.type, channel_dim(linear))


def _factor(exact: _Unrounded, match: Match) -> np.ndarray | None:
    """What the root multiplies the channels by, float64; None if that varies more."""
    if match.root.op == "neg":
        linear = match.node("linear")
        return per_channel(np.array([-1.0]), linear.output.type, channel_dim(linear))
    factor = _vector(exact, match, "s")
    if factor is None or match.root.op == "mul":
        return factor
    with np.errstate(all="ignore"):
        return np.asarray(1.0 / factor)


def _scale(exact: _Unrounded, match: Match) -> Value | Refusal | None:
    linear, factor = match.node("linear"), _factor(exact, match)
    if factor is None:
        return Refusal("the factor varies along more than the channels")
    addend = None
    if "b" in match.captured:
        addend = _vector(exact, match, "b")
        if addend is None:
            return Refusal("what is added in between varies along more than the channels")
        large = refuse_addend(addend, largest_row(linear), linear.output.type.dtype)
        if large is not None:
            return large
    product = exact.scale_channels(linear, factor)
    if addend is None or isinstance(product, Refusal):
        return product
    return exact.add(linear, product, addend * factor)


def _add(exact: _Unrounded, match: Match) -> Value | Refusal | None:
    linear = match.node("linear")
    first, second = _vector(exact, match, "b"), _vector(exact, match, "c")
    if first is None or second is None:
        return Refusal("an addend varies along more than the channels")
    refusal = refuse_sum(first, second, largest_row(linear), linear.output.type.dtype)
    if refusal is not None:
        return refusal
    return exact.add(linear, linear.output, first + second)


# --- without weights before them


def _merge(exact: _Unrounded, match: Match) -> Value | None:
    """(x·c)·d = x·(c·d), (x + c) + d = x + (c + d), where that holds for any x."""
    codes = _are_codes(match["x"])
    both = _combined(exact, match.root.op, match["c"], match["d"], codes)
    if both is None:
        return None
    made = emit(match.root.op, match["x"], both)
    return made if made.type == match.root.output.type else None


def _are_codes(x: Value) -> bool:
    """True for whole numbers of at most 17 bits: those of a quantised tensor, less a zero point."""
    if isinstance(x, Result) and x.node.op == "add":
        (inner, zero) = x.node.inputs
        if not isinstance(zero, Constant):
            return False
        if (np.abs(zero.data) > 2**16).any() or (np.rint(zero.data) != zero.data).any():
            return False
        x = inner
    if not isinstance(x, Result) or x.node.op != "cast" or x.type.dtype is not DType.FLOAT32:
        return False
    source = x.node.inputs[0].type.dtype
    return source.is_integer and source.itemsize <= 2


def _combined(exact: _Unrounded, name: str, a: Value, b: Value, codes: bool) -> Value | None:
    """Sum or product of constants; None if it is larger than both, or must stay apart.

    Factors of codes are anything that is far from what over- or underflows.
    """
    left, right = exact.data(a), exact.data(b)
    try:
        size = np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        return None
    if int(np.prod(size)) > max(left.size, right.size):
        return None
    with np.errstate(all="ignore"):
        wide = np.asarray(left * right if name == "mul" else left + right)
        made = exact.rounded(wide, a.type.dtype.numpy)
        if name == "mul":
            joins = may_join_factors(left, right, made.data, a.type.dtype) or (
                codes and not any(refuse_factor(f, DType.FLOAT32) for f in (left, wide))
            )
        else:
            joins = may_join_addends(left, right, made.data)
    return made if joins else None


def _float_constant(name: str) -> AnyConstant:
    return const(name, lambda found: found.type.dtype.is_float)


def _chain(name: str, inner: Pattern, constant_name: str) -> Operation:
    second = _float_constant(constant_name)
    return op(name, inner, second, commutative=True, single_use=True)


_Build = Callable[[_Unrounded, Match], Value | Refusal | None]

_LINEAR = op(LINEAR, where=reads_constant_weights, single_use=True, name="linear")
_BIASED = op("add", _LINEAR, const("b"), commutative=True, single_use=True)

_PATTERNS: tuple[tuple[str, Operation, _Build], ...] = (
    ("scale weights", op("mul", _LINEAR, const("s"), commutative=True), _scale),
    ("divide weights", op("div", _LINEAR, const("s")), _scale),
    ("negate weights", op("neg", _LINEAR), _scale),
    ("scale weights and bias", op("mul", _BIASED, const("s"), commutative=True), _scale),
    ("divide weights and bias", op("div", _BIASED, const("s")), _scale),
    ("negate weights and bias", op("neg", _BIASED), _scale),
    ("add biases", op("add", _BIASED, const("c"), commutative=True), _add),
    ("factors", _chain("mul", _chain("mul", value("x"), "c"), "d"), _merge),
    ("addends", _chain("add", _chain("add", value("x"), "c"), "d"), _merge),
)


def _rules(exact: _Unrounded) -> tuple[Rule, ...]:
    """The rules of one run, which share what they have not rounded."""
    return tuple(Rule(name, where, partial(build, exact)) for name, where, build in _PATTERNS)
