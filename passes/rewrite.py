"""The rewrite engine: rules applied to a fixed point by one iterative driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import InvalidGraph, UnsupportedModel
from planish.ir.graph import Graph, Node, Result, Value
from planish.passes.pattern import Match, Operation, Search
from planish.passes.trace import Event, report


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rule leaves a place alone that its pattern matches."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Replace the root of `pattern` by what `build` makes of a match.

    `build` gives a value of the root's type; a Refusal where a reader of the log would want to
    know why not; or None where the rule just does not apply.
    """

    name: str
    pattern: Operation
    build: Callable[[Match], Value | Refusal | None]


def rewrite(
    graph: Graph, rules: Sequence[Rule], *, trace: list[Event] | None = None, limit: int = 0
) -> Graph:
    """Apply `rules` until none fires; the same object comes back if none did.

    At each node the first rule of the sequence that fires wins. Producers are rewritten before
    their users, and what a rule builds is rewritten in turn. New nodes carry the provenance of
    all nodes that the pattern matched. `trace` gets every firing and the refusals that stand at
    the end. More than `limit` firings (default: 20 a node) are an InvalidGraph that names the
    rules which never settle.
    """
    by_op = _index(rules)
    limit = limit or 1000 + 20 * len(graph.nodes)
    fired: list[Event] = []
    while True:
        sweep = _Sweep(graph, by_op, fired, limit)
        with np.errstate(all="ignore"):  # constants hold NaN and infinities, as the model says
            after = sweep.run()
        if after is graph:
            break
        graph = after
    report([*fired, *sweep.refused])
    if trace is not None:
        trace += [*fired, *sweep.refused]
    return graph


def _build(rule: Rule, match: Match) -> Value | Refusal | None:
    """What a rule makes of a match; an error of the rule's tells which one, and where."""
    try:
        return rule.build(match)
    except UnsupportedModel:
        raise
    except Exception as error:
        raise InvalidGraph(
            f"rule '{rule.name}' failed at {match.root.where()}: {type(error).__name__}: {error}"
        ) from error


def _index(rules: Sequence[Rule]) -> Callable[[str], list[Rule]]:
    """The rules that may fire at an op, in order."""
    found: dict[str, list[Rule]] = {}

    def rules_of(op: str) -> list[Rule]:
        if op not in found:
            found[op] = [r for r in rules if not r.pattern.ops or op in r.pattern.ops]
        return found[op]

    return rules_of


class _Sweep:
    """One walk over the graph, producers first, that rewrites what it builds as well.

    `settled` maps a value to its final form, `instead` the output of a replaced node to its
    replacement, `origin` a built node to the provenance and name that it inherits. `uses` counts
    the uses of each live value as if all the rest of the graph were already rewritten.
    """

    def __init__(
        self, graph: Graph, rules: Callable[[str], list[Rule]], fired: list[Event], limit: int
    ) -> None:
        self.graph = graph
        self.rules = rules
        self.fired = fired
        self.limit = limit
        self.refused: list[Event] = []
        self.settled: dict[Value, Value] = {}
        self.instead: dict[Value, Value] = {}
        self.origin: dict[Node, tuple[tuple[str, ...], str]] = {}
        self.uses = {found: len(users) for found, users in graph.users().items()}

    def run(self) -> Graph:
        """The rewritten graph, the same object if no rule fired."""
        before = len(self.fired)
        stack = [v.node for v in reversed(self.graph.outputs) if isinstance(v, Result)]
        while stack:
            node = stack[-1]
            if node.outputs[0] in self.settled:
                stack.pop()
                continue
            needs = [v for v in self._needs(node) if isinstance(v, Result)]
            waiting = [v.node for v in needs if v not in self.settled]
            if waiting:
                stack.extend(reversed(waiting))
            elif not self._settle(node):
                stack.pop()
        if len(self.fired) == before:
            return self.graph
        outputs = tuple(self.settled.get(v, v) for v in self.graph.outputs)
        return Graph(self.graph.inputs, outputs, self.graph.output_names, self.graph.name)

    def _needs(self, node: Node) -> Sequence[Value]:
        replacement = self.instead.get(node.outputs[0])
        return node.inputs if replacement is None else (replacement,)

    def _settle(self, node: Node) -> bool:
        """Settle a node whose inputs are settled; True if it was replaced and must come again."""
        replacement = self.instead.get(node.outputs[0])
        if replacement is not None:
            self.settled[node.outputs[0]] = self.settled.get(replacement, replacement)
            return False
        current = self._with_settled_inputs(node)
        replacement = self._apply(current)
        if replacement is not None:
            self.instead[node.outputs[0]] = replacement
            return True
        for old, new in zip(node.outputs, current.outputs):
            self.settled[old] = self.settled[new] = new
        return False

    def _with_settled_inputs(self, node: Node) -> Node:
        inputs = tuple(self.settled.get(v, v) for v in node.inputs)
        origin = self.origin.get(node)
        if origin is None and inputs == node.inputs:
            return node
        provenance, name = origin or ((), "")
        types = [result.type for result in node.outputs]
        names = [result.name or name for result in node.outputs]
        merged = (*provenance, *node.provenance)
        new = Node(node.op, inputs, types, node.attrs, node.regions, merged, names)
        for old_result, new_result in zip(node.outputs, new.outputs):
            self.uses[new_result] = self.uses[old_result]
        return new

    def _apply(self, node: Node) -> Value | None:
        """What the first rule that fires at a node makes of it."""
        for rule in self.rules(node.op):
            search = Search(self.uses)
            match = search.find(rule.pattern, node)
            result: Value | Refusal | None
            if match is not None:
                result = _build(rule, match)
            elif search.shared is not None:
                result = Refusal(f"{search.shared.where()} has other users")
            else:
                continue
            if isinstance(result, Refusal):
                self.refused.append(Event(rule.name, node.where(), result.reason))
            elif result is not None and match is not None and result is not node.output:
                self._replace(rule, match, result)
                return result
        return None

    def _replace(self, rule: Rule, match: Match, value: Value) -> None:
        root = match.root.output
        where = match.root.where()
        if value.type != root.type:
            raise InvalidGraph(
                f"rule '{rule.name}' at {where} replaces {root.type} by {value.type}"
            )
        self.fired.append(Event(rule.name, where))
        if len(self.fired) > self.limit:
            last = ", ".join(sorted({event.rule for event in self.fired[-20:]}))
            raise InvalidGraph(
                f"rewriting does not settle: {self.limit} rules fired, the last at {where}; "
                f"they undo each other: {last}"
            )
        merged = tuple(name for node in reversed(match.nodes) for name in node.provenance)
        self._adopt(value, merged, root.name)
        users = self.uses[root]
        self.uses[value] += users
        self.uses[root] -= users
        self._release(match.root)

    def _adopt(self, value: Value, provenance: tuple[str, ...], name: str) -> None:
        """Note what newly built nodes inherit, and count the uses that they make."""
        new: dict[Node, None] = {}
        stack = [value]
        while stack:
            found = stack.pop()
            if isinstance(found, Result) and found not in self.uses and found.node not in new:
                new[found.node] = None
                stack.extend(found.node.inputs)
        for node in new:
            named = isinstance(value, Result) and node is value.node
            self.origin[node] = (provenance, name if named else "")
            for found in (*node.outputs, *node.inputs):
                self.uses.setdefault(found, 0)
            for read in node.inputs:
                self.uses[read] += 1
        self.uses.setdefault(value, 0)

    def _release(self, node: Node) -> None:
        """Take back the uses that a node makes, and those of all that only it kept alive."""
        stack = [node]
        while stack:
            dead = stack.pop()
            if any(self.uses[result] for result in dead.outputs):
                continue
            for read in dead.inputs:
                self.uses[read] -= 1
                if isinstance(read, Result) and not self.uses[read]:
                    stack.append(read.node)
