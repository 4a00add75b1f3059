"""Attribute specifications that the op families share."""

from __future__ import annotations

from planish.ir.dim import Dim
from planish.ir.op import AttrSpec
from planish.ir.types import DType

REQUIRED_INTS = AttrSpec((tuple,), required=True)
REQUIRED_INT = AttrSpec((int,), required=True)
REQUIRED_DIM = AttrSpec((int, Dim), required=True)
REQUIRED_BOOL = AttrSpec((bool,), required=True)
REQUIRED_FLOAT = AttrSpec((float,), required=True)
REQUIRED_TEXT = AttrSpec((str,), required=True)
REQUIRED_DTYPE = AttrSpec((DType,), required=True)
OPTIONAL_INTS = AttrSpec((tuple,))
YES = AttrSpec((bool,), True)
NO = AttrSpec((bool,), False)
