"""Ops that are not of the op table: what their author hands to one compilation.

The op table is a frozen literal, and stays one. What a compilation adds to it lies in a context
variable for as long as `extended(ops)` is open: ops are looked up by name in some thirty places
(inference, the reference, costs, fusion, lowering), and passes have a fixed signature, so that a
registry handed from call to call would be in the way of all of them. A context variable, unlike a
table that modules add to when they are imported, ends with its compilation, and is not seen by
others in other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from planish.ir.errors import PlanishError
from planish.ir.op import OpDef, OpKind

if TYPE_CHECKING:
    from planish.ir.onnx.call import Converter


@dataclass(frozen=True, slots=True)
class CustomOp:
    """An op of one's own: what the IR knows of it, its lowering, and the ONNX node it stands for.

    `expression` depends on `definition.kind`:
      - ELEMENTWISE: `(node, *elements) -> element`, TVM scalars, inputs already broadcast;
      - EMITTED: `(kernel) -> tirx.PrimFunc`, as in `planish.targets.emitters`;
      - else `(node, views, stages, schedule) -> View`, as in `planish.targets.expressions`.
    Without it the op can be imported and computed by its reference, but not compiled: a pass then
    has to replace it. `onnx` is (domain, op type, converter); the converter of a custom op goes
    before the one that planish has. An op without it comes from passes only.
    """

    definition: OpDef
    expression: Callable[..., Any] | None = None
    onnx: tuple[str, str, Converter] | None = None

    def __post_init__(self) -> None:
        if self.definition.kind is OpKind.REGION:
            raise PlanishError(
                f"custom op '{self.definition.name}' holds graphs (OpKind.REGION): "
                "only the ops of planish do"
            )


_ADDED: ContextVar[Mapping[str, CustomOp]] = ContextVar("custom ops", default=MappingProxyType({}))


@contextmanager
def extended(ops: Sequence[CustomOp]) -> Iterator[None]:
    """Within it, the op table holds `ops` as well, beside those of an outer `extended`.

    PlanishError where an op has the name of another one, or stands for the same ONNX node.
    """
    from planish.ir.ops import OPS

    added = dict(_ADDED.get())
    for op in ops:
        name = op.definition.name
        if added.get(name, op) is not op or name in OPS:
            whose = "planish" if name in OPS else "another custom op"
            raise PlanishError(f"custom op '{name}' has the name of an op of {whose}; rename it")
        _check_source(op, added.values())
        added[name] = op
    token = _ADDED.set(added)
    try:
        yield
    finally:
        _ADDED.reset(token)


def custom_op(name: str) -> CustomOp | None:
    """The custom op of that name, if the surrounding compilation has one."""
    return _ADDED.get().get(name)


def custom_names() -> tuple[str, ...]:
    """The names of all custom ops of the surrounding compilation."""
    return tuple(_ADDED.get())


def custom_converter(domain: str, op_type: str) -> Converter | None:
    """The converter of the custom op that stands for an ONNX op."""
    for op in _ADDED.get().values():
        if op.onnx is not None and op.onnx[:2] == (domain, op_type):
            return op.onnx[2]
    return None


def _check_source(op: CustomOp, others: Iterable[CustomOp]) -> None:
    for other in others:
        if other is not op and op.onnx and other.onnx and op.onnx[:2] == other.onnx[:2]:
            raise PlanishError(
                f"custom ops '{op.definition.name}' and '{other.definition.name}' both stand for "
                f"the ONNX op '{op.onnx[1]}' of domain '{op.onnx[0]}'; leave one out"
            )
