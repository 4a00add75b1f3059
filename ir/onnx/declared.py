"""A model's inputs as it declares them: sizes where it gives them, names where it does not."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorShapeProto, ValueInfoProto

from planish.ir.errors import UnsupportedModel
from planish.ir.onnx.storage import dtype_of
from planish.ir.types import DType

# Names that exporters give to every dimension they do not know (Paddle writes "?"): two such
# dimensions are not equal, unlike two that share a real name.
NO_NAME = frozenset({"", "?", "-1", "None"})


@dataclass(frozen=True, slots=True)
class Declared:
    """An input as the model declares it; `dims` are ints or names, None if the rank is unknown."""

    name: str
    dtype: DType
    dims: tuple[int | str, ...] | None

    @property
    def open(self) -> list[str]:
        """The names of its dimensions without a size; `<input>.<axis>` for those without a name."""
        return [dim for dim in self.dims or () if isinstance(dim, str)]


def declare(value: ValueInfoProto) -> Declared:
    """The declaration of an input; UnsupportedModel for what is no tensor, or none of numbers."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        spelled = (kind or "untyped").removesuffix("_type").replace("_", " ")
        raise UnsupportedModel(f"input '{value.name}' is {spelled}; only tensors are supported")
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type, f"input '{value.name}'")
    if dtype in (DType.STRING, DType.COMPLEX64, DType.COMPLEX128):
        raise UnsupportedModel(f"input '{value.name}' is {dtype.value}, which is not supported")
    if not tensor.HasField("shape"):
        return Declared(value.name, dtype, None)
    dims = (_dimension(value.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim))
    return Declared(value.name, dtype, tuple(dims))


def _dimension(name: str, axis: int, dim: TensorShapeProto.Dimension) -> int | str:
    """A positive size or a name; exporters write unknown sizes as 0 or -1 as well."""
    if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
        return int(dim.dim_value)
    param = str(dim.dim_param)
    return f"{name}.{axis}" if param in NO_NAME else param
