"""planish.autotune.spaces: for each kind of kernel, a function to schedules."""

from __future__ import annotations

from planish.autotune.spaces import (
    attention,
    conv,
    loops,
    matmul,
    plain_conv,
    pointwise,
    rows,
    window,
    winograd,
)
from planish.autotune.spaces.space import Choices, Space, anchor_of
from planish.ir.extension import custom_op
from planish.ir.graph import Node
from planish.ir.op import OpKind
from planish.ir.ops import op_def

#: Every space, by name; a tuning log names them.
SPACES: dict[str, Space] = {
    module.SPACE.name: module.SPACE
    for module in (pointwise, conv, plain_conv, matmul, winograd, rows, window, attention, loops)
}
_BY_ANCHOR = {anchor: space for space in SPACES.values() for anchor in space.anchors}


def space_of(kernel: Node) -> Space:
    """The space that a kernel's schedules are drawn from."""
    anchor = anchor_of(kernel)
    if anchor is None:
        return SPACES["pointwise"]
    if anchor.op.startswith("reduce_") and not rows.has_rows(kernel):
        return SPACES["window"]
    if op_def(anchor.op).kind is OpKind.EMITTED:
        return _BY_ANCHOR.get(anchor.op, SPACES["loops"])
    if custom_op(anchor.op) is not None:  # nothing is known of its stages
        return _BY_ANCHOR.get(anchor.op, SPACES["loops"])
    return _BY_ANCHOR[anchor.op]


__all__ = ["SPACES", "Choices", "Space", "anchor_of", "space_of"]
