"""Rules of `simplify` for ops that move elements, all exact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from planish.ir.builder import emit
from planish.ir.dim import DimLike
from planish.ir.graph import Constant, Node, Result, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.ops.resize import resized_axes
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Rule

_REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod")


def _x(match: Match) -> Value:
    return match["x"]


def _keeps_type(node: Node) -> bool:
    return node.inputs[0].type == node.output.type


def _is_whole_slice(node: Node) -> bool:
    return _keeps_type(node) and all(step == 1 for step in node.attrs["steps"])


def _pads_nothing(node: Node) -> bool:
    return not any((*node.attrs["before"], *node.attrs["after"]))


def _scales_nothing(node: Node) -> bool:
    return not resized_axes(node.inputs[0].type, node.attrs)


def _is_identity(node: Node) -> bool:
    return list(node.attrs["perm"]) == sorted(node.attrs["perm"])


def _moves_ones_only(node: Node) -> bool:
    shape, perm = node.inputs[0].type.shape, node.attrs["perm"]
    moved = [axis for axis in perm if shape[axis] != 1]
    return not _is_identity(node) and all(a < b for a, b in pairwise(moved))


def _reduces_ones_only(node: Node) -> bool:
    return all(node.inputs[0].type.shape[axis] == 1 for axis in node.attrs["axes"])


def _as_reshape(match: Match) -> Value:
    return emit("reshape", match.root.inputs[0], shape=match.root.output.type.shape)


def _reshape_x(match: Match) -> Value:
    return emit("reshape", match["x"], shape=match.root.output.type.shape)


def _broadcast_x(match: Match) -> Value:
    return emit("broadcast_to", match["x"], shape=match.root.output.type.shape)


def _compose_transposes(match: Match) -> Value:
    inner, outer = match.node("inner").attrs["perm"], match.root.attrs["perm"]
    return emit("transpose", match["x"], perm=tuple(inner[axis] for axis in outer))


def _compose_slices(match: Match) -> Value | None:
    """Only steps forward: the stop of a step backwards may lie before the first element."""
    inner, outer = match.node("inner").attrs, match.root.attrs
    lengths = match.root.output.type.shape
    if min((*inner["steps"], *outer["steps"])) < 1:
        return None
    if not all(isinstance(length, int) and length > 0 for length in lengths):
        return None
    starts = tuple(a + s * b for a, s, b in zip(inner["starts"], inner["steps"], outer["starts"]))
    steps = tuple(a * b for a, b in zip(inner["steps"], outer["steps"]))
    stops = tuple(a + (n - 1) * s + 1 for a, n, s in zip(starts, lengths, steps))
    return emit("slice", match["x"], starts=starts, stops=stops, steps=steps)


def _compose_pads(match: Match) -> Value | None:
    """Constant pads of one value that do not crop."""
    inner, outer = match.node("inner").attrs, match.root.attrs
    if (inner["mode"], outer["mode"]) != ("constant", "constant"):
        return None
    sides = ("before", "after")
    if inner["value"] != outer["value"] or any(
        min(a[s]) < 0 for a in (inner, outer) for s in sides
    ):
        return None
    before, after = (tuple(a + b for a, b in zip(inner[s], outer[s])) for s in sides)
    return emit("pad", match["x"], before=before, after=after, value=inner["value"])


def _drop_empty_parts(match: Match) -> Value | None:
    axis = match.root.attrs["axis"]
    parts = [part for part in match.root.inputs if part.type.shape[axis] != 0]
    if len(parts) == len(match.root.inputs) or not parts:
        return match.root.inputs[0] if len(match.root.inputs) == 1 else None
    return parts[0] if len(parts) == 1 else emit("concat", *parts, axis=axis)


def _select(match: Match) -> Value | None:
    """gather with one constant index: a slice."""
    node, data = match.root, match["x"]
    axis, indices = node.attrs["axis"], match.data("i")
    shape = data.type.shape
    if indices.size != 1 or not all(isinstance(dim, int) for dim in shape):
        return None
    extent, index = int(shape[axis]), int(indices.reshape(-1)[0])  # type: ignore[arg-type]
    if not -extent <= index < extent:
        return None
    index %= extent
    starts = tuple(index if i == axis else 0 for i in range(len(shape)))
    stops = tuple(index + 1 if i == axis else dim for i, dim in enumerate(shape))
    one = emit("slice", data, starts=starts, stops=stops, steps=(1,) * len(shape))
    return emit("reshape", one, shape=node.output.type.shape)


def _unpacks_the_same(match: Match) -> Value | None:
    """pack(unpack(x)) where no element of x is padding, unpack(pack(x)) always."""
    inner, outer = match.node("inner").attrs, match.root.attrs
    same = all(inner[name] == outer[name] for name in ("axis", "block", "segments"))
    return match["x"] if same and match["x"].type == match.root.output.type else None


def _has_whole_blocks(node: Node) -> bool:
    size, whole = node.attrs["size"], node.attrs["block"] * node.attrs["segments"]
    return isinstance(size, int) and size % whole == 0


def _is_elementwise(node: Node) -> bool:
    return op_def(node.op).kind is OpKind.ELEMENTWISE


def _is_unary(node: Node) -> bool:
    return len(node.inputs) == 1 and _is_elementwise(node)


def _is_nary(node: Node) -> bool:
    return len(node.inputs) > 1 and _is_elementwise(node)


def _same_op(node: Node, inputs: Sequence[Value]) -> Value:
    return emit(node.op, *inputs, **node.attrs)


def _broadcast_after(match: Match) -> Value:
    """op(broadcast_to(x)) = broadcast_to(op(x)), on fewer elements."""
    less = _same_op(match.root, [match["x"]])
    return emit("broadcast_to", less, shape=match.root.output.type.shape)


def _rely_on_broadcasting(match: Match) -> Value | None:
    """Operands that are broadcast, or given leading ones, need not be: the op does it itself."""
    node = match.root
    inputs = [*node.inputs]
    for number, operand in enumerate(node.inputs):
        if not isinstance(operand, Result) or not _only_broadcasts(operand.node):
            continue
        trial = [*inputs]
        trial[number] = operand.node.inputs[0]
        if _same_op(node, trial).type == node.output.type:
            inputs = trial
    return None if inputs == [*node.inputs] else _same_op(node, inputs)


def _only_broadcasts(node: Node) -> bool:
    if node.op == "broadcast_to":
        return True
    before, after = node.inputs[0].type.shape, node.outputs[0].type.shape
    extra = len(after) - len(before)
    return node.op == "reshape" and extra > 0 and after == (1,) * extra + before


def _reshape_after(match: Match) -> Value | None:
    """op(reshape(x), c) = reshape(op(x, c')): reshapes meet, and epilogues see what they follow.

    All operands that are no constants must be reshapes from one shape to that of the result,
    with no other users; constants that are no scalars follow if only ones come and go.
    """
    node = match.root
    sources = [_reshape_source(match, v) for v in node.inputs if not isinstance(v, Constant)]
    first = sources[0] if sources else None
    if first is None or any(s is None or s.type.shape != first.type.shape for s in sources):
        return None
    inputs: list[Value] = []
    for operand in node.inputs:
        moved: Value | None = _reshape_source(match, operand)
        if isinstance(operand, Constant):
            moved = _follow(operand, first.type.shape, node.output.type.shape)
        if moved is None:
            return None
        inputs.append(moved)
    return emit("reshape", _same_op(node, inputs), shape=node.output.type.shape)


def _reshape_source(match: Match, operand: Value) -> Value | None:
    """What `operand` reshapes to the shape of the root, if nothing else uses it."""
    if not isinstance(operand, Result) or operand.node.op != "reshape":
        return None
    if operand.type.shape != match.root.output.type.shape:
        return None
    uses = sum(operand is other for other in match.root.inputs)
    return operand.node.inputs[0] if match.uses[operand] <= uses else None


def _follow(
    operand: Constant, source: Sequence[DimLike], shape: Sequence[DimLike]
) -> Constant | None:
    """The constant that broadcasts to `source` as `operand` does to `shape`."""
    if operand.data.size == 1:
        return constant(operand.data.reshape(()), operand.name)
    places = _align(source, shape)
    if places is None:
        return None
    data = operand.data.reshape((1,) * (len(shape) - operand.data.ndim) + operand.data.shape)
    return constant(data.reshape([1 if p is None else data.shape[p] for p in places]), operand.name)


def _align(source: Sequence[DimLike], shape: Sequence[DimLike]) -> list[int | None] | None:
    """For each dimension of `source` the same one of `shape`, None for ones; None if not only ones
    come and go."""
    kept = [i for i, dim in enumerate(shape) if dim != 1]
    if [dim for dim in source if dim != 1] != [shape[i] for i in kept]:
        return None
    places = iter(kept)
    return [None if dim == 1 else next(places) for dim in source]


_X = value("x")

#: What any pass that builds reshapes may run along with its own rules.
RESHAPES: tuple[Rule, ...] = (
    Rule("same shape", op(("reshape", "broadcast_to"), _X, where=_keeps_type), _x),
    Rule("reshape twice", op("reshape", op("reshape", _X)), _reshape_x),
)

RULES: tuple[Rule, ...] = (
    *RESHAPES,
    Rule("identity transpose", op("transpose", _X, where=_is_identity), _x),
    Rule(
        "transpose twice", op("transpose", op("transpose", _X, name="inner")), _compose_transposes
    ),
    Rule("transpose of ones", op("transpose", _X, where=_moves_ones_only), _as_reshape),
    Rule("whole slice", op("slice", _X, where=_is_whole_slice), _x),
    Rule("slice twice", op("slice", op("slice", _X, name="inner")), _compose_slices),
    Rule("pad by nothing", op("pad", _X, where=_pads_nothing), _x),
    Rule("pad twice", op("pad", op("pad", _X, name="inner")), _compose_pads),
    Rule("resize by one", op("resize", _X, where=_scales_nothing), _x),
    Rule("concat of one part", op("concat"), _drop_empty_parts),
    Rule("broadcast twice", op("broadcast_to", op("broadcast_to", _X)), _broadcast_x),
    Rule("reduction of ones", op(_REDUCTIONS, _X, where=_reduces_ones_only), _as_reshape),
    Rule("gather of one index", op("gather", _X, const("i")), _select),
    Rule("unpack(pack)", op("unpack", op("pack", _X, name="inner")), _unpacks_the_same),
    Rule(
        "pack(unpack)",
        op("pack", op("unpack", _X, where=_has_whole_blocks, name="inner")),
        _unpacks_the_same,
    ),
    Rule(
        "op(broadcast_to)",
        op((), op("broadcast_to", _X, single_use=True), where=_is_unary),
        _broadcast_after,
    ),
    Rule("op broadcasts itself", op((), where=_is_nary), _rely_on_broadcasting),
    Rule("op(reshape)", op((), where=_is_elementwise), _reshape_after),
)
