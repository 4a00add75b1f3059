"""Gives every kernel the analytic default of its space: what is used where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planish.autotune.spaces import anchor_of, space_of
from planish.ir.graph import Graph, Node, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.schedule import Schedule
from planish.ir.target import Target


def assign_default_schedules(graph: Graph, target: Target) -> Graph:
    """The graph with a schedule on every kernel that has none yet."""

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op != "kernel" or node.attrs["schedule"] is not None:
            return None
        return with_schedule(node, default_schedule(node, target), inputs).outputs

    return graph.rebuild(rewrite)


def default_schedule(kernel: Node, target: Target) -> Schedule:
    """The analytic pick of the kernel's space."""
    plan = space_of(kernel).schedule(kernel, target)
    anchor = anchor_of(kernel)
    if anchor is not None and op_def(anchor.op).kind is OpKind.EMITTED:
        return replace(plan, emitter=anchor.op)
    return plan


def with_schedule(kernel: Node, schedule: Schedule, inputs: Sequence[Value] = ()) -> Node:
    """The same kernel under another schedule (and on other inputs, if given)."""
    return Node(
        "kernel",
        inputs or kernel.inputs,
        [value.type for value in kernel.outputs],
        {**kernel.attrs, "schedule": schedule},
        kernel.regions,
        kernel.provenance,
        [value.name for value in kernel.outputs],
    )
