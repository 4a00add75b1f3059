"""The choice of layouts for a graph: its decisions and costs, and the cheapest of all choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planish.ir.dim import DimLike
from planish.ir.graph import Constant, Graph, Node, Result, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.layout.blocking import Blocking, has_channels
from planish.passes.layout.convolutions import (
    PlainForm,
    blocked_conv,
    conv_as_matmul,
    matmul_panels,
    padded_rows,
)
from planish.passes.layout.cost import Costs
from planish.passes.layout.cut import cheapest
from planish.passes.layout.forms import Form, form_of
from planish.passes.layout.problem import PLAIN, Problem

#: Kinds of ops that element-wise ops after them join as an epilogue, in the same layout.
_ANCHORS = (OpKind.REDUCTION, OpKind.CONTRACTION, OpKind.COMPOSITE)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a graph.

    `forms` are the nodes that work on blocks, `plain_forms` those in plain layout that take
    another form, `refused` the convolutions that know plain layout only, with the reason.
    `cycles` estimates the ops that know both layouts, and the `conversions` between them; `apart`
    and `conversions_apart` are the same if convolutions alone worked on blocks.
    """

    forms: Mapping[Node, Form]
    plain_forms: Mapping[Node, PlainForm]
    refused: Mapping[Node, str]
    cycles: int
    apart: int
    conversions: int
    conversions_apart: int


def choose_layouts(graph: Graph, target: Target, blocking: Blocking) -> Choice:
    """The layouts of all values of a graph at the least cost."""
    model = _Model(graph, target, blocking)
    decisions, chosen = model.decisions, cheapest(model.problem)
    convs = {decisions[node] for node in graph.nodes if node.op == "conv"} - {PLAIN}
    apart = [decision in convs for decision in range(len(chosen))]
    return Choice(
        {node: form for node, form in model.forms.items() if chosen[decisions[node]]},
        {node: form for node, form in model.plain_forms.items() if not chosen[decisions[node]]},
        model.refused,
        model.problem.cost(chosen) or 0,
        model.problem.cost(apart) or 0,
        len(model.problem.converted(chosen)),
        len(model.problem.converted(apart)),
    )


def layout_problem(graph: Graph, target: Target, blocking: Blocking) -> Problem:
    """The decisions of a graph with their costs."""
    return _Model(graph, target, blocking).problem


class _Model:
    """The decisions of a graph: one for each op that knows both layouts."""

    def __init__(self, graph: Graph, target: Target, blocking: Blocking) -> None:
        self.problem = Problem()
        self.blocking = blocking
        self.costs = Costs(target, blocking)
        self.lanes = target.lanes(4)
        self.forms: dict[Node, Form] = {}
        self.plain_forms: dict[Node, PlainForm] = {}
        self.refused: dict[Node, str] = {}
        self.decisions: dict[Node, int] = {}
        self.users = graph.users()
        self.moving = _moving_nodes(graph, self.users)
        for node in graph.nodes:
            self.decisions[node] = self._conv(node) if node.op == "conv" else self._op(node)
        for value in graph.values():
            if not isinstance(value, Constant) and has_channels(value):
                self._connect(value)

    def _conv(self, node: Node) -> int:
        form = blocked_conv(node, self.blocking)
        product = conv_as_matmul(node, self.lanes)
        plain_form = product or padded_rows(node)
        if plain_form is not None:
            self.plain_forms[node] = plain_form
        if isinstance(form, str):
            self.refused[node] = form
            return PLAIN
        self.forms[node] = form
        plain = self.costs.plain_conv(node) if product is None else self.costs.matmul(node)
        return self.problem.decision(plain, self.costs.blocked_conv(node))

    def _op(self, node: Node) -> int:
        product = matmul_panels(node, self.lanes)
        if product is not None:
            self.plain_forms[node] = product
        form = form_of(node, self.blocking)
        if form is None:
            return PLAIN
        self.forms[node] = form
        follows = op_def(node.op).kind is OpKind.ELEMENTWISE and node not in self.moving
        return self.problem.decision(
            self.costs.plain(node), self.costs.blocked(node, is_epilogue=follows)
        )

    def _connect(self, value: Value) -> None:
        """Conversions of a value between the op that makes it and those that read it.

        A conversion is absorbed by an op beside it that moves all elements anyway, if it is the
        only conversion of the value there: it then has a decision of its own for what it reads or
        writes, apart from the one for how it works.
        """
        writer = self._writer(value)
        readers: dict[Node | None, int] = {}
        for user, index in self.users[value]:
            decision = self._reader(user, index)
            readers[user] = decision if readers.get(user, decision) == decision else PLAIN
        if writer == PLAIN and all(reader == PLAIN for reader in readers.values()):
            return
        absorbed = self.costs.absorbed_conversion(value)
        moved = isinstance(value, Result) and self._may_convert(value.node)
        absorbing = [user for user in readers if self._absorbs(user, value)]
        if len(readers) == 1:
            (reader,) = readers.values()
            user = None if moved or absorbing else next(iter(readers))
            costs = [self._alone(value, user, to_plain) for to_plain in (False, True)]
            if moved or absorbing:
                costs = [min(cost, absorbed) for cost in costs]
            self.problem.transfer(writer, [reader], *costs)
            return
        if moved:
            written = self.problem.decision(0, 0)
            self.problem.transfer(writer, [written], absorbed, absorbed)
            writer = written
        if len(absorbing) == 1:
            read = self.problem.decision(0, 0)
            self.problem.transfer(read, [readers[absorbing[0]]], absorbed, absorbed)
            readers[absorbing[0]] = read
        costs = [self._alone(value, None, to_plain) for to_plain in (False, True)]
        self.problem.transfer(writer, [*readers.values()], *costs)

    def _writer(self, value: Value) -> int:
        if not isinstance(value, Result):
            return PLAIN
        form = self.forms.get(value.node)
        return self.decisions[value.node] if form is not None and form.gives_blocks else PLAIN

    def _reader(self, user: Node | None, index: int) -> int:
        form = None if user is None else self.forms.get(user)
        if user is None or form is None or not form.reads[index]:
            return PLAIN
        return self.decisions[user]

    def _absorbs(self, user: Node | None, value: Value) -> bool:
        """True if a reader has a kernel that could read either layout."""
        if user is None:
            return False
        if user.op == "conv":  # its own packing, or its padding if no kernel before it writes that
            if user in self.forms and user.attrs["groups"] > 1 and not self.forms[user].reads[0]:
                return True
            if not any((*user.attrs["before"], *user.attrs["after"])):
                return False
            computed = isinstance(value, Result) and value.node.op != "reshape"
            return not computed or len(self.users[value]) > 1
        return user in self.moving

    def _may_convert(self, node: Node) -> bool:
        """True if the kernel of a node could write either layout.

        Surplus channels would be computed as well, which fusion refuses for dear element-wise ops.
        """
        if node not in self.moving:
            return False
        movement = op_def(node.op).kind is OpKind.MOVEMENT
        return movement or not self.blocking.has_surplus(node.output)

    def _alone(self, value: Value, user: Node | None, to_plain: bool) -> int:
        """A conversion in a kernel of its own, or in none, but then an epilogue gets a kernel."""
        cost = self.costs.conversion(value, to_plain=to_plain)
        if user is None or user in self.moving or op_def(user.op).kind is not OpKind.ELEMENTWISE:
            return cost
        extra = self.costs.extra_kernel(value)
        return max(cost + cost // 64, extra)  # the epilogue is best left with its anchor


def _moving_nodes(
    graph: Graph, users: Mapping[Value, Sequence[tuple[Node | None, int]]]
) -> set[Node]:
    """Nodes with a kernel that only moves elements or computes on each: any strides will do."""
    moving: set[Node] = set()
    anchored: set[Node] = set()
    for node in graph.nodes:
        kind = op_def(node.op).kind
        if kind in _ANCHORS:
            anchored.add(node)
        if kind not in (OpKind.ELEMENTWISE, OpKind.MOVEMENT) or node.op == "reshape":
            continue
        shape = node.inputs[0].type.shape if node.op == "pad" else node.outputs[0].type.shape
        follows = any(
            isinstance(value, Result)
            and value.node in anchored
            and value.type.shape == shape
            and (len(users[value]) == 1 or all(_is_alike(user, shape) for user, _ in users[value]))
            for value in node.inputs
        )
        if follows and (kind is OpKind.ELEMENTWISE or node.op == "pad"):
            anchored.add(node)
        else:
            moving.add(node)
    return moving


def _is_alike(user: Node | None, shape: tuple[DimLike, ...]) -> bool:
    """True for an element-wise op on all elements of a shape, which may join the same kernel."""
    if user is None or op_def(user.op).kind is not OpKind.ELEMENTWISE:
        return False
    return user.outputs[0].type.shape == shape
