"""Groups nodes into kernels, epilogues and prologues around an anchor, by what it costs."""

from __future__ import annotations

from collections.abc import Container, Iterable

from planish.ir.builder import make_node
from planish.ir.graph import Constant, Graph, Input, Node, Result, Value, with_inputs
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.fusion_cost import ROW_ANCHORS, Comparison, Draft, compared, is_pointwise
from planish.passes.trace import Event, report
from planish.passes.views import choose_views, places_of

#: Nodes in one kernel at most: longer chains gain nothing and compile slowly.
LARGEST_KERNEL = 48

#: Nodes up to a value in memory that are looked at to tell what a kernel of their own would cost.
_LONGEST_SOURCE = 8

#: Anchors whose stages read expressions; the register tiles of contractions read memory.
_ABSORBING = ROW_ANCHORS | {"pool"}


def fuse(graph: Graph, target: Target) -> Graph:
    """Put every node into a kernel but views, whose result is part of another tensor's memory.

    before: %1 = conv(%x, @w)  %2 = add(%1, @b)  %3 = relu(%2)
    after:  %3 = kernel(%x, @w, @b) { conv, add, relu }

    An anchor (a contraction, reduction or composite) joins the kernel of its users if it is that
    kernel's only one and all that follows it there is element-wise on the same shape. A producer
    that is element-wise or movement joins all kernels that read it, or none: by what that costs
    (`planish.passes.fusion_cost`). Movement cannot be in a kernel with an anchor, but for padding
    at its end, and contractions read their operands from memory.
    """
    views = choose_views(graph).views
    grouping = _Grouping(graph, views, target)
    groups = grouping.assign()
    report(grouping.events)
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        if node in views:
            kept = with_inputs(node, [new.get(v, v) for v in node.inputs])
            new[node.output] = kept.output
        elif node in groups:
            kernel = _build(groups[node], new)
            new.update(zip(node.outputs, kernel.outputs))
    fused = [new.get(value, value) for value in graph.outputs]
    return Graph(graph.inputs, tuple(_distinct(fused)), graph.output_names, graph.name)


def is_padded(body: Graph) -> bool:
    """True if a kernel ends in zero padding: its result is written inside the padded tensor."""
    root = body.outputs[0]
    return isinstance(root, Result) and _is_outer_padding(root.node)


def inner_root(body: Graph) -> Value:
    """What a kernel computes, before any padding that ends it."""
    root = body.outputs[0]
    if isinstance(root, Result) and _is_outer_padding(root.node):
        return root.node.inputs[0]
    return root


def _is_outer_padding(node: Node) -> bool:
    attrs = node.attrs
    if node.op != "pad" or attrs["mode"] != "constant":
        return False
    return all(n >= 0 for n in (*attrs["before"], *attrs["after"]))


class _Grouping:
    """Decides for each node, from the last to the first, which kernels compute it."""

    def __init__(self, graph: Graph, views: Container[Node], target: Target) -> None:
        self.graph = graph
        self.views = views
        self.target = target
        self.users = graph.users()
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        self.groups: dict[Node, tuple[Draft, ...]] = {}
        self.events: list[Event] = []

    def assign(self) -> dict[Node, Draft]:
        """The kernels by their roots."""
        for node in reversed(self.graph.nodes):
            if node in self.views:
                continue
            groups = self._readers(node)
            if groups and self._joins(node, groups):
                for group in groups:
                    group.add(node)
            else:
                groups = (self._draft(node),)
            self.groups[node] = groups
        return {group.root: group for groups in self.groups.values() for group in groups}

    def _draft(self, *nodes: Node) -> Draft:
        return Draft(self.users, self.target).add(*nodes)

    def _readers(self, node: Node) -> tuple[Draft, ...]:
        """The kernels that hold the users of the node's only output; none if it must be stored."""
        if len(node.outputs) != 1:
            return ()
        found: dict[Draft, None] = {}
        for user, _ in self.users[node.output]:
            if user is None or user in self.views:
                return ()
            found.update(dict.fromkeys(self.groups[user]))
        return tuple(found)

    def _joins(self, node: Node, groups: tuple[Draft, ...]) -> bool:
        """True if all kernels that read the node may hold it, and gain by that."""
        if not is_pointwise(node):
            return len(groups) == 1 and _may_anchor(node, groups[0])
        if not all(self._may_hold(group, node) for group in groups):
            return False
        chain, rest = self._source(node, groups)
        comparison = self._compared(chain, rest, groups)
        if comparison.pays and len(groups) > 1:
            self.events.append(Event(f"computed in {len(groups)} kernels", node.where()))
        elif not comparison.pays and not rest:
            self.events.append(Event("fusion", node.where(), str(comparison)))
        return comparison.pays

    def _compared(
        self, chain: list[Node], rest: list[Node], groups: tuple[Draft, ...]
    ) -> Comparison:
        """The kernels without and with a chain, whose kernel would compute `rest` as well.

        An anchor follows the chain where it may; else each of `rest` stays behind in a kernel.
        """
        apart = [*groups, self._draft(*chain, *rest)]
        joined = [group.extended(chain) for group in groups]
        if len(groups) == len(rest) == 1 and _may_anchor(rest[0], joined[0]):
            joined[0].add(*rest)
        else:
            joined += map(self._draft, rest)
        return compared(apart, joined)

    def _may_hold(self, group: Draft, node: Node) -> bool:
        """True if a kernel may compute a producer that is element-wise or movement."""
        if len(group.counts) >= LARGEST_KERNEL:
            return False
        if group.anchor is None:
            return True
        if _stands_alone(group.anchor) or not _is_elementwise(node):
            return False
        return group.anchor.op in _ABSORBING or not self._feeds_anchor(node, group)

    def _feeds_anchor(self, node: Node, group: Draft) -> bool:
        """True if the node's value reaches the anchor inside the kernel."""
        inside = {node}
        for member in reversed(group.counts):
            if any(isinstance(v, Result) and v.node in inside for v in member.inputs):
                inside.add(member)
        return group.anchor in inside

    def _source(self, node: Node, groups: tuple[Draft, ...]) -> tuple[list[Node], list[Node]]:
        """What a kernel of the node alone would compute as well: producers for it alone.

        Those that can follow the node to the kernels that read it, itself first, and the others:
        the anchor that it would end, movement before an anchor, and what is too far away.
        """
        chain, others = {node}, set[Node]()
        moves = all(group.anchor is None for group in groups)
        stack = [node]
        while stack:
            for value in stack.pop().inputs:
                if not isinstance(value, Result) or not self._is_only_for(value, chain):
                    continue
                producer = value.node
                if not (_is_elementwise(producer) or (moves and is_pointwise(producer))):
                    others.add(producer)
                elif len(chain) < _LONGEST_SOURCE:
                    chain.add(producer)
                    stack.append(producer)
                elif len(groups) > 1:  # one kernel takes what is farther away as well, later
                    others.add(producer)
        nodes = self._reversed(chain)
        rest = self._reversed(n for n in others - chain if is_pointwise(n))
        anchors = [n for n in self._reversed(others) if _may_end(n, nodes)]
        return nodes, rest or anchors[:1]

    def _reversed(self, nodes: Iterable[Node]) -> list[Node]:
        return sorted(nodes, key=self.order.__getitem__, reverse=True)

    def _is_only_for(self, value: Result, readers: Container[Node]) -> bool:
        node = value.node
        if node in self.views or len(node.outputs) != 1:
            return False
        return all(user is not None and user in readers for user, _ in self.users[value])


def _may_anchor(node: Node, group: Draft) -> bool:
    """True if the kernel may become the epilogue of an anchor; that always pays."""
    if len(group.counts) >= LARGEST_KERNEL or group.anchor is not None:
        return False
    return _may_end(node, group.counts)


def _may_end(anchor: Node, members: Iterable[Node]) -> bool:
    """True if a kernel's nodes, its root first, may be the epilogue of an anchor."""
    if is_pointwise(anchor) or _stands_alone(anchor):
        return False
    return _is_epilogue(anchor, members)


def _is_elementwise(node: Node) -> bool:
    return op_def(node.op).kind is OpKind.ELEMENTWISE


def _stands_alone(node: Node) -> bool:
    return op_def(node.op).kind in (OpKind.EMITTED, OpKind.REGION) or node.op.startswith("arg_")


def _is_epilogue(anchor: Node, members: Iterable[Node]) -> bool:
    """True if a kernel, its root first, only computes element-wise on the anchor's own shape.

    Padding that ends it is only a place to write to.
    """
    root, *others = members
    shape = anchor.output.type.shape
    ends_padded = _is_outer_padding(root)
    follows = {anchor}
    for member in reversed(others if ends_padded else [root, *others]):
        if any(isinstance(v, Result) and v.node in follows for v in member.inputs):
            if not _is_elementwise(member) or member.output.type.shape != shape:
                return False
            follows.add(member)
    computed = root.inputs[0] if ends_padded else root.output
    return computed.type.shape == shape


def _build(group: Draft, new: dict[Value, Value]) -> Node:
    """The kernel node of a group, reading already rebuilt values."""
    members = list(reversed(group.counts))
    inputs: dict[Value, Input] = {}
    inner: dict[Value, Value] = {}
    emitted = op_def(group.root.op).kind is OpKind.EMITTED  # reads buffers, not expressions

    def inside(value: Value) -> Value:
        if value in inner:
            return inner[value]
        outer = new.get(value, value)
        if isinstance(outer, Constant) and outer.type.elements == 1 and not emitted:
            return outer
        if outer not in inputs:
            inputs[outer] = Input(outer.type, outer.name)
        return inputs[outer]

    for member in members:
        clone = with_inputs(member, [inside(value) for value in member.inputs])
        inner.update(zip(member.outputs, clone.outputs))
    outputs = tuple(inner[value] for value in group.root.outputs)
    name = _kernel_name(members)
    body = Graph(tuple(inputs.values()), outputs, name=name)
    return make_node(
        "kernel",
        tuple(inputs),
        {"name": name, "schedule": None},
        (body,),
        [name for member in members for name in member.provenance],
        [value.name for value in group.root.outputs],
    )


def _kernel_name(members: Iterable[Node]) -> str:
    ops = list(dict.fromkeys(member.op for member in members))
    return "_".join(ops[:4]) + (f"_and_{len(ops) - 4}" if len(ops) > 4 else "")


def _distinct(outputs: list[Value]) -> list[Value]:
    """Copy outputs that would share memory with an input, a constant or an earlier output."""
    taken: set[Value] = set()
    result: list[Value] = []
    places = places_of(Graph((), tuple(outputs)))
    for value in outputs:
        owner = places.of(value).owner
        if isinstance(owner, Result) and owner not in taken:
            taken.add(owner)
            result.append(value)
        else:
            result.append(_copy(value))
    return result


def _copy(value: Value) -> Value:
    source = Input(value.type, value.name)
    same = make_node("reshape", [source], {"shape": value.type.shape})
    body = Graph((source,), same.outputs, name="copy")
    attrs = {"name": "copy", "schedule": None}
    return make_node("kernel", [value], attrs, (body,), names=[value.name]).output
