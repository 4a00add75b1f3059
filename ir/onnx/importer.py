"""ONNX → Graph: walks the nodes, functions and constant branches opened in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from planish.ir.errors import InvalidGraph, InvalidModel, UnsupportedModel
from planish.ir.graph import Graph, Input, Node, Result, Value, constant
from planish.ir.limits import MOST_EXPANDED_NODES, MOST_NESTED, excess
from planish.ir.onnx.call import HALVES, Call, Converter
from planish.ir.onnx.declared import Declared, declare
from planish.ir.onnx.emitter import Emitter
from planish.ir.onnx.frame import Frame
from planish.ir.onnx.functions import (
    IN_FLOAT32,
    FunctionKey,
    body_attributes,
    body_size,
    call_attributes,
    default_of,
    function_key,
    has_body,
    is_standard,
    local_functions,
    schema_function,
)
from planish.ir.onnx.inputs import input_types, open_dimensions, tell_open
from planish.ir.onnx.model import (
    Located,
    Source,
    load_model,
    normal_domain,
    opset_versions,
    parameters,
)
from planish.ir.onnx.sizes import Sizes
from planish.ir.onnx.storage import Storage
from planish.ir.onnx.suggestions import try_sizes
from planish.ir.onnx.table import converter_of
from planish.ir.onnx.unknown import spell_node, tell_refused, unknown_ops, why_unknown
from planish.ir.types import DType, TensorType
from planish.ir.wording import fix_by_dims


def import_model(
    source: Source | Located,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dynamic: bool = False,
) -> Graph:
    """The graph of an ONNX model; weights stay memory-mapped where `source` is a path.

    `dims` fixes symbolic dimensions by name, `shapes` whole inputs; with `dynamic` the others stay
    symbolic. Raises InvalidModel for a broken model, and one UnsupportedModel that lists all nodes
    that cannot be imported, or else all dimensions that have to be fixed.
    """
    model, storage = load_model(source)
    declared = [declare(value) for value in parameters(model.graph)]
    types = input_types(declared, dims or {}, shapes or {})
    left = open_dimensions(declared, types)
    known = [type_ for type_ in types if type_ is not None]
    if left and (not dynamic or len(known) < len(types)):
        raise tell_open(left, _sizes_for(model, storage, declared, types))
    return _import(model, storage, declared, known)


def suggest_sizes(
    source: Source | Located,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int]:
    """Sizes for the dimensions that `dims` and `shapes` leave open, with which the model can be
    imported if any of those that were tried fit.

    Raises what `import_model` does.
    """
    model, storage = load_model(source)
    declared = [declare(value) for value in parameters(model.graph)]
    types = input_types(declared, dims or {}, shapes or {})
    return _sizes_for(model, storage, declared, types)


def _sizes_for(
    model: ModelProto,
    storage: Storage,
    declared: Sequence[Declared],
    types: Sequence[TensorType | None],
) -> dict[str, int]:
    """Sizes to suggest. Whoever is asked for sizes should first know whether they will help:
    UnsupportedModel lists the nodes that cannot be imported whatever the sizes."""
    refused = unknown_ops(model)
    if refused:
        raise tell_refused(refused)
    left = open_dimensions(declared, types)
    return try_sizes(left, types, lambda known: _import(model, storage, declared, known))


def _import(
    model: ModelProto, storage: Storage, declared: Sequence[Declared], types: Sequence[TensorType]
) -> Graph:
    importer = _Importer(opset_versions(model.opset_import, "the model"), storage)
    importer.functions = local_functions(model)
    for type_, entry in zip(types, declared, strict=True):
        over = excess(type_)
        if over is not None:
            raise UnsupportedModel(f"input '{entry.name}' is {over}")
    inputs = (Input(type_, entry.name) for type_, entry in zip(types, declared, strict=True))
    return importer.run(model.graph, tuple(inputs))


class _Importer:
    """State of one import; frames are kept on a stack, so that no nesting recurses."""

    def __init__(self, opsets: Mapping[str, int], storage: Storage) -> None:
        self.functions: Mapping[FunctionKey, FunctionProto] = {}
        self._opsets = opsets
        self._storage = storage
        self._emitter = Emitter()
        self._names: dict[Value, str] = {}
        self._refused: dict[str, None] = {}
        self._frames: list[Frame] = []
        self._running: set[FunctionKey] = set()  # functions whose bodies are on the stack
        self._expanded = 0  # nodes in the bodies of functions so far

    def run(self, graph: GraphProto, inputs: tuple[Input, ...]) -> Graph:
        """Walks the graph; the inputs stand for its parameters in order."""
        results: list[Value | None] = []
        names = tuple(value.name for value in graph.output)
        frame = Frame(graph.node, self._opsets, names, results.extend)
        frame.scope.update((value.name, value) for value in inputs)
        self._open_graph(frame, graph)
        while self._frames:
            self._step(self._frames[-1])
        outputs = [value for value in results if value is not None]
        for name, value in zip(names, outputs):
            if isinstance(value, Sizes):
                self._refuse(f"output '{name}'", "its contents depend on a dynamic dimension")
        if self._refused:
            raise tell_refused(self._refused)
        named = _with_names(outputs, self._names)
        return Graph(inputs, tuple(named), names, graph.name or "main")

    def _open_graph(self, frame: Frame, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            frame.tensors.setdefault(tensor.name, tensor)
        frame.declared = {value.name: value for value in (*graph.value_info, *graph.output)}
        for sparse in graph.sparse_initializer:
            frame.scope[sparse.values.name] = None
            self._refuse(f"initializer '{sparse.values.name}'", "sparse tensors are not supported")
        self._open(frame)

    def _open(self, frame: Frame) -> None:
        if len(self._frames) > MOST_NESTED:
            raise UnsupportedModel(f"functions and branches nest deeper than {MOST_NESTED} levels")
        frame.start()
        self._frames.append(frame)

    def _step(self, frame: Frame) -> None:
        """Converts the next node, or closes the frame after the last one."""
        position = next(frame.order, None)
        if position is None:
            self._frames.pop()
            if frame.function is not None:
                self._running.remove(frame.function)
            frame.bind([self._lookup(frame, name) for name in frame.outputs])
            return
        node, label = frame.nodes[position], frame.labels[position]
        try:
            self._convert(frame, node, label)
        except UnsupportedModel as error:
            self._refuse(spell_node(node, label), str(error))
            self._bind(frame, node, [None] * len(node.output))
        except InvalidGraph as error:
            if not self._open_dimensions(frame, node):
                raise InvalidModel(f"{spell_node(node, label)}: {error}") from None
            open_ones = "for all sizes of its dynamic dimensions"
            reason = f"{error}, {open_ones}; {fix_by_dims('them')}"
            self._refuse(spell_node(node, label), reason)
            self._bind(frame, node, [None] * len(node.output))

    def _open_dimensions(self, frame: Frame, node: NodeProto) -> bool:
        """Whether an input of `node` has a symbolic dimension, so that a rule may hold or not."""
        values, _ = self._arguments(frame, node)
        return any(value is not None and not value.type.is_static for value in values)

    def _refuse(self, where: str, reason: str) -> None:
        self._refused[f"{where}: {reason}"] = None

    # -- names ------------------------------------------------------------------------------------

    def _lookup(self, frame: Frame, name: str) -> Value | None:
        """The value of a name in a frame or around it; None if it depends on something refused."""
        at: Frame | None = frame
        while at is not None:
            if name in at.scope:
                return at.scope[name]
            if name in at.tensors:
                at.scope[name] = self._initializer(at.tensors[name])
                return at.scope[name]
            at = at.around
        raise InvalidModel(f"'{name}' is read before it is defined")

    def _initializer(self, tensor: TensorProto) -> Value | None:
        try:
            return constant(self._storage.array(tensor), tensor.name)
        except UnsupportedModel as error:
            self._refuse(f"initializer '{tensor.name}'", str(error))
            return None

    def _arguments(self, frame: Frame, node: NodeProto) -> tuple[list[Value | None], bool]:
        """Values of the inputs, None where omitted; and whether all of the others are known."""
        found: list[Value | None] = []
        for name in node.input:
            omitted = not name or name in frame.absent
            found.append(None if omitted else self._lookup(frame, name))
            if not omitted and found[-1] is None:
                return found, False
        return found, True

    def _bind(self, frame: Frame, node: NodeProto, outputs: Sequence[Value | None]) -> None:
        for name, value in zip(node.output, outputs):
            if name:
                frame.scope[name] = value
                if value is not None and frame.named:
                    self._names.setdefault(value, name)

    # -- nodes ------------------------------------------------------------------------------------

    def _convert(self, frame: Frame, node: NodeProto, label: str) -> None:
        domain = normal_domain(node.domain)
        key = function_key(node)
        version = frame.opsets.get(domain)
        if key in self.functions and not is_standard(node, version):
            inputs, known = self._arguments(frame, node)
            self._enter(frame, node, label, self.functions[key], inputs, known, version or 0)
            return
        if version is None:
            raise UnsupportedModel(f"the model does not import its operator set '{domain}'")
        converter = converter_of(domain, node.op_type, version)
        inputs, known = self._arguments(frame, node)
        if converter is not None:
            outputs = self._call(frame, node, label, version, converter, inputs) if known else []
            self._bind(frame, node, outputs or [None] * len(node.output))
        elif domain == "" and node.op_type == "If":
            self._branch(frame, node, label, inputs, known)
        else:
            self._expand(frame, node, label, version, inputs, known)

    def _call(
        self,
        frame: Frame,
        node: NodeProto,
        label: str,
        version: int,
        converter: Converter,
        inputs: Sequence[Value | None],
    ) -> list[Value | None]:
        attributes = call_attributes(node, frame.attributes)
        call = Call(
            node,
            label,
            version,
            inputs,
            attributes,
            (label,),
            self._emitter,
            self._storage,
            frame.declared_shape,
        )
        result = converter(call)
        outputs: list[Value | None] = [result] if isinstance(result, Value) else [*result]
        for name in call.unread():
            default = default_of(node.op_type, version, normal_domain(node.domain), name)
            if default is None or default != attributes[name]:
                raise UnsupportedModel(f"its attribute '{name}' is not supported")
        for index, name in enumerate(node.output):
            if name and (index >= len(outputs) or outputs[index] is None):
                raise UnsupportedModel(f"its output {index} ('{name}') is not supported")
        return outputs

    def _expand(
        self,
        frame: Frame,
        node: NodeProto,
        label: str,
        version: int,
        inputs: Sequence[Value | None],
        known: bool,
    ) -> None:
        """Opens the function body that ONNX gives for an op without a converter of ours."""
        if not has_body(node, version):
            raise UnsupportedModel(why_unknown(node))
        if not known:
            self._bind(frame, node, [None] * len(node.output))
            return
        actual = NodeProto()
        actual.CopyFrom(node)
        del actual.attribute[:]
        actual.attribute.extend(call_attributes(node, frame.attributes).values())
        halves = {value.type.dtype for value in inputs if value is not None} & {*HALVES}
        narrow = halves.pop() if len(halves) == 1 and node.op_type in IN_FLOAT32 else None
        if narrow is not None:
            inputs = [value and self._cast(value, narrow, DType.FLOAT32, label) for value in inputs]
        body = schema_function(actual, version, inputs)
        if body is None:
            raise UnsupportedModel("ONNX defines no function body for its types")
        self._enter(frame, node, label, body, inputs, known, version, named=False, narrow=narrow)

    def _cast(self, value: Value, old: DType, new: DType, label: str) -> Value:
        """The value in the type `new` if it is of the type `old`."""
        if value.type.dtype is not old:
            return value
        return self._emitter.emit("cast", [value], {"to": new}, (label,))[0]

    def _enter(
        self,
        frame: Frame,
        node: NodeProto,
        label: str,
        body: FunctionProto,
        inputs: Sequence[Value | None],
        known: bool,
        version: int,
        named: bool = True,
        narrow: DType | None = None,
    ) -> None:
        """Opens a function body in a frame of its own; float32 results are cast to `narrow`."""
        if not known:
            self._bind(frame, node, [None] * len(node.output))
            return
        key = function_key(node)
        if key in self._running:
            raise InvalidModel(f"the function '{node.op_type}' calls itself at node '{label}'")
        if self._expanded > MOST_EXPANDED_NODES:  # has been told
            self._bind(frame, node, [None] * len(node.output))
            return
        self._expanded += body_size(body)
        if self._expanded > MOST_EXPANDED_NODES:
            raise UnsupportedModel(
                f"the functions of the model expand to more than {MOST_EXPANDED_NODES:,} nodes"
            )
        opsets = opset_versions(body.opset_import, f"the function '{body.name}'")
        if not named:  # some bodies of ONNX's preview ops leave the default set out
            opsets = {**frame.opsets, **opsets}
        wanted = [formal for formal, name in zip(body.output, node.output) if name]
        actual = [name for name in node.output if name]

        def bind(values: list[Value | None]) -> None:
            for name, value in zip(actual, values):
                if value is not None and narrow is not None:
                    value = self._cast(value, DType.FLOAT32, narrow, label)
                frame.scope[name] = value
                if value is not None and frame.named:
                    self._names.setdefault(value, name)

        inner = Frame(
            body.node,
            opsets,
            tuple(wanted),
            bind,
            attributes=body_attributes(
                node, body, call_attributes(node, frame.attributes), version
            ),
            prefix=f"{_shortened(label)}/" if named else "",
            alias=frame.alias or ("" if named else label),
            function=key,
            named=False,
        )
        for index, formal in enumerate(body.input):
            value = inputs[index] if index < len(inputs) else None
            if value is None:
                inner.absent.add(formal)
            else:
                inner.scope[formal] = value
        self._open(inner)
        self._running.add(key)

    def _branch(
        self,
        frame: Frame,
        node: NodeProto,
        label: str,
        inputs: Sequence[Value | None],
        known: bool,
    ) -> None:
        """Opens the branch of an If that its constant condition takes."""
        if not known:
            self._bind(frame, node, [None] * len(node.output))
            return
        if not inputs or inputs[0] is None:
            raise InvalidModel(f"{spell_node(node, label)} lacks its condition")
        condition = self._emitter.contents(inputs[0])
        if condition is None:
            raise UnsupportedModel("control flow whose condition is computed at run time")
        taken = "then_branch" if bool(np.all(condition)) else "else_branch"
        attributes = call_attributes(node, frame.attributes)
        if taken not in attributes:
            raise InvalidModel(f"{spell_node(node, label)} lacks the attribute '{taken}'")
        graph = attributes[taken].g
        inner = Frame(
            graph.node,
            frame.opsets,
            tuple(value.name for value in graph.output),
            lambda values: self._bind(frame, node, values),
            around=frame,
            attributes=frame.attributes,
            prefix=f"{_shortened(label)}/",
            alias=frame.alias,
            named=frame.named,
        )
        self._open_graph(inner, graph)


def _shortened(label: str) -> str:
    """The end of a label whose node is deep inside others, which each add their names."""
    return label if len(label) <= 1000 else f"…{label[-1000:]}"


def _with_names(outputs: Iterable[Value], names: Mapping[Value, str]) -> list[Value]:
    """The same values, each carrying its name; nodes are made again, producers first."""
    graph = Graph((), tuple(outputs), tuple(f"{i}" for i, _ in enumerate(outputs)))
    new: dict[Value, Value] = {}
    for node in graph.nodes:
        twin = Node(
            node.op,
            [new.get(value, value) for value in node.inputs],
            [result.type for result in node.outputs],
            node.attrs,
            node.regions,
            node.provenance,
            [names.get(result, result.name) for result in node.outputs],
        )
        new.update(zip(node.outputs, twin.outputs))
    return [new[value] if isinstance(value, Result) else value for value in graph.outputs]
