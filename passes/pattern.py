"""Patterns over the nodes of a graph, and the search for a match."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from planish.ir.graph import Attr, Constant, Node, Result, Value


@dataclass(frozen=True, slots=True)
class AnyValue:
    """Matches a value and captures it as `name`; a name that occurs twice must be one value."""

    name: str
    where: Callable[[Value], bool] | None = None


@dataclass(frozen=True, slots=True)
class AnyConstant:
    """Matches a constant and captures it as `name`."""

    name: str
    where: Callable[[Constant], bool] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """Matches the only output of a node.

    `ops` are the accepted op names, empty for any. `inputs` are the patterns of all inputs, or
    None for any inputs. `commutative` tries two inputs in both orders. `single_use` asks that
    nothing else uses the value: else the rule would compute it twice.
    """

    ops: tuple[str, ...]
    inputs: tuple[Pattern, ...] | None
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    where: Callable[[Node], bool] | None = None
    commutative: bool = False
    single_use: bool = False
    name: str = ""


Pattern = AnyValue | AnyConstant | Operation


def value(name: str, where: Callable[[Value], bool] | None = None) -> AnyValue:
    """Any value, captured as `name`."""
    return AnyValue(name, where)


def const(name: str, where: Callable[[Constant], bool] | None = None) -> AnyConstant:
    """Any constant for which `where` holds, captured as `name`."""
    return AnyConstant(name, where)


def op(
    ops: str | tuple[str, ...],
    *inputs: Pattern,
    attrs: Mapping[str, Attr] | None = None,
    where: Callable[[Node], bool] | None = None,
    commutative: bool = False,
    single_use: bool = False,
    name: str = "",
) -> Operation:
    """A node of one of `ops` on `inputs`; with no inputs given, on any."""
    names = (ops,) if isinstance(ops, str) else ops
    patterns = inputs or None
    return Operation(names, patterns, attrs or {}, where, commutative, single_use, name)


@dataclass(frozen=True, slots=True)
class Match:
    """Where a pattern was found: its root, what was captured, and all nodes, root first."""

    root: Node
    captured: Mapping[str, Value]
    nodes: tuple[Node, ...]
    uses: Mapping[Value, int]

    def is_shared(self, value: Value) -> bool:
        """True if the value has more than one use."""
        return self.uses[value] > 1

    def __getitem__(self, name: str) -> Value:
        return self.captured[name]

    def node(self, name: str) -> Node:
        """The node that the Operation called `name` matched."""
        found = self.captured[name]
        assert isinstance(found, Result), f"'{name}' names no Operation of the pattern"
        return found.node

    def data(self, name: str) -> np.ndarray:
        """The data of a captured constant."""
        found = self.captured[name]
        assert isinstance(found, Constant), f"'{name}' names no constant of the pattern"
        return found.data


@dataclass(slots=True)
class Search:
    """The search for one pattern at one node.

    `uses` counts the uses of every value. After a failure `shared` is a node that matched but for
    its other users, so that the failure can be told.
    """

    uses: Mapping[Value, int]
    shared: Node | None = None

    def find(self, pattern: Operation, root: Node) -> Match | None:
        """The first match, or None."""
        if not _accepts(pattern, root):
            return None
        start: list[tuple[Pattern, Value]] = [(pattern, root.output)]
        states: list[_State] = [(start, {}, ())]
        while states:
            goals, captured, nodes = states.pop()
            if not goals:
                return Match(root, captured, nodes, self.uses)
            states.extend(self._advance(goals, captured, nodes))
        return None

    def _advance(
        self, goals: list[tuple[Pattern, Value]], captured: dict[str, Value], nodes: _Nodes
    ) -> Iterator[_State]:
        """The states after the last goal is met, the least preferred first."""
        *rest, (pattern, found) = goals
        if isinstance(pattern, Operation):
            if not isinstance(found, Result) or not _accepts(pattern, found.node):
                return
            if pattern.single_use and nodes and self.uses[found] > 1:
                self.shared = found.node
                return
        elif isinstance(pattern, AnyConstant):
            if not isinstance(found, Constant) or (pattern.where and not pattern.where(found)):
                return
        elif pattern.where and not pattern.where(found):
            return
        if pattern.name:
            if captured.get(pattern.name, found) is not found:
                return
            captured = {**captured, pattern.name: found}
        if not isinstance(pattern, Operation):
            yield rest, captured, nodes
            return
        node = found.node if isinstance(found, Result) else None
        assert node is not None
        for order in _orders(pattern, node):
            yield rest + order, captured, (*nodes, node)


_Nodes = tuple[Node, ...]
_State = tuple[list[tuple[Pattern, Value]], dict[str, Value], _Nodes]


def _accepts(pattern: Operation, node: Node) -> bool:
    """Op, attributes and number of inputs fit; nodes with several outputs never do."""
    if pattern.ops and node.op not in pattern.ops:
        return False
    if len(node.outputs) != 1:
        return False
    if pattern.inputs is not None and len(node.inputs) != len(pattern.inputs):
        return False
    if any(node.attrs.get(name) != expected for name, expected in pattern.attrs.items()):
        return False
    return pattern.where is None or pattern.where(node)


def _orders(pattern: Operation, node: Node) -> Iterator[list[tuple[Pattern, Value]]]:
    """Goals for the inputs; the order as written comes last, for it is tried first."""
    if pattern.inputs is None:
        yield []
        return
    if pattern.commutative:
        yield list(zip(pattern.inputs, reversed(node.inputs)))
    yield list(zip(pattern.inputs, node.inputs))
