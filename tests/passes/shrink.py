"""Makes a failing graph small: fewer outputs, then values replaced by inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from planish.ir.graph import Constant, Graph, Input, Result, Value


def shrunk(graph: Graph, fails: Callable[[Graph], bool], tries: int = 5000) -> Graph:
    """A graph that still fails, of which no single output, node or input can be taken away.

    `fails` must hold for `graph`. The cuts are tried in turn, large ones first, until none holds
    or `fails` was asked `tries` times.
    """
    while True:
        for candidate in _candidates(graph):
            if _size(candidate) >= _size(graph) or not tries:
                continue
            tries -= 1
            if fails(candidate):
                graph = candidate
                break
        else:
            return graph


def _size(graph: Graph) -> tuple[int, int, int]:
    return len(graph.nodes), len(graph.outputs), len(graph.inputs)


def _candidates(graph: Graph) -> Iterator[Graph]:
    nodes = graph.nodes
    if len(graph.outputs) > 1:
        yield from (_closed(graph, (value,)) for value in graph.outputs)
        for index in range(len(graph.outputs)):
            yield _closed(graph, graph.outputs[:index] + graph.outputs[index + 1 :])
    for node in nodes:
        yield _closed(graph, node.outputs)
    for node in reversed(nodes):
        yield _cut(graph, node.output)
    yield _closed(graph, graph.outputs)


def _closed(graph: Graph, outputs: tuple[Value, ...]) -> Graph:
    """The graph of these outputs, with the inputs that they read."""
    reached = Graph(graph.inputs, outputs)
    read = {value for node in reached.nodes for value in node.inputs} | {*outputs}
    return Graph(tuple(v for v in graph.inputs if v in read), outputs)


def _cut(graph: Graph, value: Result) -> Graph:
    """The graph with a value given from outside; the same if it is an output."""
    if value in graph.outputs or any(isinstance(v, Constant) for v in graph.outputs):
        return graph
    given = Input(value.type, f"cut{len(graph.inputs)}_{len(graph.nodes)}")
    after = graph.rebuild(lambda node, inputs: [given] if value in node.outputs else None)
    return _closed(Graph((*graph.inputs, given), after.outputs), after.outputs)
