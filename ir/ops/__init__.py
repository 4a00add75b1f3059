"""The op table: every op of the IR by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from planish.ir.errors import InvalidGraph
from planish.ir.extension import custom_names, custom_op
from planish.ir.op import OpDef
from planish.ir.ops import (
    activation,
    attention,
    composite,
    contraction,
    convolution,
    elementwise,
    indexing,
    movement,
    pooling,
    recurrent,
    reduction,
    region,
    resize,
    rotary,
    winograd,
)

OPS: Mapping[str, OpDef] = MappingProxyType(
    {
        definition.name: definition
        for definition in (
            *elementwise.OPS,
            *activation.OPS,
            *movement.OPS,
            *indexing.OPS,
            *resize.OPS,
            *reduction.OPS,
            *pooling.OPS,
            *contraction.OPS,
            *convolution.OPS,
            *winograd.OPS,
            *composite.OPS,
            *attention.OPS,
            *rotary.OPS,
            *recurrent.OPS,
            *region.OPS,
        )
    }
)


def op_def(name: str) -> OpDef:
    """The op of that name, the compilation's own ones included (`planish.ir.extension`).

    InvalidGraph that offers the nearest names if there is none.
    """
    found = OPS.get(name)
    if found is None:
        added = custom_op(name)
        if added is not None:
            return added.definition
        near = difflib.get_close_matches(name, [*OPS, *custom_names()], n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InvalidGraph(f"there is no op '{name}'{hint}")
    return found
