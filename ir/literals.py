"""Elements of constants as text: the shortest decimal that reads back the same, else the bits."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np

from planish.ir.types import DType

#: One element in the text form, strings aside.
ELEMENT = re.compile(r"true|false|0x[0-9a-f]+|[-+]?(?:inf|nan|\d[\d.]*(?:e[-+]?\d+)?)")


def format_element(element: np.generic | str, dtype: DType) -> str:
    """One element; `parse_element` reads the same bits back (NaN payloads and -0 included)."""
    if dtype is DType.STRING:
        return json.dumps(element.decode() if isinstance(element, bytes) else str(element))
    if dtype is DType.BOOL:
        return "true" if element else "false"
    if dtype.is_integer:
        return str(int(element))
    if dtype.is_float:
        # numpy's text of a float32 is the shortest that is unique among float32.
        text = repr(float(str(element))) if dtype is DType.FLOAT32 else repr(float(element))
        if _bits(parse_element(text, dtype), dtype) == _bits(element, dtype):
            return text
    return f"0x{_bits(element, dtype):0{2 * dtype.itemsize}x}"


def parse_element(text: str, dtype: DType) -> np.generic | str:
    """The inverse of `format_element`; ValueError if the text is no element of this type."""
    if dtype is DType.STRING:
        return str(json.loads(text))
    if dtype is DType.BOOL:
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is not a bool")
        return np.bool_(text == "true")
    if text.startswith("0x"):
        raw = int(text, 16).to_bytes(dtype.itemsize, "little")
        return np.frombuffer(raw, dtype.numpy)[0]  # type: ignore[no-any-return]
    number = int(text) if dtype.is_integer else float(text)
    with np.errstate(over="ignore"):
        return np.array([number]).astype(dtype.numpy)[0]  # type: ignore[no-any-return]


def _bits(element: np.generic | str, dtype: DType) -> int:
    return int.from_bytes(np.array(element, dtype.numpy).tobytes(), "little")


def data_digest(data: np.ndarray) -> str:
    """SHA-256 (hex) over the elements of an array in row-major order."""
    if data.dtype == object:
        texts = [t if isinstance(t, bytes) else str(t).encode() for t in data.reshape(-1)]
        return hashlib.sha256(b"".join(b"%d:%s" % (len(t), t) for t in texts)).hexdigest()
    flat = np.ascontiguousarray(data).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()
