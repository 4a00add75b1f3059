"""Rules of `fold_batch_norm`: back through padding, concat and addition to weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Node, Result, Value, constant
from planish.passes.channels import (
    LINEAR,
    channel_dim,
    largest_row,
    per_channel,
    reads_constant_weights,
    scale_channels,
)
from planish.passes.pattern import Match, const, op
from planish.passes.rewrite import Refusal, Rule
from planish.passes.rounding import refuse_addend

PARAMETERS = (const("scale"), const("bias"), const("mean"), const("var"))
_NAMES = ("scale", "bias", "mean", "var")


def scale_and_shift(match: Match) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel factor and addend of the batch norm at the root, in float64."""
    scale, bias, mean, var = (match.data(name).astype(np.float64) for name in _NAMES)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + match.root.attrs["epsilon"])
        return factor, bias - mean * factor


def _takes(value: Value, scale: np.ndarray, uses: Mapping[Value, int]) -> bool:
    """True if weights whose product, with a bias perhaps, only this is can take a batch norm."""
    bias = None
    if isinstance(value, Result) and value.node.op == "add" and uses[value] == 1:
        value, bias = _without_bias(value.node) or (value, None)
    if not isinstance(value, Result) or uses[value] > 1:
        return False
    node = value.node
    if node.op not in LINEAR or channel_dim(node) != 1 or not reads_constant_weights(node):
        return False
    if bias is not None and refuse_addend(bias, largest_row(node), node.output.type.dtype):
        return False
    return not isinstance(scale_channels(node, scale), Refusal)


def _without_bias(node: Node) -> tuple[Value, np.ndarray] | None:
    """The other operand, if one is a constant along the channels, and that as float64."""
    for inner, bias in (node.inputs, node.inputs[::-1]):
        if isinstance(bias, Constant) and inner.type == node.output.type:
            vector = per_channel(bias.data, inner.type, 1)
            return None if vector is None else (inner, vector)
    return None


def _same(match: Match, x: Value, **changed: np.ndarray) -> Value:
    """The batch norm of the root on x, with other parameters."""
    old = {name: match.data(name) for name in _NAMES}
    parameters = [constant(np.ascontiguousarray(changed.get(name, old[name]))) for name in _NAMES]
    return emit("batch_norm", x, *parameters, **match.root.attrs)


def _through_pad(match: Match) -> Value | Refusal | None:
    """Folded, or constant with the one value that the batch norm makes of the constant."""
    pad = match.node("pad")
    (x,) = pad.inputs
    attrs = dict(pad.attrs)
    if attrs["before"][1] or attrs["after"][1]:
        return Refusal("channels are padded")
    scale, shift = scale_and_shift(match)
    if not _takes(x, scale, match.uses):
        return None
    if attrs["mode"] == "constant":
        filled = scale * attrs["value"] + shift
        if not (filled == filled[0]).all():
            return Refusal("the padding would differ between channels")
        attrs["value"] = float(filled[0])
    return emit("pad", _same(match, x), **attrs)


def _through_concat(match: Match) -> Value | Refusal | None:
    """The batch norm of each part; where weights take those of at least half of the elements."""
    concat = match.node("concat")
    axis, parts = concat.attrs["axis"], concat.inputs
    if not concat.output.type.is_static:
        return None
    slices, first = [], 0
    for part in parts:
        stop = first + part.type.static_shape[1]
        slices.append(slice(first, stop) if axis == 1 else slice(None))
        first = stop
    scale, _ = scale_and_shift(match)
    taken = [p for p, own in zip(parts, slices) if _takes(p, scale[own], match.uses)]
    if not taken:
        return None
    if 2 * sum(part.type.elements for part in taken) < concat.output.type.elements:
        return Refusal("the weights of less than half of the parts could take it")
    normed = [
        _same(match, part, **{name: match.data(name)[own] for name in _NAMES})
        for part, own in zip(parts, slices)
    ]
    return emit("concat", *normed, axis=axis)


def _through_add(match: Match) -> Value | Refusal | None:
    """The batch norm of one operand, and only its factor of the other."""
    a, b = match.node("sum").inputs
    if isinstance(a, Constant) or isinstance(b, Constant) or a is b:
        return None
    scale, _ = scale_and_shift(match)
    taken = [_takes(operand, scale, match.uses) for operand in (a, b)]
    if not any(taken):
        return None
    if not all(taken) or a.type != b.type:
        return Refusal("only one of the operands added has weights to take it")
    zeros = np.zeros_like(match.data("bias"))
    return emit("add", _same(match, a), _same(match, b, bias=zeros, mean=zeros))


def _of(name: str, label: str) -> Rule:
    inner = op(name, single_use=True, name=label)
    build = {"pad": _through_pad, "concat": _through_concat, "sum": _through_add}[label]
    return Rule(f"back through {name}", op("batch_norm", inner, *PARAMETERS), build)


RULES: tuple[Rule, ...] = (_of("pad", "pad"), _of("concat", "concat"), _of("add", "sum"))
