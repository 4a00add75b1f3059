"""Reading the text form that `planish.ir.text` writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from planish.ir.dim import Dim, DimLike
from planish.ir.dim_text import parse_dim
from planish.ir.errors import InvalidGraph, ScheduleError
from planish.ir.graph import Attr, Constant, Graph, Input, Node, Value, constant
from planish.ir.literals import ELEMENT, parse_element
from planish.ir.ops import op_def
from planish.ir.scanner import STRING, WORD, Scanner
from planish.ir.schedule import Schedule
from planish.ir.types import DType, TensorType

_VALUE = re.compile(r"[%@][\w.]+")
_NUMBER = re.compile(r"[-+]?(?:inf|nan|\d+(?:\.\d*)?(?:e[-+]?\d+)?)")
_DIM_NAME = re.compile(r"'(?:[^'\\]|\\.)*'|[A-Za-z_]\w*")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d*)")


def parse(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that a text describes; types are taken as written (`verify` checks them).

    `constants` holds what stands as `data("key")`. `random(seed)` and `random(seed, low, high)`
    stand for reproducible data (see `random_data`). Attributes left out take their default.
    InvalidGraph names the line.
    """
    reader = _Reader(constants or {})
    for number, line in enumerate(text.splitlines(), 1):
        try:
            reader.read(Scanner(line))
        except (InvalidGraph, ScheduleError, ValueError) as error:
            raise InvalidGraph(f"line {number} of the text form: {error}") from None
    return reader.graph()


@dataclass
class _OpenNode:
    """A node whose regions are being read."""

    results: list[tuple[str, TensorType, str]]
    op: str
    inputs: list[Value]
    attrs: dict[str, Attr]
    provenance: list[str]
    regions: list[Graph] = field(default_factory=list)


@dataclass
class _OpenGraph:
    """A graph whose nodes are being read; outputs are looked up at its closing brace."""

    name: str
    inputs: list[Input]
    outputs: list[tuple[str, str]]
    values: dict[str, Value]

    def look_up(self, name: str) -> Value:
        if name not in self.values:
            raise InvalidGraph(f"{name} is used, but not defined above in graph '{self.name}'")
        return self.values[name]

    def define(self, name: str, value: Value) -> None:
        if name in self.values:
            raise InvalidGraph(f"{name} is defined twice in graph '{self.name}'")
        self.values[name] = value


def random_data(
    type_: TensorType, seed: int, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Reproducible elements, the same on every machine: uniform in [low, high) if given.

    Otherwise floats are uniform in [-2, 2), signed integers in -8..7, unsigned ones in 0..7.
    """
    # RandomState: numpy has frozen its streams, and uniform numbers need no function of libm.
    rng, shape, dtype = np.random.RandomState(seed), type_.static_shape, type_.dtype
    if dtype is DType.BOOL:
        return np.asarray(rng.random_sample(shape) < 0.5)
    if low is None or high is None:
        signed = not dtype.value.startswith("uint")
        low, high = (-2, 2) if dtype.is_float else (-8 if signed else 0, 8)
    uniform = low + (high - low) * rng.random_sample(shape)
    return np.asarray(uniform if dtype.is_float else np.floor(uniform)).astype(dtype.numpy)


class _Reader:
    """The graphs and nodes that are open at a line, outermost first."""

    def __init__(self, constants: Mapping[str, np.ndarray]) -> None:
        self.constants = constants
        self.dims: dict[str, Dim] = {}
        self.open: list[_OpenGraph | _OpenNode] = []
        self.finished: Graph | None = None

    def graph(self) -> Graph:
        if self.finished is None or self.open:
            raise InvalidGraph("the text form ends before its graph does: a '}' is missing")
        return self.finished

    def read(self, line: Scanner) -> None:
        if line.done() or line.peek("#"):
            return
        if line.peek("%"):
            self._read_node(line)
        elif line.peek("@"):
            self._read_constant(line)
        elif line.accept("}"):
            self._close()
        elif line.accept("graph "):
            self._open_graph(line)
        elif line.accept("dim "):
            self._read_dim(line)
        else:
            raise line.error("a graph, node, constant, dim or '}'")
        if not line.done():
            raise line.error("the end of the line")

    def _read_dim(self, line: Scanner) -> None:
        text = line.match(_DIM_NAME, "the name of a dimension")
        low, high = re.fullmatch(_RANGE, line.match(_RANGE, "a range low..high")).groups()  # type: ignore[union-attr]
        name = text[1:-1].encode().decode("unicode_escape") if text.startswith("'") else text
        self.dims[name] = Dim.symbol(name, int(low), int(high) if high else None)

    def _open_graph(self, line: Scanner) -> None:
        if self.finished is not None or (self.open and isinstance(self.open[-1], _OpenGraph)):
            raise InvalidGraph("a graph stands only at the top, or in the braces of a node")
        graph = _OpenGraph(line.name(), [], [], {})
        line.expect("(")
        while not line.accept(")"):
            name, type_, label = self._declaration(line)
            graph.inputs.append(Input(type_, label))
            graph.define(name, graph.inputs[-1])
            if not line.peek(")"):
                line.expect(",")
        line.expect("->")
        line.expect("(")
        while not line.accept(")"):
            value = line.match(_VALUE, "a value such as %0")
            graph.outputs.append((value, line.string() if line.accept("as") else value))
            if not line.peek(")"):
                line.expect(",")
        line.expect("{")
        self.open.append(graph)

    def _read_constant(self, line: Scanner) -> None:
        graph = self._current()
        name, type_, label = self._declaration(line)
        line.expect("=")
        data = self._data(line, type_)
        expected = (type_.dtype.numpy, type_.static_shape)
        if (data.dtype, data.shape) != expected:
            raise InvalidGraph(f"{name} is {type_}, but its data {data.dtype}{list(data.shape)}")
        graph.define(name, Constant(type_, label, constant(data).data))

    def _read_node(self, line: Scanner) -> None:
        graph = self._current()
        results = [self._declaration(line)]
        while line.accept(","):
            results.append(self._declaration(line))
        line.expect("=")
        node = _OpenNode(results, line.match(WORD, "an op"), [], {}, [])
        node.attrs = {name: spec.default for name, spec in op_def(node.op).attrs.items()}
        line.expect("(")
        while not line.accept(")"):
            if line.peek("%") or line.peek("@"):
                node.inputs.append(graph.look_up(line.match(_VALUE, "a value")))
            else:
                name = line.name()
                line.expect("=")
                node.attrs[name] = self._attr(line)
            if not line.peek(")"):
                line.expect(",")
        if line.accept("from"):
            node.provenance.append(line.string())
            while line.accept(","):
                node.provenance.append(line.string())
        self.open.append(node)
        if not line.accept("{"):
            self._close()

    def _close(self) -> None:
        if not self.open:
            raise InvalidGraph("'}' closes nothing")
        closed = self.open.pop()
        if isinstance(closed, _OpenGraph):
            outputs = [closed.look_up(value) for value, _ in closed.outputs]
            names = tuple(name for _, name in closed.outputs)
            graph = Graph(tuple(closed.inputs), tuple(outputs), names, closed.name)
            if self.open and isinstance(self.open[-1], _OpenNode):
                self.open[-1].regions.append(graph)
            else:
                self.finished = graph
            return
        types = [type_ for _, type_, _ in closed.results]
        labels = [label for _, _, label in closed.results]
        attrs, regions, provenance = closed.attrs, closed.regions, closed.provenance
        node = Node(closed.op, closed.inputs, types, attrs, regions, provenance, labels)
        graph_of_node = self._current()
        for (name, _, _), result in zip(closed.results, node.outputs):
            graph_of_node.define(name, result)

    def _current(self) -> _OpenGraph:
        if not self.open or not isinstance(self.open[-1], _OpenGraph):
            raise InvalidGraph("a node or constant stands outside a graph")
        return self.open[-1]

    def _declaration(self, line: Scanner) -> tuple[str, TensorType, str]:
        name = line.match(_VALUE, "a value such as %0")
        line.expect(":")
        dtype = DType(line.match(WORD, "an element type"))
        line.expect("[")
        shape: list[DimLike] = []
        while not line.accept("]"):
            shape.append(self._dim(line.balanced()))
            if not line.peek("]"):
                line.expect(",")
        return name, TensorType(dtype, tuple(shape)), line.string() if line.peek('"') else ""

    def _dim(self, text: str) -> DimLike:
        return parse_dim(text.strip(), self.dims)

    def _attr(self, line: Scanner) -> Attr:
        """One attribute value; tuples may nest, read with a stack of the open ones."""
        stack: list[list[Attr]] = [[]]
        while True:
            if line.accept("["):
                stack.append([])
            elif not line.peek("]"):
                stack[-1].append(self._scalar(line))
            while line.accept("]"):
                if len(stack) == 1:
                    raise line.error("'[' before ']'")
                closed = tuple(stack.pop())
                stack[-1].append(closed)
            if len(stack) == 1:
                return stack[0][0]
            if stack[-1]:
                line.expect(",")

    def _scalar(self, line: Scanner) -> Attr:
        if line.peek('"'):
            return line.string()
        if line.accept("dim("):
            dim = self._dim(line.balanced())
            line.expect(")")
            return dim
        if line.accept("schedule "):
            return Schedule.from_json(line.json())
        if not line.peek("inf") and not line.peek("nan") and line.at(WORD):
            word = line.match(WORD, "a word")
            known = {"none": None, "true": True, "false": False}
            return known[word] if word in known else DType(word)
        number = line.match(_NUMBER, "an attribute value")
        return int(number) if number.lstrip("+-").isdigit() else float(number)

    def _data(self, line: Scanner, type_: TensorType) -> np.ndarray:
        if line.accept("data("):
            key = line.string()
            line.expect(")")
            if key not in self.constants:
                raise InvalidGraph(f"no data for the constant '{key}' was given to parse")
            return self.constants[key]
        if line.accept("random("):
            return random_data(type_, *self._random_arguments(line))
        texts: list[str] = []
        scalar = not line.accept("[")
        while not scalar and not line.accept("]"):
            texts.append(self._element(line, type_.dtype))
            if not line.peek("]"):
                line.expect(",")
        if scalar:
            texts.append(self._element(line, type_.dtype))
        data = np.empty(len(texts), type_.dtype.numpy)
        for index, text in enumerate(texts):
            data[index] = parse_element(text, type_.dtype)
        if len(texts) != type_.elements:
            raise InvalidGraph(f"{type_} has {type_.elements} elements, but {len(texts)} are given")
        return data.reshape(type_.static_shape)

    def _element(self, line: Scanner, dtype: DType) -> str:
        pattern = STRING if dtype is DType.STRING else ELEMENT
        return line.match(pattern, f"an element of type {dtype.value}")

    def _random_arguments(self, line: Scanner) -> tuple[int, float | None, float | None]:
        seed = int(line.match(_NUMBER, "a seed"))
        low = high = None
        if line.accept(","):
            low = float(line.match(_NUMBER, "the lower bound"))
            line.expect(",")
            high = float(line.match(_NUMBER, "the upper bound"))
        line.expect(")")
        return seed, low, high
