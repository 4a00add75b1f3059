"""Tensor expressions of custom ops (`planish.ir.extension.CustomOp`), and what they may not do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from planish.ir.errors import PlanishError, TargetError
from planish.ir.extension import CustomOp
from planish.ir.graph import Node
from planish.ir.op import OpKind
from planish.ir.schedule import Schedule
from planish.targets.expressions.elementwise import aligned
from planish.targets.expressions.view import Expr, Indices, Stages, View, dtype_of, with_names


def custom(
    op: CustomOp, node: Node, inputs: Sequence[View], stages: Stages, plan: Schedule
) -> View:
    """The view that the expression of `op` gives; TargetError where it fails or does not fit."""
    if op.definition.kind is OpKind.ELEMENTWISE:
        return _elementwise(op, node, inputs)
    view = _called(op, node, inputs, stages, plan)
    dtype = node.output.type.dtype.value
    if not isinstance(view, View) or view.dtype != dtype:
        raise TargetError(
            f"{node.where()}: the expression of custom op '{node.op}' must give a View of {dtype}, "
            f"got {view!r}"
        )
    return view


def custom_emitter(op: CustomOp) -> Callable[[Node], tirx.PrimFunc]:
    """The writer of TensorIR of an EMITTED custom op."""
    return lambda kernel: _called(op, kernel)


def _elementwise(op: CustomOp, node: Node, inputs: Sequence[View]) -> View:
    shape, dtype = node.output.type.static_shape, node.output.type.dtype.value

    def element(*args: Expr) -> Expr:
        result = _called(op, node, *args)
        if dtype_of(result) != dtype:
            raise TargetError(
                f"{node.where()}: the expression of custom op '{node.op}' gives "
                f"{dtype_of(result)}, inference {dtype}"
            )
        return result

    def read(idx: Indices) -> Expr:
        args = [view.read(aligned(view.shape, shape, idx)) for view in inputs]
        return with_names(args, element)

    return View(shape, dtype, read)


def _called(op: CustomOp, node: Node, *args: Any) -> Any:
    if op.expression is None:
        raise TargetError(
            f"{node.where()} has no lowering: give CustomOp(…, expression=…), or a pass that "
            f"replaces '{op.definition.name}'"
        )
    try:
        return op.expression(node, *args)
    except PlanishError:
        raise
    except Exception as error:
        raise TargetError(
            f"{node.where()}: the expression of custom op '{op.definition.name}' failed: "
            f"{type(error).__name__}: {error}"
        ) from error
