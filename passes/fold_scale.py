"""Fold per-channel factors and addends behind convolutions and products into weights and bias."""

from __future__ import annotations

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Graph, Value
from planish.ir.target import Target
from planish.passes.channels import (
    LINEAR,
    along_channels,
    channel_dim,
    per_channel,
    reads_constant_weights,
    scale_channels,
)
from planish.passes.pattern import Match, const, op
from planish.passes.rewrite import Refusal, Rule, rewrite


def fold_scale(graph: Graph, target: Target) -> Graph:
    """Merge constants that vary along the output channels only (or are scalars).

        %1 = conv(%0, @w)
        %2 = add(%1, @a)             →     %1 = conv(%0, w·s)
        %3 = mul(%2, @s)                   %2 = add(%1, a·s + b)
        %4 = add(%3, @b)

    For conv, conv_transpose and matmul with constant weights and no other users; `div` and
    `neg` as `mul`. Not exact: weights are rounded once in place of results, an error of the same
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
)
