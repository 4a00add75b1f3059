"""What the cost model sees of points: rows of numbers, from counts, without lowering anything."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from planish.autotune.analytic import Work, cycles
from planish.autotune.search.lattice import Lattice
from planish.autotune.spaces import SPACES, Space
from planish.ir.cost import node_cost
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Node
from planish.ir.target import Target

_WORK = tuple(field.name for field in dataclasses.fields(Work))
_SPACE_NUMBERS = {name: number for number, name in enumerate(sorted(SPACES))}


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One row for each point of a lattice.

    `names` are the columns of `rows` (float32, NaN where a column has no meaning); `estimate` is
    the logarithm of the analytic model's time in units of its own, the same for all points of a
    space without model; `ranking` are the points, those first that the model takes to be fast.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    estimate: np.ndarray
    ranking: np.ndarray

    def columns(self, names: tuple[str, ...], points: np.ndarray) -> np.ndarray:
        """Rows of some points with the columns named, NaN where there is no such column here."""
        place = {name: i for i, name in enumerate(self.names)}
        found = np.full((len(points), len(names)), np.nan, np.float32)
        known = [i for i, name in enumerate(names) if name in place]
        found[:, known] = self.rows[points][:, [place[names[i]] for i in known]]
        return found


def point_features(kernel: Node, space: Space, target: Target, lattice: Lattice) -> Features:
    """The features of all points of a kernel's lattice.

    Sizes are logarithms to base 2: doubling a cache or a tile is one step.
    """
    columns: dict[str, np.ndarray] = {}
    flops, moved = work_of(kernel)
    outputs = sum(value.type.elements for value in kernel.outputs)
    constants = {
        "space": float(_SPACE_NUMBERS[space.name]),
        "flops": _log(flops),
        "bytes": _log(moved),
        "intensity": _log(flops) - _log(moved),
        "outputs": _log(outputs),
        "depth": _log(flops) - _log(outputs),
        "operands": float(len(kernel.inputs)),
        "body": float(len(kernel.regions[0].nodes)),
        "target.vector_bytes": _log(target.vector_bytes),
        "target.registers": _log(target.vector_registers),
        "target.l1": _log(target.l1),
        "target.l2": _log(target.l2),
        "target.l3": _log(target.l3),
        "target.cores": _log(target.cores),
        "target.fma": float(target.fma_per_cycle),
    }
    columns |= {name: np.full(lattice.size, value) for name, value in constants.items()}
    columns |= _choice_columns(lattice)
    estimate = np.zeros(lattice.size)
    ranking = np.argsort((lattice.codes != lattice.codes[lattice.default]).sum(1), kind="stable")
    if space.work is not None:
        work = space.work(kernel, target, lattice.points())
        spent = cycles(work, target)
        estimate = np.log(spent)
        ranking = np.argsort(spent, kind="stable")
        columns |= _work_columns(work, spent, lattice.size, flops)
    names = tuple(columns)
    rows = np.stack([columns[name] for name in names], axis=1).astype(np.float32)
    return Features(names, rows, estimate, ranking)


def work_of(kernel: Node) -> tuple[float, float]:
    """Flops and bytes of a kernel; no flops are known of one whose trips depend on its input."""
    try:
        cost = node_cost(kernel)
    except InvalidGraph:
        return 0.0, float(sum(value.type.nbytes for value in (*kernel.inputs, *kernel.outputs)))
    return float(cost.flops), float(cost.bytes)


def _work_columns(work: Work, spent: np.ndarray, size: int, flops: float) -> dict[str, np.ndarray]:
    columns = {
        f"work.{name}": np.log2(np.broadcast_to(np.asarray(getattr(work, name), float), size) + 1)
        for name in _WORK
    }
    columns["cycles"] = np.log2(spent)
    done = np.asarray(work.multiplies * work.steps * work.tiles * work.vector_bytes, float)
    columns["waste"] = np.broadcast_to(np.log2(done + 1) - _log(flops), size)
    return columns


def _choice_columns(lattice: Lattice) -> dict[str, np.ndarray]:
    """Numbers as they are, names as one column for each name but the first."""
    columns: dict[str, np.ndarray] = {}
    for name, values in lattice.points().items():
        if values.dtype.kind == "U":
            for value in np.unique(values)[1:]:
                columns[f"{name}={value}"] = (values == value).astype(float)
        else:
            columns[f"choice.{name}"] = values.astype(float)
    return columns


def _log(number: float) -> float:
    return math.log2(number + 1)
