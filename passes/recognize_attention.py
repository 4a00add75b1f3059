"""Turns softmax(q·kᵀ·scale + mask)·v and the transposes around it into one attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Node, Result, Value, constant
from planish.ir.ops.attention import Sizes, dense
from planish.ir.target import Target
from planish.ir.types import TensorType
from planish.passes.pattern import Match, const, op, value
from planish.passes.rewrite import Refusal, Rule, rewrite
from planish.passes.strided_views import producer, scalar_factor, strided_view

#: Numbers up to this one, put in place of a score, weigh nothing, and so they do when added to it:
#: neighbours of float32 lie further apart there than any score reaches.
_HIDDEN = -1e30

_SWAP_LAST = ((1, 0), (0, 2, 1), (0, 1, 3, 2))


def recognize_attention(graph: Graph, target: Target) -> Graph:
    """Rewrite the chains that exporters write for scaled dot-product attention.

    before: %1 = transpose(%q, perm=[0, 2, 1, 3])   %2 = transpose(%k, perm=[0, 2, 3, 1])
            %3 = matmul(%1, %2)                     %4 = mul(%3, 0.125)
            %5 = add(%4, %mask)                     %6 = softmax(%5, axis=3)
            %7 = matmul(%6, %v)                     %8 = transpose(%7, perm=[0, 2, 1, 3])
    after:  %8 = attention(%q, %k, %v, %mask, scale=0.125, heads_inside=true, …)

    The scale may stand at q, k or the scores; masks may be added or selected; a mask that is
    constant and triangular becomes `causal`. Operands are read where they lie: transposes,
    reshapes, slices and repeated heads become strides.
    """
    return rewrite(graph, _RULES)


@dataclass(slots=True)
class _Scores:
    """What leads from q·kᵀ to the softmax: scale, masks to add, and the nodes passed."""

    product: Node
    scale: float = 1.0
    masks: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)


def _recognize(match: Match) -> Value | Refusal | None:
    root = match.root
    guard = _unguarded(root.inputs[0])
    if guard is None:
        return None
    softmax, nodes = guard
    if not all(isinstance(n, int) for v in (*root.inputs, root.output) for n in v.type.shape):
        return None
    found = _scores(softmax.inputs[0])
    if isinstance(found, Refusal | None):
        return found
    nodes = [*nodes, softmax, *found.nodes]
    for kept in (softmax.output, found.product.output):
        if match.uses[kept] > (2 if len(nodes) > 1 and nodes[0].op == "where" else 1):
            return Refusal(f"{kept.node.where()} has other users")
    return _attention(root, found, nodes)


def _unguarded(weights: Value) -> tuple[Node, list[Node]] | None:
    """The softmax over the last axis, and the nodes that put 0 in place of its NaN."""
    nodes: list[Node] = []
    node = producer(weights, "where")
    if node is not None:
        nan = producer(node.inputs[0], "is_nan")
        if nan is None or nan.inputs[0] is not node.inputs[2] or not _is_zero(node.inputs[1]):
            return None
        nodes, weights = [node, nan], node.inputs[2]
    node = producer(weights, "softmax")
    if node is None or node.attrs["axis"] != weights.type.rank - 1:
        return None
    return node, nodes


def _is_zero(found: Value) -> bool:
    return isinstance(found, Constant) and not found.data.any()


def _scores(start: Value) -> _Scores | Refusal | None:
    """The way back from the softmax to a matmul; at an addition, along the operand that has one."""
    states = [(start, 1.0, (), ())]
    refusal: Refusal | None = None
    while states:
        found, scale, masks, nodes = states.pop()
        if not isinstance(found, Result):
            continue
        node = found.node
        if node.op == "matmul":
            return _Scores(node, scale, list(masks), [*nodes, node])
        for following in _before(node):
            if isinstance(following, Refusal):
                refusal = following
                continue
            inner, factor, mask = following
            if mask is not None and scale != 1.0:
                mask = emit("mul", mask, _scalar(scale, mask.type))
            more = masks if mask is None else (*masks, mask)
            states.append((inner, scale * factor, more, (*nodes, node)))
    return refusal


def _before(node: Node) -> Iterator[tuple[Value, float, Value | None] | Refusal]:
    """What a node computes from its input: that input, and what it multiplies and adds."""
    shape = node.outputs[0].type.shape
    scaled = scalar_factor(node)
    if scaled is not None:
        yield *scaled, None
    elif node.op == "reshape" and node.inputs[0].type.shape[-2:] == shape[-2:]:
        yield node.inputs[0], 1.0, None
    elif node.op == "add":
        for inner, mask in (node.inputs, node.inputs[::-1]):
            if inner.type.shape == shape:
                yield inner, 1.0, mask
    elif node.op == "where":
        condition, seen, hidden = node.inputs
        if isinstance(seen, Constant):
            condition, seen, hidden = emit("not", condition), hidden, seen
        if not isinstance(hidden, Constant) or seen.type.shape != shape:
            return
        if hidden.data.size != 1 or hidden.data.item() > _HIDDEN:
            yield Refusal("rows whose every score is replaced would differ from added masks")
            return
        zero = _scalar(0.0, hidden.type)
        yield seen, 1.0, emit("where", condition, zero, hidden)


def _scalar(number: float, type_: TensorType) -> Constant:
    return constant(np.array(number, type_.dtype.numpy))


def _attention(root: Node, scores: _Scores, nodes: Sequence[Node]) -> Value | Refusal:
    q, k = scores.product.inputs
    v = root.inputs[1]
    if q.type.shape[:-2] != root.output.type.shape[:-2]:
        return Refusal("the batches of scores and values differ")
    batch, heads = _batch_and_heads(scores, root)
    m, depth = q.type.static_shape[-2:]
    keys, value_depth = v.type.static_shape[-2:]
    sizes = (batch, heads, m, keys, depth, value_depth)
    masks = [_as_rank_four(mask, sizes) for mask in scores.masks]
    if any(mask is None for mask in masks):
        return Refusal("a mask does not broadcast to the scores")
    attrs = {"sizes": sizes, "guarded": nodes[0].op == "where"}
    views = _operands((q, k, v), sizes)
    if views is None:
        return Refusal("keys and values are broadcast in different ways")
    group, operands = views
    scale = scores.scale
    for name, view in zip("qkv", operands):
        attrs[name] = view.strides
        scale *= view.scale
    mask, causal = _combined([mask for mask in masks if mask is not None], sizes)
    names = [name for node in (root, *nodes) for name in node.provenance]
    result = emit(
        "attention", *(view.base for view in operands), *mask, provenance=names,
        scale=float(scale), group=group, causal=causal, **attrs,
    )  # fmt: skip
    return emit("reshape", result, shape=root.output.type.shape)


def _batch_and_heads(scores: _Scores, root: Node) -> tuple[int, int]:
    """Leading extents of rank four; of lower rank as some reshape on the way has them."""
    lead = root.output.type.static_shape[:-2]
    if len(lead) == 2:
        return lead
    count = int(np.prod(lead, dtype=int))
    ends: list[Value] = [*scores.product.inputs, *(n.inputs[0] for n in scores.nodes)]
    for value_ in ends:
        while isinstance(value_, Result) and value_.node.op in ("reshape", "transpose", "mul"):
            shape = value_.node.inputs[0].type.static_shape
            if len(shape) == 4 and shape[0] * shape[1] == count:
                return shape[0], shape[1]
            value_ = value_.node.inputs[0]
    return 1, count
