"""A graph, function body or branch on the importer's stack, and the names visible in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto

from planish.ir.graph import Value
from planish.ir.onnx.functions import FunctionKey
from planish.ir.onnx.order import live_nodes, node_labels


@dataclass(slots=True)
class Frame:
    """Nodes that are being walked.

    `scope` maps names to values, None for one that depends on something refused. `bind` takes the
    values of `outputs` at the end. `around` is the frame that names may be captured from.
    `prefix` starts the names of nodes, or, if `alias` is set, `alias` is the name of all of them:
    nodes of ONNX's own function bodies mean nothing to the user.
    """

    nodes: Sequence[NodeProto]
    opsets: Mapping[str, int]
    outputs: tuple[str, ...]
    bind: Callable[[list[Value | None]], None]
    around: Frame | None = None
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    prefix: str = ""
    alias: str = ""
    function: FunctionKey | None = None  # whose body this is
    named: bool = True  # whether the names of values in here are names of the model
    scope: dict[str, Value | None] = field(default_factory=dict)
    tensors: dict[str, TensorProto] = field(default_factory=dict)  # initializers, read when used
    declared: dict[str, ValueInfoProto] = field(default_factory=dict)  # types that it states
    absent: set[str] = field(default_factory=set)  # formal inputs that the caller omitted
    labels: list[str] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=lambda: iter(()))

    def defines(self, name: str) -> bool:
        """Whether `name` is visible here before any node has run."""
        frame: Frame | None = self
        while frame is not None:
            if name in frame.scope or name in frame.tensors or name in frame.absent:
                return True
            frame = frame.around
        return False

    def declared_shape(self, name: str) -> tuple[int | None, ...] | None:
        """The shape that the graph states for the value `name`; None for what it leaves open."""
        value = self.declared.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        dims = value.type.tensor_type.shape.dim
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)

    def start(self) -> None:
        """Orders the nodes; to be called when the scope is filled."""
        self.labels = [self.alias or self.prefix + label for label in node_labels(self.nodes)]
        own = self.scope.keys() | self.tensors.keys() | self.absent
        self.order = iter(live_nodes(self.nodes, self.defines, own, self.outputs))
