"""The cheapest choice of layouts: a minimum cut between blocked and plain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import networkx as nx
from networkx.algorithms.flow import boykov_kolmogorov

from planish.passes.layout.problem import Problem

_BLOCKED, _PLAIN = -1, -2  # the terminals; nodes of decisions and conversions count from 0


def cheapest(problem: Problem) -> list[bool]:
    """For each decision whether it is for blocks, at the least cost of all choices.

    A node for each decision: on the side of `_BLOCKED` it is for blocks. An edge costs its capacity
    if its tail is blocked and its head is plain. A tensor that several read has two more nodes, one
    for each conversion, so that this is paid once for all of them. First, nodes whose side is
    evident (a convolution that gains more than all conversions around it cost) join their terminal,
    mostly all of them; what remains is cut by networkx, each connected component by itself.
    Of choices that cost the same it is the one with the most blocks among what networkx cuts.
    """
    nodes = [_node(problem, decision) for decision in range(len(problem.plain))]
    network = _network(problem, nodes)
    network.settle()
    for component in network.components():
        network.cut(component)
    return [network.side.get(node, node) == _BLOCKED for node in nodes]


def _node(problem: Problem, decision: int) -> int:
    """The node of a decision: a terminal where there is nothing to decide."""
    if problem.plain[decision] is None:
        return _BLOCKED
    return _PLAIN if problem.blocked[decision] is None else decision


def _network(problem: Problem, nodes: Sequence[int]) -> _Network:
    network = _Network()
    for node, plain, blocked in zip(nodes, problem.plain, problem.blocked):
        if node >= 0:
            network.add(_BLOCKED, node, plain or 0)
            network.add(node, _PLAIN, blocked or 0)
    never = 1 + sum(cost for costs in (problem.plain, problem.blocked) for cost in costs if cost)
    never += sum(t.to_blocks + t.to_plain for t in problem.transfers)
    fresh = len(nodes)
    for transfer in problem.transfers:
        writer, readers = nodes[transfer.writer], [nodes[reader] for reader in transfer.readers]
        if len(readers) == 1:
            network.add(readers[0], writer, transfer.to_blocks)
            network.add(writer, readers[0], transfer.to_plain)
            continue
        packed, unpacked = fresh, fresh + 1
        fresh += 2
        network.add(packed, writer, transfer.to_blocks)
        network.add(writer, unpacked, transfer.to_plain)
        for reader in readers:
            network.add(reader, packed, never)
            network.add(unpacked, reader, never)
    return network


class _Network:
    """Capacities; `side` is the terminal that a node is settled on."""

    def __init__(self) -> None:
        self.after: dict[int, dict[int, int]] = {}
        self.before: dict[int, dict[int, int]] = {}
        self.side: dict[int, int] = {}

    def add(self, tail: int, head: int, capacity: int) -> None:
        """An edge, or more capacity for it; those that no cut can contain are left out."""
        for node in (tail, head):
            self.after.setdefault(node, {})
            self.before.setdefault(node, {})
        if capacity and tail not in (head, _PLAIN) and head != _BLOCKED:
            self.after[tail][head] = self.after[tail].get(head, 0) + capacity
            self.before[head][tail] = self.after[tail][head]

    def settle(self) -> None:
        """Give nodes to a terminal that holds them at least as strongly as all else together."""
        waiting = [node for node in self.after if node >= 0]
        while waiting:
            node = waiting.pop()
            if node in self.side:
                continue
            after, before = self.after[node], self.before[node]
            if before.get(_BLOCKED, 0) >= sum(after.values()):
                waiting += self._join(node, _BLOCKED)
            elif after.get(_PLAIN, 0) >= sum(before.values()):
                waiting += self._join(node, _PLAIN)

    def _join(self, node: int, terminal: int) -> Iterable[int]:
        """Make a node part of a terminal; its neighbours, which now may be evident."""
        self.side[node] = terminal
        neighbours = {*self.after[node], *self.before[node]}
        for head, capacity in self.after.pop(node).items():
            del self.before[head][node]
            if terminal == _BLOCKED and head != terminal:
                self.add(terminal, head, capacity)
        for tail, capacity in self.before.pop(node).items():
            del self.after[tail][node]
            if terminal == _PLAIN and tail != terminal:
                self.add(tail, terminal, capacity)
        return (neighbour for neighbour in neighbours if neighbour >= 0)

    def components(self) -> Iterator[list[int]]:
        """The nodes without a side, by what is connected otherwise than through a terminal."""
        seen: set[int] = set()
        for start in self.after:
            if start < 0 or start in seen:
                continue
            seen.add(start)
            component = [start]
            for node in component:
                for other in (*self.after[node], *self.before[node]):
                    if other >= 0 and other not in seen:
                        seen.add(other)
                        component.append(other)
            yield component

    def cut(self, component: Iterable[int]) -> None:
        """Give each node of a component its side."""
        network = nx.DiGraph()
        network.add_nodes_from((_BLOCKED, _PLAIN))
        for node in component:
            edges = [(node, head, capacity) for head, capacity in self.after[node].items()]
            if _BLOCKED in self.before[node]:
                edges.append((_BLOCKED, node, self.before[node][_BLOCKED]))
            network.add_weighted_edges_from(edges, weight="capacity")
        _, (blocked, plain) = nx.minimum_cut(network, _BLOCKED, _PLAIN, flow_func=boykov_kolmogorov)
        self.side.update(dict.fromkeys(blocked - {_BLOCKED}, _BLOCKED))
        self.side.update(dict.fromkeys(plain - {_PLAIN}, _PLAIN))
