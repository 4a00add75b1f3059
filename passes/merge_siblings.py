"""Joins matmuls, and convolutions, of one input by constants into one wide one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.builder import make_node
from planish.ir.graph import Attrs, Constant, Graph, Node, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.layout.cost import BYTES_PER_CYCLE, LAUNCH
from planish.passes.rewrite import Refusal
from planish.passes.trace import Event, report

#: Bytes that a core could move while a kernel is launched and its threads meet.
_LAUNCH = LAUNCH * BYTES_PER_CYCLE

#: Ops that read some of their inputs at strides, so that a slice of a wider tensor is no copy.
_READS_STRIDED = {"attention": (0, 1, 2), "rotary_embedding": (0,)}

Users = Mapping[Value, Sequence[tuple[Node | None, int]]]


def merge_siblings(graph: Graph, target: Target) -> Graph:
    """Merge siblings, with the element-wise ops that follow all of them, where that pays.

    before: %1 = matmul(%x, @q)   %2 = add(%1, @a)   %3 = matmul(%x, @k)   %4 = add(%3, @b)
    after:  %1 = matmul(%x, @qk)  %2 = add(%1, @ab)  %3 = slice(%2, …)     %4 = slice(%2, …)

    Siblings read one value and differ in their weights only. It pays if fewer launches, and fewer
    readings of an input that no cache holds, save more than the slices cost. Slices are free for
    who reads at strides (attention, rotary embedding); all others need copies, also those that a
    sibling of its own would have stored in place (padding, concatenation). So the branches of an
    inception module stay apart, and a narrow pair of heads on a wide feature map becomes one.
    """
    users = graph.users()
    plans: dict[Node, _Plan] = {}
    events: list[Event] = []
    for plan in _plans(graph, users):
        where = plan.chains[0][0].where()
        refusal = _refusal(plan, users, target)
        if refusal is None:
            plans.update((node, plan) for chain in plan.chains for node in (chain[0], chain[-1]))
        events.append(Event("merge siblings", where, refusal.reason if refusal else None))
    report(events)
    if not plans:
        return graph
    merged: dict[_Plan, list[Value]] = {}
    sources: dict[_Plan, Value] = {}

    def replace(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        plan = plans.get(node)
        if plan is None:
            return None
        ends = [chain[-1] for chain in plan.chains]
        if node.op == plan.chains[0][0].op:
            sources.setdefault(plan, inputs[0])
        if node not in ends:
            return None
        if plan not in merged:
            merged[plan] = _slices(plan, _merged(plan, sources[plan]))
        return [merged[plan][ends.index(node)]]

    return graph.rebuild(replace)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Siblings, each with the ops after it that all have alike; `axis` is where they join."""

    chains: tuple[tuple[Node, ...], ...]
    axis: int

    @property
    def widths(self) -> list[int]:
        """Extents of the parts."""
        return [chain[-1].output.type.static_shape[self.axis] for chain in self.chains]


def _plans(graph: Graph, users: Users) -> Iterator[_Plan]:
    """Sets of siblings, in the order of the graph; only those who need no copy, if several."""
    found: dict[tuple[object, ...], list[tuple[Node, ...]]] = {}
    for node in graph.nodes:
        kind = _kind(node)
        if kind is not None:
            chain = _chain(node, _axis(node), users)
            key = (node.inputs[0], *kind, *(_step(step) for step in chain[1:]))
            found.setdefault(key, []).append(chain)
    for chains in found.values():
        cheap = [c for c in chains if not _needs_copy(c[-1], users)]
        merged = cheap if len(cheap) > 1 else chains
        if len(merged) > 1:
            yield _Plan(tuple(merged), _axis(merged[0][0]))


def _axis(node: Node) -> int:
    """The axis of the result along which weights of a node can be joined."""
    return node.output.type.rank - 1 if node.op == "matmul" else 1


def _kind(node: Node) -> tuple[object, ...] | None:
    """What siblings must have in common besides their input; None if a node has no siblings."""
    if node.op not in ("matmul", "conv") or not isinstance(node.inputs[1], Constant):
        return None
    weights = node.inputs[1].type
    if not all(isinstance(n, int) for n in node.output.type.shape):
        return None
    if node.op == "matmul":
        return ("matmul", weights.dtype) if weights.rank == 2 else None
    if node.attrs["groups"] != 1:
        return None
    return ("conv", weights.dtype, weights.shape[1:], *sorted(node.attrs.items()))


def _chain(anchor: Node, axis: int, users: Users) -> tuple[Node, ...]:
    """A node and the element-wise ops with constants after it, as long as nothing else reads."""
    chain = [anchor]
    while len(users[chain[-1].output]) == 1:
        node, _ = users[chain[-1].output][0]
        if node is None or op_def(node.op).kind is not OpKind.ELEMENTWISE:
            break
        others = [v for v in node.inputs if v is not chain[-1].output]
        if not all(_is_joinable(v, node, axis) for v in others):
            break
        if node.output.type.shape != anchor.output.type.shape:
            break
        chain.append(node)
    return tuple(chain)


def _is_joinable(found: Value, node: Node, axis: int) -> bool:
    """A constant that varies along the axis only."""
    return isinstance(found, Constant) and all(
        n == 1 for i, n in enumerate(_aligned(found, node.output.type.rank)) if i != axis
    )


def _aligned(found: Value, rank: int) -> tuple[int, ...]:
    return (1,) * (rank - found.type.rank) + found.type.static_shape


def _step(node: Node) -> tuple[object, ...]:
    """What must agree of two element-wise ops: op, attributes, and which operands are constant."""
    return (node.op, *sorted(node.attrs.items()), *(isinstance(v, Constant) for v in node.inputs))


def _refusal(plan: _Plan, users: Users, target: Target) -> Refusal | None:
    """Why merging costs more than it saves, in bytes; None if it pays."""
    block = target.lanes(4)
    if plan.chains[0][0].op == "conv" and any(width % block for width in plan.widths[:-1]):
        return Refusal(f"{plan.widths} channels do not part at blocks of {block}")
    ends = [chain[-1] for chain in plan.chains]
    source = plan.chains[0][0].inputs[0].type.nbytes
    again = source if source > target.l2 else 0  # else it is read from the cache
    saved = (len(ends) - 1) * (again + _LAUNCH)
    copied = sum(2 * end.output.type.nbytes + _LAUNCH for end in ends if _needs_copy(end, users))
    if copied < saved:
        return None
    return Refusal(f"copies of the parts cost as much as moving {copied} bytes, it saves {saved}")


def _needs_copy(end: Node, users: Users) -> bool:
    """True if some user could not read a slice as cheaply as a whole tensor."""
    return not all(_reads_in_place(user, number, users) for user, number in users[end.output])


def _reads_in_place(user: Node | None, number: int, users: Users) -> bool:
    if user is not None and user.op == "reshape":  # heads come apart before they are turned
        after = users[user.output]
        return bool(after) and all(_turns_rows(reader, at) for reader, at in after)
    return user is not None and number in _READS_STRIDED.get(user.op, ())


def _turns_rows(user: Node | None, number: int) -> bool:
    return user is not None and user.op == "rotary_embedding" and number == 0


def _merged(plan: _Plan, source: Value) -> Value:
    """The wide op and what follows it, up to where the siblings part."""
    anchors = [chain[0] for chain in plan.chains]
    along = 1 if anchors[0].op == "matmul" else 0
    weights = np.concatenate([_data(node.inputs[1]) for node in anchors], axis=along)
    result = _like(anchors, [source, constant(weights)])
    for steps in zip(*(chain[1:] for chain in plan.chains)):
        operands = [
            _joined([node.inputs[i] for node in steps], plan)
            if isinstance(steps[0].inputs[i], Constant)
            else result
            for i in range(len(steps[0].inputs))
        ]
        result = _like(steps, operands)
    return result


def _like(nodes: Sequence[Node], inputs: Sequence[Value]) -> Value:
    """One node in place of several that are alike."""
    names = [name for node in nodes for name in node.provenance]
    attrs: Attrs = nodes[0].attrs
    return make_node(nodes[0].op, inputs, attrs, (), names).output


def _data(found: Value) -> np.ndarray:
    assert isinstance(found, Constant)
    return np.asarray(found.data)


def _joined(constants: Sequence[Value], plan: _Plan) -> Constant:
    """The constants of all siblings side by side."""
    rank = plan.chains[0][0].output.type.rank
    data = [_data(found).reshape(-1) for found in constants]
    if all(part.size == 1 and part.tobytes() == data[0].tobytes() for part in data):
        return constant(data[0].reshape(()))  # stays a number in the kernel
    parts = [np.broadcast_to(part, (width,)) for part, width in zip(data, plan.widths)]
    shape = (-1, *(1,) * (rank - 1 - plan.axis))
    return constant(np.concatenate(parts).reshape(shape))


def _slices(plan: _Plan, whole: Value) -> list[Value]:
    """The parts of the merged result, under the names of those they stand for."""
    shape = whole.type.static_shape
    found: list[Value] = []
    start = 0
    for chain, width in zip(plan.chains, plan.widths):
        attrs = {
            "starts": tuple(start if i == plan.axis else 0 for i in range(len(shape))),
            "stops": tuple(start + width if i == plan.axis else n for i, n in enumerate(shape)),
            "steps": (1,) * len(shape),
        }
        last = chain[-1]
        names = [name for node in chain for name in node.provenance]
        found.append(make_node("slice", [whole], attrs, (), names, [last.output.name]).output)
        start += width
    return found
