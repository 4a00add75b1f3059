"""What there is to tune in a model: its kernels, each that computes the same once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from planish.autotune.log.task import describe, task_digest
from planish.autotune.search.features import Features, point_features
from planish.autotune.search.lattice import Lattice
from planish.autotune.spaces import Space, space_of
from planish.ir.graph import Node
from planish.ir.target import Target


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Kernels of one digest: `kernel` is the first of them, `names` are those of all.

    `lattice` are the points of its space, `features` what the cost model sees of them.
    """

    digest: str
    kernel: Node
    names: tuple[str, ...]
    space: Space
    lattice: Lattice
    features: Features

    @property
    def count(self) -> int:
        """How often the model computes it."""
        return len(self.names)

    @property
    def about(self) -> str:
        """The kernel for people."""
        return describe(self.kernel)


def make_tasks(kernels: Iterable[Node], target: Target) -> tuple[Task, ...]:
    """The tasks of kernels without schedules, in the order in which they first come."""
    groups: dict[str, list[Node]] = {}
    for kernel in kernels:
        groups.setdefault(task_digest(kernel), []).append(kernel)
    return tuple(_task(digest, group, target) for digest, group in groups.items())


def _task(digest: str, kernels: list[Node], target: Target) -> Task:
    first, space = kernels[0], space_of(kernels[0])
    lattice = Lattice.of(space, first, target)
    features = point_features(first, space, target, lattice)
    names = tuple(str(kernel.attrs["name"]) for kernel in kernels)
    return Task(digest, first, names, space, lattice, features)
