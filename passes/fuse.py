"""Groups nodes into kernels: element-wise epilogues and prologues join their anchor."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from planish.ir.builder import make_node
from planish.ir.graph import Constant, Graph, Input, Node, Result, Value, with_inputs
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.views import choose_views, places_of

#: Nodes in one kernel at most: longer chains gain nothing and compile slowly.
LARGEST_KERNEL = 48

#: Element-wise ops dear enough that computing them twice costs more than a trip to memory.
_DEAR = frozenset(
    [
        "exp",
        "log",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "sigmoid",
        "silu",
        "gelu",
        "softplus",
        "mish",
        "erf",
        "pow",
        "sqrt",
        "div",
        "mod",
        "reciprocal",
    ]
)

#: Anchors that read each input element once or a few times, so cheap producers may be inlined.
_ABSORBING = frozenset(
    [
        "reduce_sum",
        "reduce_mean",
        "reduce_max",
        "reduce_min",
        "reduce_prod",
        "softmax",
        "log_softmax",
        "layer_norm",
        "rms_norm",
    ]
)


def fuse(graph: Graph, target: Target) -> Graph:
    """Put every node into a kernel but views, whose result is part of another tensor's memory.

    before: %1 = conv(%x, @w)  %2 = add(%1, @b)  %3 = relu(%2)
    after:  %3 = kernel(%x, @w, @b) { conv, add, relu }

    A producer joins the kernel of its users if all of them are in one kernel and either it is
    element-wise or movement, or it is that kernel's only anchor (a contraction, reduction or
    composite) and all that follows it there is element-wise on the same shape.
    """
    views = choose_views(graph).views
    groups = _Grouping(graph, views).assign()
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        if node in views:
            kept = with_inputs(node, [new.get(v, v) for v in node.inputs])
            new[node.output] = kept.output
        elif groups[node].root is node:
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


@dataclass(slots=True, eq=False)
class _Group:
    """A kernel under construction; `members` in reverse topological order, root first."""

    root: Node
    members: list[Node] = field(default_factory=list)
    anchor: Node | None = None


class _Grouping:
    def __init__(self, graph: Graph, views: Container[Node]) -> None:
        self.graph = graph
        self.views = views
        self.users = graph.users()
        self.groups: dict[Node, _Group] = {}

    def assign(self) -> dict[Node, _Group]:
        for node in reversed(self.graph.nodes):
            if node in self.views:
                continue
            group = self._common_group(node)
            if group is None or not self._may_join(node, group):
                group = _Group(node)
            group.members.append(node)
            self.groups[node] = group
            if not _is_pointwise(node):
                group.anchor = node
        return self.groups

    def _common_group(self, node: Node) -> _Group | None:
        """The one kernel that holds all users of the node's only output."""
        if len(node.outputs) != 1:
            return None
        found: _Group | None = None
        for user, _ in self.users[node.output]:
            if user is None or user in self.views:
                return None
            group = self.groups[user]
            if found is not None and group is not found:
                return None
            found = group
        return found

    def _may_join(self, node: Node, group: _Group) -> bool:
        if len(group.members) >= LARGEST_KERNEL or _stands_alone(node):
            return False
        if not all(_is_pointwise(m) or not _stands_alone(m) for m in group.members):
            return False
        if not _is_pointwise(node):
            return group.anchor is None and _is_epilogue(node, group)
        if self._is_repeated(node, group) and _is_dear(node):
            return False
        if group.anchor is None:
            return not (self._follows_anchor(node) and _moves(group))
        if op_def(node.op).kind is not OpKind.ELEMENTWISE:
            return False
        if self._follows_anchor(node) and self._feeds_anchor(node, group):
            return False
        return all(
            user is not group.anchor or (user.op in _ABSORBING and not _is_dear(node))
            for user, _ in self.users[node.output]
            if user is not None
        ) and not self._feeds_contraction(node, group)

    def _follows_anchor(self, node: Node) -> bool:
        """True if the node could be the epilogue of an anchor that only it reads."""
        shape = node.output.type.shape
        stack = [node]
        for _ in range(LARGEST_KERNEL):  # an anchor further up is another kernel's
            if not stack:
                break
            current = stack.pop()
            if op_def(current.op).kind is not OpKind.ELEMENTWISE:
                continue
            for value in current.inputs:
                if not isinstance(value, Result) or value.type.shape != shape:
                    continue
                if len(self.users[value]) > 1:
                    continue
                if not _is_pointwise(value.node) and not _stands_alone(value.node):
                    return True
                stack.append(value.node)
        return False

    def _feeds_contraction(self, node: Node, group: _Group) -> bool:
        """True if the node reaches, inside the kernel, an anchor that must not inline it."""
        absorbing = group.anchor is None or group.anchor.op in _ABSORBING
        return not absorbing and self._feeds_anchor(node, group)

    def _feeds_anchor(self, node: Node, group: _Group) -> bool:
        """True if the node's value reaches the anchor inside the kernel."""
        inside = {node}
        for member in reversed(group.members):
            if any(isinstance(v, Result) and v.node in inside for v in member.inputs):
                inside.add(member)
        return group.anchor in inside

    def _is_repeated(self, node: Node, group: _Group) -> bool:
        """True if some user reads elements of the node more than once."""
        size = node.output.type.elements
        return any(
            user is not None and user.outputs[0].type.elements > size
            for user, _ in self.users[node.output]
        )


def _is_pointwise(node: Node) -> bool:
    return op_def(node.op).kind in (OpKind.ELEMENTWISE, OpKind.MOVEMENT)


def _stands_alone(node: Node) -> bool:
    return op_def(node.op).kind in (OpKind.EMITTED, OpKind.REGION) or node.op.startswith("arg_")


def _moves(group: _Group) -> bool:
    """True if the group moves elements, so that no anchor can have it as its epilogue."""
    return any(op_def(m.op).kind is OpKind.MOVEMENT for m in _computing(group))


def _computing(group: _Group) -> list[Node]:
    """The members without a padding at the end, which is only a place to write to."""
    ends_padded = _is_outer_padding(group.root)
    return [m for m in group.members if not (ends_padded and m is group.root)]


def _is_dear(node: Node) -> bool:
    return node.op in _DEAR


def _is_epilogue(anchor: Node, group: _Group) -> bool:
    """True if the group only computes element-wise on the anchor's own shape."""
    shape = anchor.output.type.shape
    follows = {anchor}
    for member in reversed(_computing(group)):
        if any(isinstance(v, Result) and v.node in follows for v in member.inputs):
            if op_def(member.op).kind is not OpKind.ELEMENTWISE:
                return False
            if member.output.type.shape != shape:
                return False
            follows.add(member)
    computed = group.root.inputs[0] if _is_outer_padding(group.root) else group.root.output
    return computed.type.shape == shape


def _build(group: _Group, new: dict[Value, Value]) -> Node:
    """The kernel node of a group, reading already rebuilt values."""
    members = list(reversed(group.members))
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
