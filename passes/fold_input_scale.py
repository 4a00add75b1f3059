"""Fold per-channel factors and addends before convolutions and products into weights and bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Node, Result, Value, constant
from planish.ir.target import Target
from planish.passes.channels import (
    add_along_channels,
    channel_dim,
    input_channel_dim,
    largest_row,
    per_channel,
    reads_constant_weights,
    response,
    scale_inputs,
)
from planish.passes.pattern import Match, Operation, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite
from planish.passes.rounding import refuse_addend_before


def fold_input_scale(graph: Graph, target: Target) -> Graph:
    """Merge constants that vary along the input channels only (or are scalars).

        %1 = mul(%0, @s)                    %1 = pad(%0, value=-t/s, …)
        %2 = add(%1, @t)             →      %2 = conv(%1, w·s)
        %3 = conv(%2, @w, …)                %3 = add(%2, Σ w·t)

    For conv, and for matmul from the left, with constant weights and where nothing else reads what
    is scaled. An addend before zero padding folds only if it is one number, which then is taken
    from what is padded with. Transposes and reshapes in between that keep the channels apart are
    passed. Not exact, as `fold_scale` is not; `planish.passes.rounding` says where it is refused.
    """
    return rewrite(graph, _RULES)


def _vector(match: Match) -> np.ndarray | None:
    """The captured constant along the channels of what the product reads, float64."""
    linear, data = match.root, match.data("c")
    return per_channel(data, linear.inputs[0].type, input_channel_dim(linear))


def _scale(match: Match) -> Value | Refusal | None:
    linear, factor = match.root, _vector(match)
    if _holds_codes(match["x"]) or match["x"].type != linear.inputs[0].type:
        return None
    if factor is None:
        return Refusal("the factor varies along more than the channels")
    return scale_inputs(linear, match["x"], factor)


def _scale_before_padding(match: Match) -> Value | Refusal | None:
    """s·x padded with v is s times x padded with v/s."""
    linear, pad = match.root, match.node("pad")
    x, v = match["x"], pad.attrs["value"]
    if pad.attrs["mode"] != "constant" or x.type != pad.inputs[0].type or _holds_codes(x):
        return None
    dim = input_channel_dim(linear)
    factor = per_channel(match.data("c"), x.type, dim)
    if factor is None:
        return Refusal("the factor varies along more than the channels")
    attrs = dict(pad.attrs)
    if attrs["before"][dim] or attrs["after"][dim]:
        return Refusal("channels are padded")
    if v != 0:
        with np.errstate(all="ignore"):
            filled = v / np.where(factor == 0, np.nan, factor)
        if not (filled == filled[0]).all() or not _is_finite(filled[0], x):
            return Refusal("the padding would differ between channels")
        attrs["value"] = float(filled[0])
    return scale_inputs(linear, emit("pad", x, **attrs), factor)


def _is_finite(number: float, x: Value) -> bool:
    """True if a number is finite in the element type of x."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.asarray(number).astype(x.type.dtype.numpy).astype(np.float64)))


def _shift(match: Match) -> Value | Refusal | None:
    linear, x, addend = match.root, match["x"], _vector(match)
    if _holds_codes(x) or x.type != linear.inputs[0].type:
        return None
    if addend is None:
        return Refusal("the addend varies along more than the channels")
    attrs = dict(linear.attrs)
    if any((*attrs.get("before", ()), *attrs.get("after", ()))):
        if not (addend == addend[0]).all():
            return Refusal("the addend would have to differ in the padding")
        sides = {side: (0, 0, *attrs[side]) for side in ("before", "after")}
        x = emit("pad", x, value=-float(addend[0]), **sides)
        attrs |= {side: (0,) * len(attrs[side]) for side in sides}
    return _with_response(linear, emit(linear.op, x, linear.inputs[1], **attrs), addend)


def _with_response(linear: Node, product: Value, addend: np.ndarray) -> Value | Refusal:
    """The product without the addend, plus what the weights make of it."""
    refusal = refuse_addend_before(addend, largest_row(linear), linear.output.type.dtype)
    if refusal is not None:
        return refusal
    return add_along_channels(product, response(linear, addend), channel_dim(linear))


def _shift_before_padding(match: Match) -> Value | Refusal | None:
    """x + t padded with v is x padded with v - t, plus t."""
    linear, pad = match.root, match.node("pad")
    x, attrs = match["x"], linear.attrs
    if pad.attrs["mode"] != "constant" or x.type != pad.inputs[0].type or _holds_codes(x):
        return None
    addend = per_channel(match.data("c"), x.type, input_channel_dim(linear))
    if addend is None or not (addend == addend[0]).all():
        return Refusal("the addend would have to differ in the padding")
    if any((*attrs.get("before", ()), *attrs.get("after", ()))):
        return Refusal("it is padded twice, with different numbers")
    filled = float(pad.attrs["value"] - addend[0])
    padded = emit("pad", x, **{**pad.attrs, "value": filled})
    channels = linear.inputs[0].type.static_shape[input_channel_dim(linear)]
    product = emit(linear.op, padded, linear.inputs[1], **attrs)
    return _with_response(linear, product, np.full(channels, addend[0]))


def _holds_codes(x: Value) -> bool:
    """True for integers as floats: weights that take a scale hide what a quantised tensor is."""
    while isinstance(x, Result) and x.node.op in ("add", "sub", "mul"):
        inner = [v for v in x.node.inputs if not isinstance(v, Constant)]
        if len(inner) != 1:
            return False
        x = inner[0]
    return isinstance(x, Result) and x.node.op == "cast" and x.node.inputs[0].type.dtype.is_integer


# --- transposes and reshapes in between


def _pass_view(match: Match) -> Value | None:
    """view(x · c) = view(x) · c', if that puts c' beside the product and along its channels."""
    linear, view, scaled = match.root, match.node("view"), match.node("scaled")
    found = match.data("c")
    x = match["x"]
    if x.type != scaled.output.type or not view.output.type.is_static:
        return None
    moved = _moved(found.reshape((1,) * (x.type.rank - found.ndim) + found.shape), view)
    dim = input_channel_dim(linear)
    if moved is None or per_channel(moved, view.output.type, dim) is None:
        return None
    seen = emit(view.op, x, **view.attrs)
    beside = emit(scaled.op, seen, constant(moved))
    return emit(linear.op, beside, linear.inputs[1], **linear.attrs)


def _moved(data: np.ndarray, view: Node) -> np.ndarray | None:
    """The constant that broadcasts to the result of a view as `data` does to its input."""
    if view.op == "transpose":
        return np.ascontiguousarray(data.transpose(view.attrs["perm"]))
    target = view.output.type.static_shape
    varies = [axis for axis, extent in enumerate(data.shape) if extent != 1]
    if not varies:
        return data.reshape(())
    source = view.inputs[0].type.static_shape
    if len(varies) > 1 or data.shape[varies[0]] != source[varies[0]]:
        return None
    place = _same_place(source, varies[0], target)
    if place is None:
        return None
    return data.reshape([n if axis == place else 1 for axis, n in enumerate(target)])


def _same_place(source: Sequence[int], axis: int, target: Sequence[int]) -> int | None:
    """The dimension of the target with the extent of one of the source, and as much before it."""
    before = math.prod(source[:axis])
    for place, extent in enumerate(target):
        if extent == source[axis] and math.prod(target[:place]) == before:
            return place
    return None


def _reads_weights(node: Node) -> bool:
    is_matrix = node.op != "matmul" or node.inputs[1].type.rank == 2
    return is_matrix and node.inputs[0].type.is_static and reads_constant_weights(node)


def _scaled(ops: str | tuple[str, ...]) -> Operation:
    return op(ops, value("x"), const("c"), commutative=True, single_use=True, name="scaled")


def _rule(name: str, operand: Operation, build: Callable[[Match], Value | Refusal | None]) -> Rule:
    return Rule(name, op(("conv", "matmul"), operand, const("w"), where=_reads_weights), build)


def _behind(ops: str | tuple[str, ...], inner: Operation, name: str) -> Operation:
    return op(ops, inner, single_use=True, name=name)


_RULES: tuple[Rule, ...] = (
    _rule("factor before weights", _scaled("mul"), _scale),
    _rule("addend before weights", _scaled("add"), _shift),
    _rule("factor before padding", _behind("pad", _scaled("mul"), "pad"), _scale_before_padding),
    _rule("addend before padding", _behind("pad", _scaled("add"), "pad"), _shift_before_padding),
    _rule(
        "factor before a view",
        _behind(("transpose", "reshape"), _scaled(("mul", "add")), "view"),
        _pass_view,
    ),
)
