"""What every emitter starts from: a function over the buffers of a kernel's only node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from planish.ir.graph import Node, Value
from planish.targets.expressions.view import Expr

Buffer = Any  # a TVM buffer variable
Shape = tuple[int, ...]


def function(
    kernel: Node, build: Callable[..., None], shapes: Sequence[Shape] | None = None
) -> tirx.PrimFunc:
    """A function over the kernel's buffers, its body made by `build(node, *buffers)`.

    Buffers come in the node's order, inputs then outputs. `shapes` are the shapes under which they
    are seen, if not the tensors' own: only the number of elements must agree.
    """
    (body,) = kernel.regions
    (node,) = body.nodes
    values = (*node.inputs, *node.outputs)
    seen = dict(zip(values, shapes or [value.type.static_shape for value in values]))
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            params = {
                value: T.arg(f"p{i}", T.Buffer(seen[value], value.type.dtype.value))
                for i, value in enumerate((*body.inputs, *body.outputs))
            }
            build(node, *(params[value] for value in values))
        return ib.get()


def choice(kernel: Node, name: str) -> Any:
    """What the kernel's schedule chose for `name`."""
    return kernel.attrs["schedule"].choice(name)


def rows_of(value: Value, axis: int) -> tuple[int, int, int]:
    """The shape as [before the axis, axis, after the axis]."""
    shape = value.type.static_shape
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def tasks(kernel: Node, count: int) -> AbstractContextManager[Expr]:
    """A loop over independent pieces of work: parallel if that is the schedule's choice."""
    loop = T.parallel if choice(kernel, "parallel") and count > 1 else T.serial
    return loop(0, count)  # type: ignore[no-any-return]
