"""Gives every kernel the analytic default of its space: what is used where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planish.autotune.spaces import Choices, anchor_of, space_of
from planish.ir.graph import Graph, Node, Value, with_inputs
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.schedule import Schedule
from planish.ir.target import Target
from planish.passes.local import with_schedule


def assign_default_schedules(graph: Graph, target: Target) -> Graph:
    """The graph with a schedule on every kernel that has none yet."""

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op != "kernel" or node.attrs["schedule"] is not None:
            return None
        return with_schedule(with_inputs(node, inputs), default_schedule(node, target)).outputs

    return graph.rebuild(rewrite)


def default_schedule(kernel: Node, target: Target) -> Schedule:
    """The analytic pick of the kernel's space."""
    return schedule_at(kernel, target, None)


def schedule_at(kernel: Node, target: Target, choices: Choices | None) -> Schedule:
    """The schedule of `choices` in the kernel's space, or of its analytic pick; ScheduleError."""
    plan = space_of(kernel).schedule(kernel, target, choices)
    anchor = anchor_of(kernel)
    if anchor is not None and op_def(anchor.op).kind is OpKind.EMITTED:
        return replace(plan, emitter=anchor.op)
    return plan
