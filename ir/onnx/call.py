"""One ONNX node on its way into the IR: what a converter reads from and writes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TypeAlias, TypeVar, overload

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto

from planish.ir.dim import Dim, DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Attr, Constant, Value, constant
from planish.ir.limits import computed_excess
from planish.ir.onnx.emitter import Emitter
from planish.ir.onnx.storage import Storage
from planish.ir.types import DType, TensorType
from planish.ir.wording import fix_by_dims

#: What a converter returns: its outputs in ONNX's order; None for one it cannot give.
Outputs: TypeAlias = "Value | Sequence[Value | None]"
Converter: TypeAlias = "Callable[[Call], Outputs]"
#: A shape as a model states it: None for an unknown rank or dimension.
DeclaredShape: TypeAlias = "tuple[int | None, ...] | None"
_T = TypeVar("_T")
#: Types of 16 bits, in which no more than one step is taken.
HALVES = (DType.FLOAT16, DType.BFLOAT16)


class Call:
    """An ONNX node with its resolved inputs and attributes.

    Converters raise UnsupportedModel with the bare reason (the importer adds the node's name and
    goes on, to list all of them), and InvalidModel where the node breaks ONNX's rules.
    """

    def __init__(
        self,
        node: NodeProto,
        label: str,
        version: int,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, AttributeProto],
        provenance: Sequence[str],
        emitter: Emitter,
        storage: Storage,
        declared: Callable[[str], DeclaredShape] = lambda name: None,
    ) -> None:
        """`version` is that of the node's operator set; an omitted input is None.

        `declared` gives the shape that the model states for a name, None if it states none.
        """
        self.op = node.op_type
        self.label = label
        self.version = version
        self.inputs = tuple(inputs)
        self.wanted = tuple(bool(name) for name in node.output)
        self._attributes = attributes
        self._unread = set(attributes)
        self._provenance = tuple(provenance)
        self._emitter = emitter
        self._storage = storage
        self._names = tuple(node.output)
        self._declared = declared

    # -- operands ---------------------------------------------------------------------------------

    def value(self, index: int) -> Value:
        """Input number `index`, which ONNX requires."""
        found = self.optional(index)
        if found is None:
            raise InvalidModel(f"node '{self.label}' ({self.op}) lacks its input {index}")
        return found

    def values(self) -> tuple[Value, ...]:
        """All inputs of an op that takes any number of them."""
        return tuple(self.value(index) for index in range(max(1, len(self.inputs))))

    def optional(self, index: int) -> Value | None:
        """Input number `index`, None if it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def contents(self, value: Value) -> np.ndarray | None:
        """The elements of `value` where the import knows them."""
        return self._emitter.contents(value)

    def known(self, index: int, role: str) -> np.ndarray:
        """The elements of a required operand that must not depend on the model's inputs."""
        found = self.contents(self.value(index))
        if found is None or found.dtype == object:
            raise UnsupportedModel(f"its operand '{role}' is computed at run time")
        return found

    def sizes(self, index: int, role: str) -> tuple[DimLike, ...]:
        """A shape-like operand: ints, or Dims where they stem from symbolic dimensions."""
        found = self.contents(self.value(index))
        if found is None:
            raise UnsupportedModel(f"its operand '{role}' is computed at run time")
        if found.dtype.kind not in "iuO":
            raise InvalidModel(
                f"node '{self.label}' ({self.op}) takes integers as its operand '{role}', "
                f"got {found.dtype}"
            )
        return tuple(d if isinstance(d, Dim) else int(d) for d in found.reshape(-1))

    def ints(self, index: int, role: str) -> tuple[int, ...]:
        """A shape-like operand of plain ints."""
        found = []
        for size in self.sizes(index, role):
            if isinstance(size, Dim):
                raise UnsupportedModel(f"its operand '{role}' depends on {size}; {fix_by_dims()}")
            found.append(size)
        return tuple(found)

    def one(self, index: int, role: str) -> int:
        """A shape-like operand of one int."""
        found = self.ints(index, role)
        if len(found) != 1:
            raise InvalidModel(
                f"node '{self.label}' ({self.op}) has {len(found)} elements in its operand "
                f"'{role}', expected 1"
            )
        return found[0]

    def static_shape(self, value: Value) -> tuple[int, ...]:
        """The shape of `value` where the conversion needs numbers."""
        if not value.type.is_static:
            raise UnsupportedModel(f"needs a static shape, got {value.type}; {fix_by_dims()}")
        return value.type.static_shape

    def declared_shape(self, index: int) -> DeclaredShape:
        """What the model states of the shape of output `index`, which need not be right."""
        return self._declared(self._names[index]) if index < len(self._names) else None

    def widened(self) -> Call:
        """The same call on float32 in place of halves; what one of both reads, both have read."""
        other = copy(self)
        other.inputs = tuple(
            self.cast(value, DType.FLOAT32)
            if value is not None and value.type.dtype in HALVES
            else value
            for value in self.inputs
        )
        return other

    # -- attributes -------------------------------------------------------------------------------

    def _attribute(self, name: str, kind: int, default: _T | None) -> object:
        self._unread.discard(name)
        found = self._attributes.get(name)
        if found is None:
            if default is None:
                raise InvalidModel(f"node '{self.label}' ({self.op}) lacks the attribute '{name}'")
            return default
        if found.type != kind:
            raise InvalidModel(
                f"attribute '{name}' of node '{self.label}' ({self.op}) is of type "
                f"{AttributeProto.AttributeType.Name(found.type)}, expected "
                f"{AttributeProto.AttributeType.Name(kind)}"
            )
        return onnx.helper.get_attribute_value(found)

    def has(self, name: str) -> bool:
        """Whether the node has the attribute."""
        return name in self._attributes

    def integer(self, name: str, default: int | None = None) -> int:
        """An int attribute; required if there is no default."""
        found = self._attribute(name, AttributeProto.INT, default)
        assert isinstance(found, int)
        return found

    def number(self, name: str, default: float | None = None) -> float:
        """A float attribute; required if there is no default."""
        found = self._attribute(name, AttributeProto.FLOAT, default)
        assert isinstance(found, float)
        return found

    def text(self, name: str, default: str | None = None) -> str:
        """A string attribute; required if there is no default."""
        found = self._attribute(name, AttributeProto.STRING, default)
        return found.decode(errors="replace") if isinstance(found, bytes) else str(found)

    @overload
    def integers(self, name: str) -> tuple[int, ...]: ...
    @overload
    def integers(self, name: str, default: _T) -> tuple[int, ...] | _T: ...
    def integers(self, name: str, default: object = ...) -> object:
        """A list of ints; required if there is no default (which may be None)."""
        if default is not ... and name not in self._attributes:
            return default
        return tuple(self._attribute(name, AttributeProto.INTS, None))  # type: ignore[arg-type]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty if there is none."""
        found = self._attribute(name, AttributeProto.STRINGS, ())
        return tuple(item.decode(errors="replace") for item in found)  # type: ignore[attr-defined]

    def numbers(self, name: str) -> tuple[float, ...]:
        """A list of floats, empty if there is none."""
        return tuple(self._attribute(name, AttributeProto.FLOATS, ()))  # type: ignore[arg-type]

    def tensor(self, name: str) -> np.ndarray:
        """A tensor attribute."""
        proto = self._attribute(name, AttributeProto.TENSOR, None)
        assert isinstance(proto, onnx.TensorProto)
        return self._storage.array(proto, f"{self.label}.{name}")

    def ignore(self, *names: str) -> None:
        """Marks attributes that do not change what is computed here."""
        self._unread.difference_update(names)

    def unread(self) -> list[str]:
        """Attributes that the converter did not look at: they would be silently dropped."""
        return sorted(self._unread)

    def axis(self, axis: int, rank: int) -> int:
        """`axis` counted from the front; InvalidModel if it is out of range."""
        if not -rank <= axis < rank:
            raise InvalidModel(
                f"node '{self.label}' ({self.op}) has axis {axis} for a tensor of rank {rank}"
            )
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """`axes` counted from the front, sorted; InvalidModel if one is out of range or twice."""
        found = tuple(sorted(self.axis(axis, rank) for axis in axes))
        if len(set(found)) < len(found):
            raise InvalidModel(f"node '{self.label}' ({self.op}) names an axis twice: {axes}")
        return found

    def fits(self, type_: TensorType) -> None:
        """UnsupportedModel unless a tensor of that type may be computed here, as a constant."""
        over = computed_excess(type_)
        if over is not None:
            raise UnsupportedModel(f"needs {over}")

    # -- results ----------------------------------------------------------------------------------

    def emit(self, op: str, *inputs: Value, **attrs: Attr) -> Value:
        """The first output of a new node of the IR."""
        return self.emit_all(op, *inputs, **attrs)[0]

    def emit_all(self, op: str, *inputs: Value, **attrs: Attr) -> tuple[Value, ...]:
        """All outputs of a new node of the IR."""
        return self._emitter.emit(op, inputs, attrs, self._provenance)

    def scalar(self, number: float | bool, dtype: DType) -> Constant:
        """A constant of rank 0."""
        return constant(np.asarray(number).astype(dtype.numpy))

    def like(self, number: float, value: Value) -> Constant:
        """A constant of rank 0 and the element type of `value`."""
        return self.scalar(number, value.type.dtype)

    def array(self, data: Sequence[float] | np.ndarray, dtype: DType) -> Constant:
        """A constant of the given elements."""
        return constant(np.asarray(data).astype(dtype.numpy))

    def reshape(self, value: Value, shape: Sequence[DimLike]) -> Value:
        """`value` with another shape of as many elements, itself if the shape is the same."""
        if value.type.shape == tuple(shape):
            return value
        return self.emit("reshape", value, shape=tuple(shape))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """`value` with its axes permuted, itself if they stay."""
        if tuple(perm) == tuple(range(value.type.rank)):
            return value
        return self.emit("transpose", value, perm=tuple(perm))

    def cast(self, value: Value, dtype: DType) -> Value:
        """`value` with another element type, itself if it is the same."""
        return value if value.type.dtype is dtype else self.emit("cast", value, to=dtype)

    def broadcast(self, value: Value, shape: Sequence[DimLike]) -> Value:
        """`value` repeated to `shape`, itself if it has it."""
        if value.type.shape == tuple(shape):
            return value
        return self.emit("broadcast_to", value, shape=tuple(shape))

    def crop(self, value: Value, axis: int, start: int, stop: DimLike) -> Value:
        """Elements start..stop-1 of one axis."""
        shape = value.type.shape
        stops = (*shape[:axis], stop, *shape[axis + 1 :])
        if start == 0 and stops == shape:
            return value
        starts = tuple(start if i == axis else 0 for i in range(len(shape)))
        return self.emit("slice", value, starts=starts, stops=stops, steps=(1,) * len(shape))


def in_float32(converter: Converter) -> Converter:
    """A converter of several steps that takes halves through them as float32.

    Between the steps a square or a sum may lie beyond the range of float16, and small numbers
    would be rounded away; results are rounded to the type of the first operand.
    """

    def convert(call: Call) -> Outputs:
        dtype = call.value(0).type.dtype
        if dtype not in HALVES:
            return converter(call)
        made = converter(call.widened())
        if isinstance(made, Value):
            return call.cast(made, dtype)
        return [value and call.cast(value, dtype) for value in made]

    return convert


def product(dims: Sequence[DimLike]) -> DimLike:
    """Number of elements of a shape."""
    result: DimLike = 1
    for dim in dims:
        result = result * dim
    return result


__all__ = ["HALVES", "Call", "Converter", "Outputs", "in_float32", "product"]
