"""Turns softmax(q·kᵀ·scale + mask)·v and the transposes around it into one attention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.builder import emit
from planish.ir.graph import Constant, Graph, Node, Result, Value, constant
from planish.ir.ops.attention import Sizes, Strides
from planish.ir.target import Target
from planish.passes.attention_masks import HIDDEN, apart, diagonal_of
from planish.passes.attention_operands import RULES, producer, refuse_scale, scaled
from planish.passes.pattern import Match, op
from planish.passes.rewrite import Refusal, Rule, rewrite
from planish.passes.simplify_movement import RESHAPES


def recognize_attention(graph: Graph, target: Target) -> Graph:
    """Rewrite the chains that exporters write for scaled dot-product attention.

    before: %1 = transpose(%q, perm=[0, 2, 1, 3])   %2 = transpose(%k, perm=[0, 2, 3, 1])
            %3 = matmul(%1, %2)                     %4 = mul(%3, 0.125)
            %5 = add(%4, %mask)                     %6 = softmax(%5, axis=3)
            %7 = matmul(%6, %v)                     %8 = transpose(%7, perm=[0, 2, 1, 3])
    after:  %8 = attention(%q, %k, %v, %mask, scale=0.125, heads_inside=true, …)

    The scale may stand at q, k or the scores; masks may be added or selected; a constant
    triangular mask becomes `causal`. Operands are read where they lie: transposes, reshapes,
    slices and repeated heads become strides.
    """
    return rewrite(graph, (Rule("attention", op("matmul"), _recognize), *RULES, *RESHAPES))


@dataclass(frozen=True, slots=True)
class _Scores:
    """What leads from q·kᵀ to the softmax: the product, factor, masks to add, nodes passed."""

    product: Node
    scale: float
    masks: tuple[Value, ...]
    nodes: tuple[Node, ...]


def _recognize(match: Match) -> Value | Refusal | None:
    root = match.root
    weights = _weights(root.inputs[0])
    if weights is None or not _is_static(root):
        return None
    softmax, guard = weights
    found = _scores(softmax.inputs[0])
    if not isinstance(found, _Scores):
        return found
    readers = 2 if guard else 1  # the guard reads the softmax twice
    if match.uses[root.inputs[0]] > 1 or match.uses[softmax.output] > readers:
        return Refusal(f"the weights of {softmax.where()} have other users")
    return _attention(root, found, (*guard, softmax, *found.nodes), bool(guard))


def _is_static(node: Node) -> bool:
    values = (*node.inputs, *node.outputs)
    return all(isinstance(n, int) and n > 0 for value in values for n in value.type.shape)


def _weights(weights: Value) -> tuple[Node, tuple[Node, ...]] | None:
    """The softmax over the last axis, and the nodes that put 0 in place of its NaN."""
    guard: tuple[Node, ...] = ()
    select = producer(weights, "where")
    if select is not None:
        condition, zero, weights = select.inputs
        nan = producer(condition, "is_nan")
        if nan is None or nan.inputs[0] is not weights or not _is_zero(zero):
            return None
        guard = (select, nan)
    softmax = producer(weights, "softmax")
    if softmax is None or softmax.attrs["axis"] != weights.type.rank - 1:
        return None
    return softmax, guard


def _is_zero(found: Value) -> bool:
    return isinstance(found, Constant) and not found.data.any()


def _scores(start: Value) -> _Scores | Refusal | None:
    """The way back from a softmax to a matmul, at an addition along the operand that has one."""
    if not isinstance(start, Result):
        return None
    states: list[tuple[Value, _Scores]] = [(start, _Scores(start.node, 1.0, (), ()))]
    refusal: Refusal | None = None
    while states:
        found, after = states.pop()
        if not isinstance(found, Result):
            continue
        node = found.node
        nodes = (*after.nodes, node)
        if node.op == "matmul":
            return _Scores(node, after.scale, after.masks, nodes)
        for before in _before(node):
            if isinstance(before, Refusal):
                refusal = before
                continue
            inner, factor, mask = before
            large = refuse_scale(after.scale * factor, node.outputs[0].type.dtype)
            if large is not None:
                refusal = large
                continue
            masks = after.masks
            if mask is not None:
                masks = (*masks, _times(mask, after.scale))
            states.append((inner, _Scores(node, after.scale * factor, masks, nodes)))
    return refusal


def _before(node: Node) -> Iterator[tuple[Value, float, Value | None] | Refusal]:
    """From what scores a node makes its own: those, the factor, and the mask that it adds."""
    shape = node.outputs[0].type.shape
    factor = scaled(node)
    if factor is not None:
        yield *factor, None
    elif node.op == "reshape" and node.inputs[0].type.shape[-2:] == shape[-2:]:
        yield node.inputs[0], 1.0, None
    elif node.op == "add":
        for inner, mask in (node.inputs[::-1], node.inputs):
            if inner.type.shape == shape:
                yield inner, 1.0, _of_rank(mask, len(shape))
    elif node.op == "where":
        condition, seen, hidden = node.inputs
        if isinstance(seen, Constant):
            condition, seen, hidden = emit("not", condition), hidden, seen
        if not isinstance(hidden, Constant) or hidden.data.size != 1 or seen.type.shape != shape:
            return
        if hidden.data.item() > HIDDEN:
            yield Refusal(f"{hidden.data.item()} in place of a score is not as good as -infinity")
            return
        zero = constant(np.zeros((), hidden.data.dtype))
        added = emit("where", condition, zero, constant(hidden.data.reshape(())))
        yield seen, 1.0, _of_rank(added, len(shape))


def _of_rank(mask: Value, rank: int) -> Value:
    return _reshaped(mask, (1,) * (rank - mask.type.rank) + mask.type.shape)


def _reshaped(value: Value, shape: tuple[object, ...]) -> Value:
    if value.type.shape == shape:
        return value
    if isinstance(value, Constant):
        return constant(np.asarray(value.data).reshape(shape), value.name)  # type: ignore[arg-type]
    return emit("reshape", value, shape=shape)


def _times(mask: Value, factor: float) -> Value:
    if factor == 1.0:
        return mask
    return emit("mul", mask, constant(np.array(factor, mask.type.dtype.numpy)))


def _attention(
    root: Node, scores: _Scores, nodes: Sequence[Node], guarded: bool
) -> Value | Refusal:
    (q, k), v = scores.product.inputs, root.inputs[1]
    lead = root.output.type.static_shape[:-2]
    batch, heads = _batch_and_heads(lead, nodes)
    sizes = Sizes(
        batch, heads, q.type.static_shape[-2], v.type.static_shape[-2],
        q.type.static_shape[-1], v.type.static_shape[-1], 1,
    )  # fmt: skip
    operands = [_strides(value, sizes) for value in (q, k, v)]
    if any(strides is None for strides in operands):
        return Refusal("operands are broadcast over a part of the heads")
    q_strides, k_strides, v_strides = (strides for strides in operands if strides is not None)
    masks = [_of_heads(mask, sizes) for mask in scores.masks]
    if any(mask is None for mask in masks):
        return Refusal("a mask is broadcast over a part of the heads")
    added, causal = _combined([mask for mask in masks if mask is not None], sizes)
    result = emit(
        "attention", q, k, v, *added,
        provenance=[name for node in reversed(nodes) for name in node.provenance],
        sizes=(*sizes.scores, sizes.depth, sizes.value_depth),
        q=q_strides,
        k=(*k_strides[:3], k_strides[4], k_strides[3]),  # it is k transposed
        v=v_strides,
        scale=scores.scale,
        causal=causal,
        guarded=guarded,
    )  # fmt: skip
    return _reshaped(result, root.output.type.static_shape)


def _batch_and_heads(lead: tuple[int, ...], nodes: Sequence[Node]) -> tuple[int, int]:
    """The leading extents; where they are one product, as some reshape nearby has them apart."""
    if len(lead) == 2:
        return lead
    count = math.prod(lead)
    near = [value for node in nodes for value in node.inputs]
    for value in near:
        while isinstance(value, Result) and value.node.op in ("reshape", "transpose", "mul"):
            value = value.node.inputs[0]
            *more, b, h, _, _ = (1, 1, 1, 1, *value.type.static_shape)
            if value.type.rank >= 4 and set(more) == {1} and b * h == count:
                return b, h
    return 1, count


def _strides(value: Value, sizes: Sizes) -> Strides | None:
    """Offset and strides of [batch, heads, rows, columns]; None where heads are broadcast apart."""
    *lead, rows, columns = value.type.static_shape
    whole = rows * columns
    split = (sizes.batch, sizes.heads)
    if math.prod(lead) == math.prod(split):
        return (0, sizes.heads * whole, whole, columns, 1)
    if math.prod(lead) == 1:
        return (0, 0, 0, columns, 1)
    lead = [1] * (2 - len(lead)) + lead
    if len(lead) != 2 or any(n not in (1, m) for n, m in zip(lead, split)):
        return None
    return (0, lead[1] * whole * (lead[0] > 1), whole * (lead[1] > 1), columns, 1)


def _of_heads(mask: Value, sizes: Sizes) -> Value | None:
    """The mask as [batch, heads, queries, keys], each extent there or 1."""
    *lead, rows, columns = mask.type.static_shape
    if math.prod(lead) == 1:
        lead = [1, 1]
    elif math.prod(lead) == sizes.batch * sizes.heads:
        lead = [sizes.batch, sizes.heads]
    if len(lead) != 2:
        return None
    shape = (*lead, rows, columns)
    fits = all(n in (1, m) for n, m in zip(shape, sizes.scores))
    return _reshaped(mask, shape) if fits else None


def _combined(masks: Sequence[Value], sizes: Sizes) -> tuple[list[Value], int | None]:
    """One mask, or none, and the diagonal of the constant triangular ones."""
    causal, added = None, []
    for mask in (part for whole in masks for part in apart(whole)):
        diagonal = diagonal_of(mask, sizes)
        if diagonal is None:
            added.append(mask)
        else:
            causal = diagonal if causal is None else min(causal, diagonal)
    total = added[:1]
    for mask in added[1:]:
        total = [emit("add", total[0], mask)]
    return total, causal
