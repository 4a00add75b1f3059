"""What a schedule space is: named choices, a default pick, and directives for a point."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from planish.ir.cost import node_cost
from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.schedule import Schedule
from planish.ir.target import Target

Choices = dict[str, Any]
Steps = list[tuple[Any, ...]]

#: Elements (or flops / 16) below which waking a second thread costs more than it saves.
PARALLEL_WORK = 16384


@dataclass(frozen=True, slots=True)
class Space:
    """A family of schedules for kernels around certain anchor ops.

    `options` gives for a kernel and target the values that each choice may take (the tuner's
    search space); `pick` the analytic default among them; `directives` the schedule of a point.
    """

    name: str
    anchors: tuple[str, ...]
    options: Callable[[Node, Target], Mapping[str, tuple[Any, ...]]]
    pick: Callable[[Node, Target], Choices]
    directives: Callable[[Node, Target, Choices], Steps]

    def schedule(self, kernel: Node, target: Target, choices: Choices | None = None) -> Schedule:
        """The schedule of `choices`, by default of the analytic pick."""
        point = self.pick(kernel, target) if choices is None else choices
        return Schedule.of(self.name, point.items(), self.directives(kernel, target, point))


def anchor_of(kernel: Node) -> Node | None:
    """The node of a kernel that is not element-wise or movement; None if all are."""
    for node in kernel.regions[0].nodes:
        if op_def(node.op).kind not in (OpKind.ELEMENTWISE, OpKind.MOVEMENT):
            return node
    return None


def required_anchor(kernel: Node) -> Node:
    """The anchor of a kernel of a space that is for anchors; ScheduleError if it has none."""
    anchor = anchor_of(kernel)
    if anchor is None:
        raise ScheduleError(f"{kernel.where()} has no anchor, as this space of schedules wants")
    return anchor


def is_parallel(kernel: Node, target: Target) -> bool:
    """True if the kernel has work enough for more than one thread."""
    elements = sum(value.type.elements for value in kernel.outputs)
    return target.cores > 1 and max(elements, node_cost(kernel).flops // 16) >= PARALLEL_WORK


def widest_vector(extent: int, lanes: int) -> int:
    """The widest power-of-two vector of at most `lanes` that divides `extent`; 1 if none does."""
    return math.gcd(extent, lanes) if math.gcd(extent, lanes) >= 4 or lanes < 4 else 1


def tile_candidates(extent: int, most: int) -> tuple[int, ...]:
    """Tile sizes 1 … min(extent, most)."""
    return tuple(range(1, min(extent, most) + 1))


def padded_share(extent: int, tile: int) -> float:
    """Work done over work needed when `extent` is rounded up to whole tiles; ≥ 1."""
    return -(-extent // tile) * tile / extent
