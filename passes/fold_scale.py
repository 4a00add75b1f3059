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
from planish.passes.channels import (
    LINEAR,
    along_channels,
    channel_dim,
    per_channel,
    reads_constant_weights,
    scale_channels,
)
from planish.passes.pattern import AnyConstant, Match, Operation, Pattern, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite


def fold_scale(graph: Graph, target: Target) -> Graph:
    """Merge constants that vary along the output channels only (or are scalars).

        %1 = conv(%0, @w)
        %2 = add(%1, @a)             →     %1 = conv(%0, w·s)
        %3 = mul(%2, @s)                   %2 = add(%1, a·s + b)
        %4 = add(%3, @b)

    For conv, conv_transpose and matmul with constant weights and no other users; `div` and
    `neg` as `mul`. Chains of factors and addends without weights become one of each: a batch norm
    in two parts. It is refused where the weights would overflow.

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

    def along_channels(self, linear: Node, vector: np.ndarray) -> Constant:
        """A constant that broadcasts float64[channels] along those of a product."""
        made = along_channels(vector, linear.output.type, channel_dim(linear))
        self.values[made] = vector.reshape(made.type.static_shape)
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
    if not np.isfinite(factor).all():
        return Refusal("the factor is not finite")
    addend = None
    if "b" in match.captured:
        addend = _vector(exact, match, "b")
        if addend is None:
            return Refusal("what is added in between varies along more than the channels")
    product = exact.scale_channels(linear, factor)
    if addend is None or isinstance(product, Refusal):
        return product
    return emit("add", product, exact.along_channels(linear, addend * factor))


def _add(exact: _Unrounded, match: Match) -> Value | Refusal | None:
    linear = match.node("linear")
    first, second = _vector(exact, match, "b"), _vector(exact, match, "c")
    if first is None or second is None:
        return Refusal("an addend varies along more than the channels")
    return emit("add", linear.output, exact.along_channels(linear, first + second))


# --- without weights before them


def _merge(exact: _Unrounded, match: Match) -> Value | None:
    """(x·c)·d = x·(c·d), (x + c) + d = x + (c + d)."""
    name = match.root.op
    both = _combined(exact, name, match["c"], match["d"])
    return None if both is None else _of_type(match, emit(name, match["x"], both))


def _merge_affine(exact: _Unrounded, match: Match) -> Value | None:
    """(x·c + b)·d = x·(c·d) + b·d."""
    factor = _combined(exact, "mul", match["c"], match["d"])
    addend = _combined(exact, "mul", match["b"], match["d"])
    if factor is None or addend is None:
        return None
    return _of_type(match, emit("add", emit("mul", match["x"], factor), addend))


def _of_type(match: Match, made: Value) -> Value | None:
    return made if made.type == match.root.output.type else None


def _combined(exact: _Unrounded, name: str, a: Value, b: Value) -> Value | None:
    """Sum or product of constants; None if it is larger than both, or overflows."""
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
    return made if np.isfinite(made.data.astype(np.float64)).all() else None


def _float_constant(name: str) -> AnyConstant:
    return const(name, lambda found: found.type.dtype.is_float)


def _chain(name: str, inner: Pattern, constant_name: str) -> Operation:
    second = _float_constant(constant_name)
    return op(name, inner, second, commutative=True, single_use=True)


_Build = Callable[[_Unrounded, Match], Value | Refusal | None]

_SCALED = _chain("mul", value("x"), "c")
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
    ("factors", _chain("mul", _SCALED, "d"), _merge),
    ("addends", _chain("add", _chain("add", value("x"), "c"), "d"), _merge),
    ("factor of a scaled sum", _chain("mul", _chain("add", _SCALED, "b"), "d"), _merge_affine),
)


def _rules(exact: _Unrounded) -> tuple[Rule, ...]:
    """The rules of one run, which share what they have not rounded."""
    return tuple(Rule(name, where, partial(build, exact)) for name, where, build in _PATTERNS)
