"""Nodes of an ONNX graph in an order in which producers come first."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence

from onnx import AttributeProto, GraphProto, NodeProto

from planish.ir.errors import InvalidModel

Label = Callable[[int], str]


def node_labels(nodes: Sequence[NodeProto]) -> list[str]:
    """What to call each node: its name, or `<op_type>_<position>` where it has none.

    InvalidModel for names that are not UTF-8, which protobuf hands out as bytes.
    """
    for i, node in enumerate(nodes):
        names = (node.name, node.op_type, node.domain, *node.input, *node.output)
        require_text((*names, *(a.name for a in node.attribute)), f"node {i}")
    return [_spelled(node.name or f"{node.op_type}_{i}") for i, node in enumerate(nodes)]


def _spelled(name: str) -> str:
    """A name for messages: line breaks and commands to terminals are written out."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def require_text(names: Iterable[object], where: str) -> None:
    """InvalidModel unless all `names` are text."""
    for name in names:
        if not isinstance(name, str):
            raise InvalidModel(f"{where} has a name that is not UTF-8: {name!r}")


def live_nodes(
    nodes: Sequence[NodeProto],
    known: Callable[[str], bool],
    own: Collection[str],
    outputs: Collection[str],
) -> list[int]:
    """Positions of the nodes that `outputs` depend on, producers first, else in file order.

    `known` says whether a name is defined outside these nodes; `own` are those of this graph
    (inputs, initializers), which a node must not define again, unlike those of graphs around it.
    Raises InvalidModel for a name that nothing defines, one that two nodes define, and a cycle.
    """
    labels = node_labels(nodes)
    producer = _producers(nodes, labels, own)
    needs = [_needs(node, producer, known, label) for node, label in zip(nodes, labels)]
    order = _topological(needs, labels)
    for name in outputs:
        if name not in producer and not known(name):
            raise InvalidModel(f"the graph output '{name}' is not defined by any node or input")
    live = {producer[name] for name in outputs if name in producer}
    for position in reversed(order):
        if position in live:
            live.update(needs[position])
    return [position for position in order if position in live]


def _producers(
    nodes: Sequence[NodeProto], labels: Sequence[str], own: Collection[str]
) -> dict[str, int]:
    producer: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in producer:
                raise InvalidModel(
                    f"the value '{name}' is written by two nodes, "
                    f"'{labels[producer[name]]}' and '{labels[position]}'"
                )
            if name in own:
                raise InvalidModel(
                    f"node '{labels[position]}' writes '{name}', which is an input or initializer"
                )
            producer[name] = position
    return producer


def _needs(
    node: NodeProto, producer: dict[str, int], known: Callable[[str], bool], label: str
) -> set[int]:
    found = set()
    for name in (*filter(None, node.input), *captures(node)):
        if name in producer:
            found.add(producer[name])
        elif not known(name):
            raise InvalidModel(
                f"node '{label}' ({node.op_type}) reads '{name}', which no node, input or "
                f"initializer defines"
            )
    return found


def _topological(needs: Sequence[set[int]], labels: Sequence[str]) -> list[int]:
    """Kahn's algorithm; among ready nodes the first of the file is taken."""
    users: list[list[int]] = [[] for _ in needs]
    missing = [len(found) for found in needs]
    for position, found in enumerate(needs):
        for producer in found:
            users[producer].append(position)
    ready = [position for position, count in enumerate(missing) if not count]
    order = []
    while ready:
        position = heapq.heappop(ready)
        order.append(position)
        for user in users[position]:
            missing[user] -= 1
            if not missing[user]:
                heapq.heappush(ready, user)
    if len(order) < len(needs):
        raise InvalidModel(_cycle_message(needs, missing, labels))
    return order


def _cycle_message(needs: Sequence[set[int]], missing: Sequence[int], labels: Sequence[str]) -> str:
    """Walks back from a blocked node over blocked ones until one comes up again."""
    position = next(i for i, count in enumerate(missing) if count)
    path: dict[int, None] = {}
    while position not in path:
        path[position] = None
        position = min(producer for producer in needs[position] if missing[producer])
    steps = list(path)
    cycle = [labels[i] for i in reversed(steps[steps.index(position) :])]
    shown = " → ".join(f"'{name}'" for name in [*cycle[:8], cycle[0]])
    return f"the graph has a cycle through the nodes {shown}"


def captures(node: NodeProto) -> list[str]:
    """Names that the subgraphs of `node` read from the graphs around them, each once."""
    found: dict[str, None] = {}
    for graph, outer in _nested_graphs(node):
        local = outer
        for inner in graph.node:
            for name in filter(None, inner.input):
                if name not in local:
                    found[name] = None
        for value in graph.output:
            if value.name not in local:
                found[value.name] = None
    return list(found)


def _nested_graphs(node: NodeProto) -> list[tuple[GraphProto, set[str]]]:
    """All graphs below `node`, each with the names that it and the ones around it define."""
    found = []
    stack = [(graph, set[str]()) for graph in subgraphs(node)]
    while stack:
        graph, outer = stack.pop()
        names = outer | _defined(graph)
        found.append((graph, names))
        for inner in graph.node:
            stack += [(sub, names) for sub in subgraphs(inner)]
    return found


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """The graphs in the attributes of a node."""
    graphs = []
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            graphs.append(attribute.g)
        elif attribute.type == AttributeProto.GRAPHS:
            graphs += attribute.graphs
    return graphs


def _defined(graph: GraphProto) -> set[str]:
    names = {value.name for value in graph.input}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.output)
    return names
