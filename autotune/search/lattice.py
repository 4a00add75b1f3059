"""The points of a space, numbered: what a search walks over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from planish.autotune.spaces import Choices, Space
from planish.autotune.spaces.sharing import sharing, sharing_of
from planish.autotune.spaces.space import Points, same_choice
from planish.ir.graph import Node
from planish.ir.target import Target


class Lattice:
    """Legal points of a kernel's space, point i with the ordinals `codes[i]`.

    `values` has for each choice what its ordinals stand for, in ascending order. The analytic pick
    is a point even where it is not among the options.
    """

    def __init__(self, points: Points, pick: Mapping[str, Any]) -> None:
        self.names = tuple(points)
        columns = [np.asarray(column) for column in points.values()]
        present = np.ones(len(columns[0]) if columns else 1, bool)
        for name, column in zip(self.names, columns):
            present &= column == pick[name]
        if not present.any():
            columns = [np.append(column, pick[name]) for name, column in zip(self.names, columns)]
        self.size = len(columns[0]) if columns else 1
        split = [np.unique(column, return_inverse=True) for column in columns]
        self.values: tuple[tuple[Any, ...], ...] = tuple(tuple(v.tolist()) for v, _ in split)
        self.codes = np.zeros((self.size, len(columns)), np.int32)
        for position, (_, inverse) in enumerate(split):
            self.codes[:, position] = inverse
        self.default = int(np.flatnonzero(present)[0]) if present.any() else self.size - 1

    @staticmethod
    def of(space: Space, kernel: Node, target: Target) -> Lattice:
        """The lattice of a kernel: the points that share its work as the analytic pick does."""
        points, pick = space.points(kernel, target), space.pick(kernel, target)
        alike = sharing(points) == sharing_of(pick)
        return Lattice({name: values[alike] for name, values in points.items()}, pick)

    def choices(self, point: int) -> Choices:
        """The choices of a point, by name."""
        row = self.codes[point].tolist()
        return {name: values[code] for name, values, code in zip(self.names, self.values, row)}

    def points(self) -> dict[str, np.ndarray]:
        """All points as `Space.work` takes them: an array of values for each choice."""
        columns = zip(self.names, self.values, self.codes.T)
        return {name: np.asarray(values)[codes] for name, values, codes in columns}

    def find(self, choices: Mapping[str, Any]) -> int | None:
        """The point of these choices; None if there is none."""
        if choices.keys() != set(self.names):
            return None
        row = []
        for name, values in zip(self.names, self.values):
            wanted = choices[name]
            same = [i for i, value in enumerate(values) if same_choice(value, wanted)]
            if not same:
                return None
            row.append(same[0])
        return self.at(np.asarray([row], np.int32))[0]

    def at(self, codes: np.ndarray) -> list[int | None]:
        """The points of rows of ordinals; None for a row that is no legal point."""
        keys = codes.astype(np.int64) @ self._strides
        places = np.searchsorted(self._keys, keys).clip(max=self.size - 1)
        found = self._keys[places] == keys
        return [
            int(self._order[place]) if hit else None
            for place, hit in zip(places.tolist(), found.tolist())
        ]

    def neighbours(self, point: int) -> list[int]:
        """The points that differ in one choice: the next values of a number, any of a few names."""
        here = self.codes[point]
        rows = []
        for position, values in enumerate(self.values):
            ordered = not isinstance(values[0], str)
            steps = (-1, 1, -2, 2) if ordered else range(-len(values), len(values))
            for step in steps:
                code = int(here[position]) + step
                if step and 0 <= code < len(values):
                    row = here.copy()
                    row[position] = code
                    rows.append(row)
        if not rows:
            return []
        return list(dict.fromkeys(p for p in self.at(np.stack(rows)) if p is not None))

    def along(self, point: int, position: int) -> list[int]:
        """The points that differ from one in the choice of that position only."""
        rows = np.repeat(self.codes[point][None, :], len(self.values[position]), axis=0)
        rows[:, position] = np.arange(len(self.values[position]))
        return [p for p in self.at(rows) if p is not None and p != point]

    @cached_property
    def _strides(self) -> np.ndarray:
        sizes = [len(values) for values in self.values]
        return np.asarray([int(np.prod(sizes[i + 1 :])) for i in range(len(sizes))], np.int64)

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.codes.astype(np.int64) @ self._strides, kind="stable")

    @cached_property
    def _keys(self) -> np.ndarray:
        keys: np.ndarray = (self.codes.astype(np.int64) @ self._strides)[self._order]
        return keys


def distances(lattice: Lattice, point: int, others: Sequence[int] | None = None) -> np.ndarray:
    """In how many choices points differ from one; all points by default."""
    codes = lattice.codes if others is None else lattice.codes[list(others)]
    return np.asarray((codes != lattice.codes[point]).sum(axis=1))
