"""Tensors of a model as numpy arrays: inline, or memory-mapped from external files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.limits import excess
from planish.ir.onnx.wire import OWN_FILE
from planish.ir.types import DType, TensorType

#: ONNX element type → ours, by the names that both give it.
_BY_NAME = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn"}
_BY_NAME |= {"float8e4m3fnuz": "float8_e4m3fnuz", "float8e5m2": "float8_e5m2"}
_BY_NAME |= {"float8e5m2fnuz": "float8_e5m2fnuz", "float8e8m0": "float8_e8m0fnu"}
_BY_NAME |= {"float4e2m1": "float4_e2m1fn"}
_OURS = {dtype.value for dtype in DType}
_DTYPES = {
    number: DType(spelled)
    for name, number in TensorProto.DataType.items()
    if (spelled := _BY_NAME.get(name.lower(), name.lower())) in _OURS
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}
_BITS = {DType.INT4: 4, DType.UINT4: 4, DType.FLOAT4_E2M1FN: 4, DType.INT2: 2, DType.UINT2: 2}


def dtype_of(number: int, where: str) -> DType:
    """The DType of an ONNX element type; `where` names the tensor for the error."""
    dtype = _DTYPES.get(number)
    if dtype is None and number in TensorProto.DataType.values() and number:
        name = TensorProto.DataType.Name(number)
        raise UnsupportedModel(f"{where} has the element type {name}, which is not supported")
    if dtype is None:
        raise InvalidModel(f"{where} has the unknown element type {number}")
    return dtype


def onnx_type(dtype: DType) -> int:
    """The ONNX element type of a DType."""
    return int(_NUMBERS[dtype])


def declared_bytes(tensor: TensorProto) -> int:
    """Bytes that a tensor's declaration asks for; 0 where that makes no sense."""
    dtype = _DTYPES.get(tensor.data_type)
    if dtype in (None, DType.STRING) or any(dim < 0 for dim in tensor.dims):
        return 0
    return _nbytes(dtype, tuple(tensor.dims))


class Storage:
    """Where a model's bytes lie: its own file or buffer, and the folders of external files."""

    def __init__(self, own: np.ndarray | None, folders: Sequence[Path] = ()) -> None:
        """`own` are the model's bytes (uint8) or None for a ModelProto in memory.

        External files are looked for in `folders`, in this order, and may lie in any of them.
        """
        self._buffers: dict[str, np.ndarray] = {} if own is None else {OWN_FILE: own}
        self._folders = tuple(folders)

    def array(self, tensor: TensorProto, name: str | None = None) -> np.ndarray:
        """The values of `tensor`, not copied where they are stored as raw bytes.

        Raises InvalidModel, naming the tensor, where data and shape do not match or external data
        are missing, out of range, or outside the model's folder.
        """
        where = f"tensor '{tensor.name if name is None else name}'"
        dtype = dtype_of(tensor.data_type, where)
        shape = tuple(tensor.dims)
        if any(dim < 0 for dim in shape):
            raise InvalidModel(f"{where} has the shape {list(shape)}; dimensions are at least 0")
        over = excess(TensorType(dtype, shape))
        if over is not None:
            raise UnsupportedModel(f"{where} is {over}")
        if dtype is DType.STRING:
            raise UnsupportedModel(f"{where} holds strings")
        if tensor.data_location == TensorProto.EXTERNAL:
            return _shaped(self._external(tensor, dtype, shape, where), dtype, shape, where)
        if tensor.HasField("raw_data"):
            raw = np.frombuffer(tensor.raw_data, np.uint8)
            return _shaped(raw, dtype, shape, where)
        try:
            return np.asarray(numpy_helper.to_array(tensor)).reshape(shape)
        except (ValueError, TypeError) as error:
            raise InvalidModel(
                f"the data of {where} do not match its shape {list(shape)}: {error}"
            ) from None

    def _external(
        self, tensor: TensorProto, dtype: DType, shape: tuple[int, ...], where: str
    ) -> np.ndarray:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if not all(isinstance(text, str) for item in entries.items() for text in item):
            raise InvalidModel(f"{where} is external, and where it is stored is not UTF-8")
        location = entries.get("location")
        if location is None:
            raise InvalidModel(f"{where} is external, but names no location")
        buffer = self._buffer(location, where)
        size = _nbytes(dtype, shape)
        offset = _natural(entries.get("offset", "0"), "offset", where)
        length = _natural(entries.get("length", str(size)), "length", where)
        source = f"'{location}'" if location else "the model file"
        if offset + length > buffer.size:
            raise InvalidModel(
                f"{where} takes bytes {offset} to {offset + length} of {source}, "
                f"which has {buffer.size} bytes"
            )
        return buffer[offset : offset + length]

    def _buffer(self, location: str, where: str) -> np.ndarray:
        """The file at `location`, mapped once and read-only."""
        found = self._buffers.get(location)
        if found is not None:
            return found
        path = self._path(location, where)
        try:
            empty = path.stat().st_size == 0
            mapped = np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, mode="r")
        except OSError as error:
            raise InvalidModel(
                f"{where} is stored in '{location}', which cannot be read at {path}: "
                f"{error.strerror or error}"
            ) from None
        self._buffers[location] = mapped
        return mapped

    def _path(self, location: str, where: str) -> Path:
        """The file inside the model's folders; symbolic links that leave them are refused too."""
        if not self._folders:
            raise InvalidModel(
                f"{where} is stored outside the model, in '{location}': give the path of the "
                f"model's file, or the folder of that file as external_data"
            )
        try:
            roots = [folder.resolve() for folder in self._folders]
            paths = [(root / location).resolve() for root in roots]
            path = next((path for path in paths if path.exists()), paths[0])
        except (OSError, ValueError, RuntimeError) as error:
            raise InvalidModel(f"{where} has the bad location '{location}': {error}") from None
        leaves = Path(location).is_absolute() or ".." in Path(location).parts
        if leaves or not set(roots) & set(path.parents):
            raise InvalidModel(
                f"{where} is stored in '{location}', outside the model's folder "
                f"{' or '.join(map(str, dict.fromkeys(roots)))}; external data must lie inside it"
            )
        return path


def folders_of(model: Path) -> tuple[Path, ...]:
    """The folders that a model's external data may lie in: its own, and that of the real file.

    A cache of models (Hugging Face's) has links to files in another folder, the data's among them.
    """
    return tuple(dict.fromkeys((model.parent, model.resolve().parent)))


def _nbytes(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes of the ONNX encoding, where elements below 8 bits are packed."""
    bits = _BITS.get(dtype, dtype.itemsize * 8)
    return (math.prod(shape) * bits + 7) // 8


def _natural(text: str, what: str, where: str) -> int:
    if not text.isdecimal() or len(text) > 20:  # what 64 bits hold
        text = text if len(text) <= 40 else f"{text[:40]}…"
        raise InvalidModel(f"{where} has the {what} '{text}', which is not a natural number")
    return int(text)


def _shaped(raw: np.ndarray, dtype: DType, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Bytes as an array of `shape`; a view, except for types below 8 bits and unaligned data."""
    expected = _nbytes(dtype, shape)
    if raw.size != expected:
        raise InvalidModel(
            f"{where} has {raw.size} bytes of data, but its type {dtype.value}{list(shape)} "
            f"takes {expected}"
        )
    if dtype in _BITS:
        return _unpacked(raw, dtype, shape)
    return raw.view(np.ndarray).view(dtype.numpy).reshape(shape)


def _unpacked(raw: np.ndarray, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """One element a byte from packed ones, lowest bits first (onnx/onnx.proto, TensorProto)."""
    bits = _BITS[dtype]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (raw[:, None] >> shifts & (1 << bits) - 1).reshape(-1)[: math.prod(shape)]
    if dtype is DType.FLOAT4_E2M1FN:
        return codes.view(dtype.numpy).reshape(shape)
    signed = dtype in (DType.INT4, DType.INT2)
    values = codes.astype(np.int8)
    if signed:
        values = np.where(values >= 1 << bits - 1, values - (1 << bits), values)
    return values.astype(dtype.numpy).reshape(shape)
