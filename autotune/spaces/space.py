"""What a schedule space is: named choices, a default pick, and directives for a point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from planish.autotune.analytic import Numbers, Work, cycles, reads
from planish.ir.cost import node_cost
from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.schedule import Schedule
from planish.ir.target import Target

Choices = dict[str, Any]
Steps = list[tuple[Any, ...]]
#: Many points of a space: for each choice an array of values, one a point.
Points = Mapping[str, np.ndarray]

#: Elements (or flops / 16) below which waking a second thread costs more than it saves.
PARALLEL_WORK = 16384


@dataclass(frozen=True, slots=True)
class Space:
    """A family of schedules for kernels around certain anchor ops.

    `options` gives for a kernel and target the values that each choice may take (the tuner's
    search space); `directives` the schedule of a point. `legal` tells which points can be built
    (all where it is None). The pick is the point whose `work` the analytic model takes to be the
    quickest, or `default`'s for a space without model.
    `version` counts up whenever a point comes to mean another schedule: what a tuning log holds of
    older versions is then no longer applied. `emitter` names the writer of the kernel at a point
    for which there are no directives.
    """

    name: str
    anchors: tuple[str, ...]
    options: Callable[[Node, Target], Mapping[str, tuple[Any, ...]]]
    default: Callable[[Node, Target], Choices] | None
    directives: Callable[[Node, Target, Choices], Steps]
    version: int = 1
    emitter: Callable[[Choices], str | None] = lambda choices: None
    legal: Callable[[Node, Target, Points], np.ndarray] | None = None
    work: Callable[[Node, Target, Points], Work] | None = None

    def pick(self, kernel: Node, target: Target) -> Choices:
        """The choices to use where nothing was measured."""
        if self.default is not None:
            return self.default(kernel, target)
        return self.ranked(kernel, target)[0]

    def points(self, kernel: Node, target: Target) -> Points:
        """All legal points, as arrays of one length."""
        options = self.options(kernel, target)
        grid = np.meshgrid(*(np.asarray(values) for values in options.values()), indexing="ij")
        points = {name: axis.reshape(-1) for name, axis in zip(options, grid)}
        if self.legal is None:
            return points
        kept = self.legal(kernel, target, points)
        return {name: values[kept] for name, values in points.items()}

    def is_legal(self, kernel: Node, target: Target, point: Choices) -> bool:
        """True if the point can be built."""
        arrays = {name: np.asarray([value]) for name, value in point.items()}
        return self.legal is None or bool(self.legal(kernel, target, arrays)[0])

    def ranked(self, kernel: Node, target: Target) -> list[Choices]:
        """All legal points, those first that the analytic model takes to be fast."""
        if self.work is None:
            return self._picked_first(kernel, target)
        points = self.points(kernel, target)
        order = np.argsort(cycles(self.work(kernel, target, points), target), kind="stable")
        columns = [points[name][order].tolist() for name in points]
        return [dict(zip(points, values)) for values in zip(*columns)]

    def _picked_first(self, kernel: Node, target: Target) -> list[Choices]:
        """The pick, then the points that differ from it in fewer choices before others."""
        first, options = self.pick(kernel, target), self.options(kernel, target)
        every = [dict(zip(options, values)) for values in itertools.product(*options.values())]
        return sorted(every, key=lambda point: sum(point[name] != first[name] for name in first))

    def schedule(self, kernel: Node, target: Target, choices: Choices | None = None) -> Schedule:
        """The schedule of `choices`, by default of the analytic pick."""
        point = self.pick(kernel, target) if choices is None else choices
        steps = self.directives(kernel, target, point)
        return Schedule.of(self.name, point.items(), steps, self.emitter(point))


def same_choice(one: object, other: object) -> bool:
    """Whether two values of a choice are the same by type too: neither 1 nor 1.0 is True."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same_choice, one, other))
    plain = [value.item() if isinstance(value, np.generic) else value for value in (one, other)]
    return type(plain[0]) is type(plain[1]) and plain[0] == plain[1]


#: Vector instructions of element-wise ops that take many.
LENGTHY = {
    **dict.fromkeys(("exp", "log", "sigmoid", "tanh", "erf", "silu", "sin", "cos"), 30),
    **dict.fromkeys(("gelu", "softplus", "mish", "pow"), 70),
}


def finishing(kernel: Node) -> int:
    """Vector instructions for each result: the epilogue, its operands and the store."""
    body = kernel.regions[0]
    computed = sum(LENGTHY.get(node.op, 1) for node in body.nodes)
    return computed + len(body.inputs) - 2


def epilogues(sums_in_memory: bool) -> tuple[str, ...]:
    """How the loops of an epilogue may be written: sums in registers have no index to loop over."""
    return ("unrolled", "looped") if sums_in_memory else ("unrolled",)


def finish_cost(kernel: Node, results: np.ndarray, epilogue: np.ndarray) -> np.ndarray:
    """Vector instructions that end a tile of so many vectors.

    What is unrolled to many instructions runs slowly: they are decoded anew each time. A loop has
    its own instructions, and reads the sums again.
    """
    each = finishing(kernel)
    slow = np.where(results * each > 512, 2.0, 1.0)
    return np.asarray(results * np.where(epilogue == "looped", each + 4, each * slow))


def moving(kernel: Node, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Bytes of L2 and of L3 that the result and the operands of the epilogue take."""
    size = kernel.output.type.nbytes
    others = sum(min(value.type.nbytes, size) for value in kernel.inputs[2:])
    return reads(target, size + others, 1)


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


def operand_registers(target: Target, broadcasts: Numbers, vectors: Numbers) -> np.ndarray:
    """Registers that the operands of a step need beside its sums.

    `vectors` are kept for all `broadcasts`. AVX-512 multiplies straight by a broadcast from
    memory, which is shared by several vectors only from a register. LLVM loads a vector ahead for
    AVX2, and for NEON, which multiplies by one lane of a vector, a vector for each broadcast.
    """
    if target.arch == "aarch64":
        return np.asarray(vectors + broadcasts)
    if target.vector_bytes == 64:
        return np.asarray(vectors + np.where(np.asarray(vectors) > 1, 1, 0))
    return np.asarray(vectors + 2)


def partial_sum(steps: int, length: int) -> int:
    """Steps of a partial sum, a divisor of `steps`, where each step adds `length` products.

    Errors of a sum in one register grow with its length, so partial sums have about 256 products
    at most. This is no choice of a tuner's: a longer sum would be faster, and less exact.
    """
    fitting = [size for size in range(1, steps + 1) if steps % size == 0 and size * length <= 288]
    best = max(fitting, default=1)
    return best if best * length >= 32 or best == steps else steps


def tile_candidates(extent: int, most: int) -> tuple[int, ...]:
    """Tile sizes 1 … min(extent, most); 1 where there is nothing to tile."""
    return tuple(range(1, max(1, min(extent, most)) + 1))


def padded_share(extent: int, tile: int) -> float:
    """Work done over work needed when `extent` is rounded up to whole tiles; ≥ 1."""
    return -(-extent // tile) * tile / extent
