"""The graph: frozen values and nodes with identity equality; a graph is its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from planish.ir.errors import InvalidGraph
from planish.ir.types import DType, TensorType

Attr = Any  # bool, int, float, str, DType, Dim, Schedule, None, or a tuple of these
Attrs = Mapping[str, Attr]


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """What flows along an edge; one of Input, Constant, Result.

    `name` is for people (the ONNX name where there is one) and is not part of the meaning.
    """

    type: TensorType
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Input(Value):
    """A parameter of a graph."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Constant(Value):
    """A known tensor; `data` is read-only and may be memory-mapped."""

    data: np.ndarray


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result(Value):
    """Output number `index` of `node`."""

    node: Node
    index: int


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class Node:
    """One operation: name in the op table, inputs, attributes, regions and provenance.

    `regions` are the graphs that If, Loop, Scan and Kernel hold. `provenance` are the names of the
    ONNX nodes that this one came from. Build nodes with `planish.ir.builder`, which infers types.
    """

    op: str
    inputs: tuple[Value, ...]
    attrs: Attrs
    regions: tuple[Graph, ...]
    provenance: tuple[str, ...]
    outputs: tuple[Result, ...]

    def __init__(
        self,
        op: str,
        inputs: Sequence[Value],
        types: Sequence[TensorType],
        attrs: Attrs | None = None,
        regions: Sequence[Graph] = (),
        provenance: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> None:
        def put(slot: str, value: object) -> None:
            object.__setattr__(self, slot, value)

        put("op", op)
        put("inputs", tuple(inputs))
        put("attrs", MappingProxyType(dict(sorted((attrs or {}).items()))))
        put("regions", tuple(regions))
        put("provenance", tuple(dict.fromkeys(provenance)))
        labels = tuple(names) or ("",) * len(types)
        put("outputs", tuple(Result(t, n, self, i) for i, (t, n) in enumerate(zip(types, labels))))

    @property
    def output(self) -> Result:
        """The only output; InvalidGraph if there are several."""
        if len(self.outputs) != 1:
            raise InvalidGraph(f"{self.op} has {len(self.outputs)} outputs where one is expected")
        return self.outputs[0]

    def where(self) -> str:
        """The node in a user's words: its ONNX names, else its op."""
        names = ", ".join(f"'{name}'" for name in self.provenance[:3])
        more = f" and {len(self.provenance) - 3} more" if len(self.provenance) > 3 else ""
        return f"{self.op} (from {names}{more})" if names else self.op


def constant(data: np.ndarray, name: str = "") -> Constant:
    """A Constant over `data`, which is made read-only (not copied)."""
    view = np.asarray(data)
    if view.flags.writeable:
        view = view.view()
        view.flags.writeable = False
    return Constant(TensorType(DType.of(view.dtype), tuple(view.shape)), name, view)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph:
    """Inputs and outputs; the nodes are what the outputs reach, so dead nodes cannot exist."""

    inputs: tuple[Input, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...] = ()
    name: str = "main"
    _nodes: list[tuple[Node, ...]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.output_names:
            names = tuple(v.name or f"output{i}" for i, v in enumerate(self.outputs))
            object.__setattr__(self, "output_names", names)
        if len(self.output_names) != len(self.outputs):
            raise InvalidGraph(
                f"graph '{self.name}' has {len(self.outputs)} outputs, "
                f"but {len(self.output_names)} output names"
            )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, producers before users, in an order that depends on the structure only."""
        if not self._nodes:
            self._nodes.append(tuple(_topological(self.outputs)))
        return self._nodes[0]

    def values(self) -> Iterator[Value]:
        """Every value that is read or returned, each once: inputs, constants, results."""
        seen: dict[Value, None] = dict.fromkeys(self.inputs)
        for node in self.nodes:
            seen.update(dict.fromkeys(node.inputs))
            seen.update(dict.fromkeys(node.outputs))
        seen.update(dict.fromkeys(self.outputs))
        return iter(seen)

    def users(self) -> dict[Value, list[tuple[Node | None, int]]]:
        """For each value its uses `(node, input number)`; graph outputs are `(None, number)`."""
        found: dict[Value, list[tuple[Node | None, int]]] = {v: [] for v in self.values()}
        for node in self.nodes:
            for index, value in enumerate(node.inputs):
                found[value].append((node, index))
        for index, value in enumerate(self.outputs):
            found[value].append((None, index))
        return found

    def rebuild(
        self, rewrite: Callable[[Node, tuple[Value, ...]], Sequence[Value] | None]
    ) -> Graph:
        """A new graph in which each node is replaced by what `rewrite` returns for it.

        `rewrite(node, inputs)` gets the node and its already rewritten inputs, producers first,
        and returns one value for each output, or None to keep the node. The same graph comes back
        if nothing changed.
        """
        new: dict[Value, Value] = {}
        for node in self.nodes:
            inputs = tuple(new.get(value, value) for value in node.inputs)
            outputs = rewrite(node, inputs)
            if outputs is None:
                outputs = (
                    node.outputs if inputs == node.inputs else with_inputs(node, inputs).outputs
                )
            if len(outputs) != len(node.outputs):
                raise InvalidGraph(
                    f"a rewrite of {node.where()} gave {len(outputs)} values for its "
                    f"{len(node.outputs)} outputs"
                )
            new.update((a, b) for a, b in zip(node.outputs, outputs) if a is not b)
        outputs = tuple(new.get(value, value) for value in self.outputs)
        if outputs == self.outputs:
            return self
        return Graph(self.inputs, outputs, self.output_names, self.name)


def with_inputs(node: Node, inputs: Sequence[Value]) -> Node:
    """The same operation on other inputs of the same types."""
    return Node(
        node.op,
        inputs,
        [result.type for result in node.outputs],
        node.attrs,
        node.regions,
        node.provenance,
        [result.name for result in node.outputs],
    )


def _topological(outputs: Sequence[Value]) -> Iterator[Node]:
    """Depth first from the outputs, iterative; nodes cannot form a cycle, being frozen."""
    done: set[Node] = set()
    for output in outputs:
        if not isinstance(output, Result) or output.node in done:
            continue
        done.add(output.node)
        stack = [(output.node, iter(output.node.inputs))]
        while stack:
            node, inputs = stack[-1]
            for value in inputs:
                if isinstance(value, Result) and value.node not in done:
                    done.add(value.node)
                    stack.append((value.node, iter(value.node.inputs)))
                    break
            else:
                stack.pop()
                yield node
