"""onnxruntime's descriptions of tensors and models, and its values bound to a session."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planish.ir.errors import TargetError, TensorError

NO_VERSION = 2**63 - 1
"""The version that onnxruntime gives a model that tells none."""

Array = np.ndarray[Any, Any]

#: ONNX's number of an element type → onnxruntime's name of it, numpy's.
_TYPES = {
    1: ("float", "float32"),
    2: ("uint8", "uint8"),
    3: ("int8", "int8"),
    4: ("uint16", "uint16"),
    5: ("int16", "int16"),
    6: ("int32", "int32"),
    7: ("int64", "int64"),
    8: ("string", "object"),
    9: ("bool", "bool"),
    10: ("float16", "float16"),
    11: ("double", "float64"),
    12: ("uint32", "uint32"),
    13: ("uint64", "uint64"),
    14: ("complex64", "complex64"),
    15: ("complex128", "complex128"),
    16: ("bfloat16", "bfloat16"),
}
_OF_NUMPY = {numpy: f"tensor({name})" for name, numpy in _TYPES.values()}
_TO_NUMPY = {f"tensor({name})": numpy for name, numpy in _TYPES.values()}


def type_of_number(number: int) -> str:
    """Give ONNX's element type as onnxruntime spells it: 1 is "tensor(float)"."""
    return f"tensor({_TYPES.get(number, (f'type {number}', ''))[0]})"


def type_of_dtype(dtype: Any) -> str:
    """Give a numpy dtype as onnxruntime spells it."""
    name = np.dtype(dtype).name
    return _OF_NUMPY.get(name, f"tensor({name})")


def dtype_of_type(spelled: str) -> str:
    """Give numpy's name of a type that onnxruntime spells."""
    return _TO_NUMPY.get(spelled, spelled)


@dataclass(frozen=True, slots=True)
class NodeArg:
    """An input or output: `shape` has a number, a name or None (unknown) for each dimension."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model says of itself."""

    producer_name: str = ""
    graph_name: str = ""
    domain: str = ""
    description: str = ""
    graph_description: str = ""
    version: int = NO_VERSION
    custom_metadata_map: Mapping[str, str] = field(default_factory=dict)


class OrtValue:
    """A tensor in CPU memory, as a numpy array."""

    def __init__(self, array: Array) -> None:
        self._array = array

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: Array, device_type: str = "cpu", device_id: int = 0, **_: Any
    ) -> OrtValue:
        """Give a value on the memory of an array. Raises TargetError for another device."""
        require_cpu(device_type)
        return cls(np.asarray(numpy_obj))

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: Any,
        device_type: str = "cpu",
        device_id: int = 0,
        **_: Any,
    ) -> OrtValue:
        """Give a value of zeros; `element_type` is a numpy dtype or ONNX's number of a type."""
        require_cpu(device_type)
        return cls(np.zeros(tuple(shape), _dtype(element_type)))

    @classmethod
    def from_dlpack(cls, data: Any, is_bool_tensor: bool = False) -> OrtValue:
        """Give a value on the memory of a DLPack tensor."""
        array = np.from_dlpack(data)
        return cls(array.view(np.bool_) if is_bool_tensor else array)

    def numpy(self) -> Array:
        """Give the array."""
        return self._array

    def shape(self) -> list[int]:
        """Give the dimensions."""
        return list(self._array.shape)

    def data_type(self) -> str:
        """Give the type as onnxruntime spells it: "tensor(float)"."""
        return type_of_dtype(self._array.dtype)

    def element_type(self) -> int:
        """Give ONNX's number of the element type."""
        name = self._array.dtype.name
        return next((number for number, (_, numpy) in _TYPES.items() if numpy == name), 0)

    def device_name(self) -> str:
        """Give "cpu"."""
        return "cpu"

    def data_ptr(self) -> int:
        """Give where the data lie."""
        return int(self._array.ctypes.data)

    def tensor_size_in_bytes(self) -> int:
        """Give the size."""
        return self._array.nbytes

    def has_value(self) -> bool:
        """Give True."""
        return True

    def is_tensor(self) -> bool:
        """Give True: there are no other values here."""
        return True

    def is_sparse_tensor(self) -> bool:
        """Give False."""
        return False

    def is_tensor_sequence(self) -> bool:
        """Give False."""
        return False

    def update_inplace(self, data: Any) -> None:
        """Copy an array, or another value, of the same dtype and shape into this one."""
        array = unwrapped(data)
        if array.dtype != self._array.dtype or array.shape != self._array.shape:
            raise TensorError(
                f"cannot update {self._array.dtype} {self.shape()} with {array.dtype} "
                f"{list(array.shape)}"
            )
        self._array[...] = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<planish.OrtValue {self.data_type()} {self.shape()}>"


class IOBinding:
    """Inputs and outputs bound to a session, for `session.run_with_iobinding`."""

    def __init__(self, session: Any) -> None:
        self._outputs_of = [output.name for output in session.get_outputs()]
        self.inputs: dict[str, Any] = {}
        self.bound: dict[str, OrtValue | None] = {}
        self.results: list[OrtValue] = []

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Bind an array to an input."""
        self.inputs[name] = arr_on_cpu

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind a value to an input."""
        self.inputs[name] = ortvalue

    def bind_input(
        self,
        name: str,
        device_type: str,
        device_id: int,
        element_type: Any,
        shape: Sequence[int],
        buffer_ptr: int,
    ) -> None:
        """Bind memory of the CPU to an input; it must stay where it is until the run."""
        require_cpu(device_type)
        self.inputs[name] = _at(buffer_ptr, shape, element_type)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Bind an output to memory of the CPU, or without `buffer_ptr` to a new array a run."""
        require_cpu(device_type)
        array = None if buffer_ptr is None else _at(buffer_ptr, shape or (), element_type)
        self.bound[name] = None if array is None else OrtValue(array)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Bind a value to an output."""
        self.bound[name] = ortvalue

    def get_outputs(self) -> list[OrtValue]:
        """Give the values of the last run, in the order in which outputs were bound."""
        return list(self.results)

    def copy_outputs_to_cpu(self) -> list[Array]:
        """Give arrays of the last run, in the order in which outputs were bound."""
        return [value.numpy().copy() for value in self.results]

    def clear_binding_inputs(self) -> None:
        """Bind no inputs."""
        self.inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Bind no outputs."""
        self.bound.clear()
        self.results.clear()

    def synchronize_inputs(self) -> None:
        """Do nothing: there is no other device."""

    def synchronize_outputs(self) -> None:
        """Do nothing: there is no other device."""


def unwrapped(value: Any) -> Any:
    """Give the array of an OrtValue, and anything else as it is."""
    return value.numpy() if isinstance(value, OrtValue) else value


def require_cpu(device: str) -> None:
    """Raise TargetError for a device other than "cpu"."""
    if device.lower() != "cpu":
        raise TargetError(f"device '{device}': planish runs on the CPU only; use 'cpu'")


def _dtype(element_type: Any) -> Any:
    if isinstance(element_type, int):
        if element_type not in _TYPES:
            raise TensorError(f"{element_type} is no number of an ONNX element type")
        return np.dtype(_TYPES[element_type][1])
    return np.dtype(element_type)


def _at(pointer: int, shape: Sequence[int], element_type: Any) -> Array:
    """Give an array on memory at an address."""
    dtype = _dtype(np.float32 if element_type is None else element_type)
    size = math.prod(shape) * dtype.itemsize
    if size == 0:
        return np.empty(tuple(shape), dtype)
    memory = (ctypes.c_char * size).from_address(pointer)
    return np.frombuffer(memory, dtype).reshape(tuple(shape))
