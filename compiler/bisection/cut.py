"""Cutting a small ONNX model out of a large one, with the names of its author."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from planish.ir.graph import Constant, Graph, Input, Value
from planish.ir.onnx import import_model
from planish.ir.onnx.model import parameters
from planish.ir.onnx.order import captures, live_nodes, node_labels
from planish.ir.onnx.storage import onnx_type
from planish.ir.reference import run_graph

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source


class Cutter:
    """Makes models of some of the (top-level) nodes of a model; all shapes become fixed.

    `positions` are those of the nodes that the outputs depend on, producers first; `labels` are the
    names by which planish calls all nodes. A model holds its weights in memory meanwhile.
    """

    def __init__(
        self, source: Source, dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
    ) -> None:
        self._model = _read(source)
        graph = self._model.graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._outputs = [value.name for value in graph.output]
        self.labels = node_labels(graph.node)
        inputs = {value.name for value in parameters(graph)}
        known = inputs | self._tensors.keys()
        self.positions = live_nodes(graph.node, known.__contains__, known, self._outputs)
        self._reads = {at: _reads(graph.node[at]) for at in self.positions}
        self.graph = import_model(self._model, dims=dims, shapes=shapes)
        self._values = self._all_values(dims, shapes)
        self._fixed = _fixed(self._values.values())

    def _all_values(
        self, dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
    ) -> dict[str, Value]:
        """The value of every live tensor name; the model is imported with all as outputs."""
        graph = self._model.graph
        names = [name for at in self.positions for name in graph.node[at].output if name]
        extra = [name for name in names if name not in self._outputs]
        graph.output.extend(ValueInfoProto(name=name) for name in extra)
        try:
            probe = import_model(self._model, dims=dims, shapes=shapes)
        finally:
            del graph.output[len(self._outputs) :]
        found: dict[str, Value] = {value.name: value for value in probe.inputs}
        found.update(zip(probe.output_names, probe.outputs))
        return found

    def positions_of(self, provenance: Iterable[str]) -> set[int]:
        """The nodes that a node of the IR came from; nodes inside others count as the outer one."""
        wanted = set(provenance)
        return {
            at
            for at in self.positions
            if self.labels[at] in wanted
            or any(name.startswith(f"{self.labels[at]}/") for name in wanted)
        }

    def around(self, positions: Collection[int]) -> set[int]:
        """The nodes given, those that they read from, and those that read from them."""
        nodes = self._model.graph.node
        written = {name for at in positions for name in nodes[at].output}
        read = {name for at in positions for name in self._reads[at]}
        return {
            at
            for at in self.positions
            if at in positions
            or not written.isdisjoint(self._reads[at])
            or not read.isdisjoint(nodes[at].output)
        }

    def cut(self, positions: Collection[int]) -> ModelProto:
        """The model of these nodes.

        What they read becomes an input of a fixed shape, or an initializer if it does not depend
        on the model's inputs. Its outputs are what no node in it reads, and outputs of the model.
        """
        nodes = [self._model.graph.node[at] for at in self.positions if at in positions]
        written = [name for node in nodes for name in node.output if name]
        read = dict.fromkeys(
            name for at in self.positions if at in positions for name in self._reads[at]
        )
        inputs, tensors = [], []
        for name in read:
            if name in written:
                continue
            if name in self._tensors:
                tensors.append(self._tensors[name])
            elif self._values[name] in self._fixed:
                tensors.append(numpy_helper.from_array(self._data(name), name))
            else:
                inputs.append(self._info(name))
        outputs = [n for n in written if n not in read or n in self._outputs]
        graph = helper.make_graph(
            nodes, "cut", inputs, [self._info(name) for name in outputs], tensors
        )
        model = ModelProto(ir_version=self._model.ir_version, producer_name="planish bisect")
        model.graph.CopyFrom(graph)
        model.opset_import.extend(self._model.opset_import)
        model.functions.extend(self._model.functions)
        return model

    def _info(self, name: str) -> ValueInfoProto:
        type_ = self._values[name].type
        return helper.make_tensor_value_info(name, onnx_type(type_.dtype), type_.static_shape)

    def _data(self, name: str) -> np.ndarray:
        value = self._values[name]
        if isinstance(value, Constant):
            return value.data
        return run_graph(Graph((), (value,), (name,)), [])[0]


def _read(source: Source) -> ModelProto:
    """The whole model in memory, in a copy of our own."""
    if isinstance(source, ModelProto):
        model = ModelProto()
        model.CopyFrom(source)
        return model
    if isinstance(source, bytes):
        return onnx.load_from_string(source)
    return onnx.load(os.fspath(source))


def _reads(node: NodeProto) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*filter(None, node.input), *captures(node)]))


def _fixed(values: Iterable[Value]) -> set[Value]:
    """Those that do not depend on an input."""
    results = tuple(values)
    graph = Graph((), results, tuple(map(str, range(len(results)))))
    moving: set[Value] = {value for value in graph.values() if isinstance(value, Input)}
    for node in graph.nodes:
        if any(value in moving for value in node.inputs):
            moving.update(node.outputs)
    return {value for value in results if value not in moving}
