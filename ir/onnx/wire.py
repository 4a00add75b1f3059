"""Taking weights out of a serialised model without copying them.

Parsing a protobuf copies every byte field, so a model would be held two or three times. Here the
wire format is walked once, and each large `raw_data` becomes a reference (ONNX external data with
the empty location) into the model's own bytes, which stay memory-mapped. What is left, the
skeleton, is a few kilobytes and is parsed as usual.

Source: https://protobuf.dev/programming-guides/encoding and onnx/onnx.proto (field numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx

from planish.ir.errors import InvalidModel

OWN_FILE = ""  # location of data that stand in the model file itself
_SMALLEST = 1024  # bytes; a smaller message is copied as it is
_DEEPEST = 100  # nesting that protobuf's own parsers accept

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: Message → field number → message of that field; only the ways that lead to a TensorProto.
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
_RAW_DATA = 9


class _Field(NamedTuple):
    """One field: where its key starts, where its payload starts and ends."""

    number: int
    wire: int
    key: int
    start: int
    stop: int


def detach(data: memoryview) -> bytes:
    """The model `data` with each large raw_data replaced by a reference into `data`.

    Raises InvalidModel where the wire format is broken or ends too early.
    """
    return b"".join(_message(data, 0, len(data), "model", 0))


def _message(
    data: memoryview, start: int, stop: int, kind: str, depth: int
) -> list[bytes | memoryview]:
    """The parts of a message's new encoding; depth is bounded as in protobuf itself."""
    if depth > _DEEPEST:
        raise InvalidModel(f"the model nests messages deeper than {_DEEPEST} levels")
    ways = _WAYS[kind]
    parts: list[bytes | memoryview] = []
    reference = b""
    for field in _fields(data, start, stop):
        size = field.stop - field.start
        if field.wire != _BYTES or size < _SMALLEST:
            parts.append(data[field.key : field.stop])
        elif kind == "tensor" and field.number == _RAW_DATA:
            reference = _reference(field.start, size)
        elif field.number in ways:
            inner = _message(data, field.start, field.stop, ways[field.number], depth + 1)
            parts += [_key(field.number, _BYTES), _varint(sum(map(len, inner))), *inner]
        else:
            parts.append(data[field.key : field.stop])
    # The reference goes last: a data_location of the file would override an earlier one.
    return [*parts, reference]


def _fields(data: memoryview, start: int, stop: int) -> Iterator[_Field]:
    at = start
    while at < stop:
        key, payload = _read_varint(data, at, stop)
        wire = key & 7
        if wire == _VARINT:
            end = _read_varint(data, payload, stop)[1]
        elif wire == _FIXED64:
            end = payload + 8
        elif wire == _FIXED32:
            end = payload + 4
        elif wire == _BYTES:
            length, payload = _read_varint(data, payload, stop)
            end = payload + length
        else:
            raise InvalidModel(f"not an ONNX file: no protobuf field at byte {at}")
        if end > stop:
            raise InvalidModel(
                f"the model is truncated or not ONNX: the field at byte {at} ends at byte {end}, "
                f"its message at byte {stop}"
            )
        yield _Field(key >> 3, wire, at, payload, end)
        at = end


def _read_varint(data: memoryview, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise InvalidModel(f"the model is truncated or not ONNX: no whole number ends at byte {at}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _reference(offset: int, length: int) -> bytes:
    """The TensorProto fields data_location and external_data for bytes of the model itself."""
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", OWN_FILE), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    encoded: bytes = tensor.SerializeToString()
    return encoded
