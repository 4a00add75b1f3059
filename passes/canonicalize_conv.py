"""Give one-dimensional convolutions and pooling two spatial dimensions, the long one last."""

from __future__ import annotations

from planish.ir.builder import emit
from planish.ir.graph import Graph, Node, Value
from planish.ir.target import Target
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Rule, rewrite

#: Attributes with one entry for each spatial dimension, and the entry of the new dimension.
_SPATIAL = {"strides": 1, "dilations": 1, "before": 0, "after": 0, "output_padding": 0}
#: The same for pooling, whose attributes have one entry for each dimension of the tensor.
_POOL = {"window": 1, "strides": 1, "dilations": 1, "before": 0, "after": 0, "counted_after": 0}


def canonicalize_conv(graph: Graph, target: Target) -> Graph:
    """Rewrite conv, conv_transpose and pool on rank 3 to rank 4, so that schedules know one rank.

        %1: float32[1, 8, 50] = conv(%0, @w, strides=[2], …)
    →
        %1: float32[1, 4, 1, 100] = reshape(%0, …)
        %2: float32[8, 4, 1, 3] = reshape(@w, …)
        %3: float32[1, 8, 1, 50] = conv(%1, %2, strides=[1, 2], …)
        %4: float32[1, 8, 50] = reshape(%3, …)

    The new dimension of extent 1 is the one before the last; a convolution of columns of width 1 is
    turned to rows in the same way. Exact.
    """
    return rewrite(graph, RULES)


def _expand(value: Value) -> Value:
    batch, channels, width = value.type.shape
    return emit("reshape", value, shape=(batch, channels, 1, width))


def _widen(match: Match) -> Value:
    node = match.root
    attrs = dict(node.attrs)
    for name, entry in _SPATIAL.items():
        if name in attrs:
            attrs[name] = (entry, *attrs[name])
    wide = emit(node.op, *map(_expand, node.inputs), **attrs)
    return emit("reshape", wide, shape=node.output.type.shape)


def _turn(match: Match) -> Value:
    node = match.root
    attrs = {key: value[::-1] if key in _SPATIAL else value for key, value in node.attrs.items()}
    x, weights = (_turned(value) for value in node.inputs)
    row = emit("conv", x, weights, **attrs)
    return emit("reshape", row, shape=node.output.type.shape)


def _turned(value: Value) -> Value:
    first, second, height, width = value.type.shape
    return emit("reshape", value, shape=(first, second, width, height))


def _widen_pool(match: Match) -> Value:
    node = match.root
    attrs = dict(node.attrs)
    for name, entry in _POOL.items():
        if attrs[name] is not None:
            attrs[name] = (*attrs[name][:2], entry, *attrs[name][2:])
    wide = emit("pool", _expand(node.inputs[0]), **attrs)
    return emit("reshape", wide, shape=node.output.type.shape)


def _is_flat(node: Node) -> bool:
    return node.inputs[0].type.rank == 3


def _is_column(node: Node) -> bool:
    """A convolution along H of tensors of width 1: schedules run their tiles along W."""
    operands = (*node.inputs, node.output)
    if any(value.type.rank != 4 or value.type.shape[3] != 1 for value in operands):
        return False
    padding = (node.attrs["before"][1], node.attrs["after"][1])
    return padding == (0, 0) and node.inputs[0].type.shape[2] != 1


RULES = (
    Rule("column", op("conv", where=_is_column), _turn),
    Rule("convolution", op(("conv", "conv_transpose"), where=_is_flat), _widen),
    Rule("pooling", op("pool", where=_is_flat), _widen_pool),
)
