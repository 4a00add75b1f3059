"""Element types and tensor types."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from planish.ir.dim import Dim, DimLike
from planish.ir.errors import InvalidGraph


class DType(enum.Enum):
    """Element type; the value is its name in the text form and in manifests."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT8_E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT8_E8M0FNU = "float8_e8m0fnu"
    FLOAT4_E2M1FN = "float4_e2m1fn"
    INT64 = "int64"
    INT32 = "int32"
    INT16 = "int16"
    INT8 = "int8"
    INT4 = "int4"
    INT2 = "int2"
    UINT64 = "uint64"
    UINT32 = "uint32"
    UINT16 = "uint16"
    UINT8 = "uint8"
    UINT4 = "uint4"
    UINT2 = "uint2"
    BOOL = "bool"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"
    STRING = "string"

    @property
    def numpy(self) -> np.dtype:
        """The numpy (or ml_dtypes) type that holds one element."""
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        """True for the floating-point types, the narrow ones included."""
        return "float" in self.value

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers; not for bool."""
        return self.value.lstrip("u").startswith("int")

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes in an unpacked array."""
        return int(self.numpy.itemsize)

    @staticmethod
    def of(dtype: np.typing.DTypeLike) -> DType:
        """The DType of a numpy dtype; InvalidGraph if there is none."""
        found = _FROM_NUMPY.get(np.dtype(dtype))
        if found is None:
            if np.dtype(dtype).kind in "OUS":
                return DType.STRING
            raise InvalidGraph(f"numpy type {np.dtype(dtype)} has no counterpart in the IR")
        return found


def _numpy_type(dtype: DType) -> np.dtype:
    if dtype is DType.STRING:
        return np.dtype(object)
    found: np.dtype = np.dtype(getattr(ml_dtypes, dtype.value, dtype.value))
    return found


_NUMPY = {dtype: _numpy_type(dtype) for dtype in DType}
_FROM_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and shape of a value; a blocked layout is simply its physical shape.

    A tensor in blocked layout (`N C/16 H W 16`) is an ordinary rank-5 tensor: the ops `pack` and
    `unpack` convert, so element-wise ops, reductions and the memory plan need not know of layouts.
    """

    dtype: DType
    shape: tuple[DimLike, ...]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """True if no dimension is symbolic."""
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; InvalidGraph if a dimension is symbolic."""
        if not self.is_static:
            raise InvalidGraph(f"{self} has symbolic dimensions where a static shape is needed")
        return tuple(int(dim) for dim in self.shape)  # type: ignore[arg-type]

    @property
    def elements(self) -> int:
        """Number of elements of a static tensor."""
        return math.prod(self.static_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of a static tensor, elements unpacked."""
        return self.elements * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"


def tensor(dtype: DType | str, shape: Iterable[DimLike]) -> TensorType:
    """Short constructor: `tensor("float32", (1, 3, 224, 224))`."""
    dims = tuple(dim if isinstance(dim, Dim) else int(dim) for dim in shape)
    return TensorType(DType(dtype) if isinstance(dtype, str) else dtype, dims)
