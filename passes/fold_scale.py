"""Fold per-channel factors and addends behind convolutions and products into weights and bias."""

from __future__ import annotations

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Value, constant
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
    in two parts. Not exact: weights are rounded once in place of results, an error of the same
    size. It is refused where the weights would overflow.
    """
    return rewrite(graph, RULES)


def _vector(match: Match, name: str) -> np.ndarray | None:
    """A captured constant along the channels of the product, float64; None if it varies more."""
    linear = match.node("linear")
    return per_channel(match.data(name), linear.output.type, channel_dim(linear))


def _factor(match: Match) -> np.ndarray | None:
    """What the root multiplies the channels by, float64; None if that varies more."""
    if match.root.op == "neg":
        linear = match.node("linear")
        return per_channel(np.array([-1.0]), linear.output.type, channel_dim(linear))
    factor = _vector(match, "s")
    if factor is None or match.root.op == "mul":
        return factor
    with np.errstate(all="ignore"):
        return np.asarray(1.0 / factor)


def _scale(match: Match) -> Value | Refusal | None:
    linear, factor = match.node("linear"), _factor(match)
    if factor is None:
        return Refusal("the factor varies along more than the channels")
    if not np.isfinite(factor).all():
        return Refusal("the factor is not finite")
    addend = None
    if "b" in match.captured:
        addend = _vector(match, "b")
        if addend is None:
            return Refusal("what is added in between varies along more than the channels")
    product = scale_channels(linear, factor)
    if addend is None or isinstance(product, Refusal):
        return product
    type_, dim = linear.output.type, channel_dim(linear)
    return emit("add", product, along_channels(addend * factor, type_, dim))


def _add(match: Match) -> Value | Refusal | None:
    linear = match.node("linear")
    first, second = _vector(match, "b"), _vector(match, "c")
    if first is None or second is None:
        return Refusal("an addend varies along more than the channels")
    total = along_channels(first + second, linear.output.type, channel_dim(linear))
    return emit("add", linear.output, total)


# --- without weights before them


def _merge(match: Match) -> Value | None:
    """(x·c)·d = x·(c·d), (x + c) + d = x + (c + d)."""
    name = match.root.op
    both = _combined(name, match["c"], match["d"])
    return None if both is None else _of_type(match, emit(name, match["x"], both))


def _merge_affine(match: Match) -> Value | None:
    """(x·c + b)·d = x·(c·d) + b·d."""
    factor = _combined("mul", match["c"], match["d"])
    addend = _combined("mul", match["b"], match["d"])
    if factor is None or addend is None:
        return None
    return _of_type(match, emit("add", emit("mul", match["x"], factor), addend))


def _of_type(match: Match, made: Value) -> Value | None:
    return made if made.type == match.root.output.type else None


def _combined(name: str, a: Value, b: Value) -> Value | None:
    """Sum or product of constants, rounded once; None if it is larger than both, or overflows."""
    assert isinstance(a, Constant)
    assert isinstance(b, Constant)
    wide = [np.asarray(c.data).astype(np.float64) for c in (a, b)]
    try:
        size = np.broadcast_shapes(wide[0].shape, wide[1].shape)
    except ValueError:
        return None
    if int(np.prod(size)) > max(a.data.size, b.data.size):
        return None
    with np.errstate(all="ignore"):
        result = wide[0] * wide[1] if name == "mul" else wide[0] + wide[1]
        data = result.astype(a.data.dtype)
    return constant(data) if np.isfinite(data.astype(np.float64)).all() else None


def _float_constant(name: str) -> AnyConstant:
    return const(name, lambda found: found.type.dtype.is_float)


def _chain(name: str, inner: Pattern, constant_name: str) -> Operation:
    second = _float_constant(constant_name)
    return op(name, inner, second, commutative=True, single_use=True)


_SCALED = _chain("mul", value("x"), "c")
_LINEAR = op(LINEAR, where=reads_constant_weights, single_use=True, name="linear")
_BIASED = op("add", _LINEAR, const("b"), commutative=True, single_use=True)

RULES = (
    Rule("scale weights", op("mul", _LINEAR, const("s"), commutative=True), _scale),
    Rule("divide weights", op("div", _LINEAR, const("s")), _scale),
    Rule("negate weights", op("neg", _LINEAR), _scale),
    Rule("scale weights and bias", op("mul", _BIASED, const("s"), commutative=True), _scale),
    Rule("divide weights and bias", op("div", _BIASED, const("s")), _scale),
    Rule("negate weights and bias", op("neg", _BIASED), _scale),
    Rule("add biases", op("add", _BIASED, const("c"), commutative=True), _add),
    Rule("factors", _chain("mul", _SCALED, "d"), _merge),
    Rule("addends", _chain("add", _chain("add", value("x"), "c"), "d"), _merge),
    Rule("factor of a scaled sum", _chain("mul", _chain("add", _SCALED, "b"), "d"), _merge_affine),
)
