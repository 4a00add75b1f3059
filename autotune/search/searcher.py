"""Searches over a lattice, by asking and telling: which points to measure next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from planish.autotune.search.cost_model import CostModel, Group
from planish.autotune.search.lattice import Lattice

#: Part of a batch that goes elsewhere when the one before found nothing better around the best.
_ELSEWHERE = 0.25
#: Part of what the model proposes that is drawn at random instead.
_EPSILON = 0.125
#: Lattices up to this size are scored whole; of larger ones a population evolves.
_SCORED = 4096
_POPULATION, _GENERATIONS, _PARENTS = 512, 4, 64
#: How far predictions may be off (standard deviation of a logarithm) before any was checked.
_FIRST_ERROR = 0.25


class Searcher(Protocol):
    """Ask for points, measure them, tell their seconds (infinite for a failure)."""

    @property
    def best(self) -> tuple[int, float] | None:
        """The fastest point told so far and its seconds; None if none succeeded."""
        ...

    @property
    def exhausted(self) -> bool:
        """True if every point was told."""
        ...

    def ask(self, count: int) -> list[int]:
        """At most `count` points that were not told yet, each once; empty if there are none."""
        ...

    def tell(self, seconds: Mapping[int, float]) -> None:
        """What came of points, asked for or not."""
        ...

    def gain(self) -> float:
        """The share of the best time that the next batch is expected to save."""
        ...


class Ledger:
    """What every search keeps: the points that are known, the best, and how progress goes."""

    def __init__(self, lattice: Lattice, seed: int) -> None:
        self.lattice = lattice
        self.seconds: dict[int, float] = {}
        self.rng = np.random.default_rng(seed)
        self._recent = 0.1  # share of the best time that a batch saved, averaged
        self._best: tuple[int, float] | None = None

    @property
    def best(self) -> tuple[int, float] | None:
        """The fastest point told so far and its seconds; None if none succeeded."""
        return self._best

    @property
    def exhausted(self) -> bool:
        """True if every point was told."""
        return len(self.seconds) >= self.lattice.size

    def tell(self, seconds: Mapping[int, float]) -> None:
        """Takes results down; one call is one batch."""
        before = self._best[1] if self._best else math.inf
        self.seconds.update(seconds)
        for point, spent in seconds.items():
            if spent < (self._best[1] if self._best else math.inf):
                self._best = (point, spent)
        if not seconds or self._best is None:
            return
        saved = 0.0 if math.isinf(before) else 1 - self._best[1] / before
        self._recent = 0.5 * self._recent + 0.5 * saved

    def gain(self) -> float:
        """What recent batches saved, as a share of the best time."""
        return 0.0 if self.exhausted else self._recent

    def unknown(self) -> np.ndarray:
        """The points that were not told yet."""
        left = np.ones(self.lattice.size, bool)
        left[list(self.seconds)] = False
        return np.flatnonzero(left)

    def take(self, points: Iterable[int], count: int, taken: Sequence[int] = ()) -> list[int]:
        """The first points that are neither known nor taken."""
        found: list[int] = []
        for point in points:
            if len(found) == count:
                break
            if point not in self.seconds and point not in taken and point not in found:
                found.append(point)
        return found


class RandomSearcher(Ledger):
    """Points in random order, for comparison."""

    def ask(self, count: int) -> list[int]:
        """The next points drawn."""
        return self.take(self.rng.permutation(self.unknown()).tolist(), count)


class DescentSearcher(Ledger):
    """Coordinate descent alone, for comparison: one choice after the other, all of its values.

    It starts at the default, and again at a random point where no choice improves any more.
    """

    def __init__(self, lattice: Lattice, seed: int) -> None:
        super().__init__(lattice, seed)
        self._at, self._position, self._unimproved = lattice.default, 0, 0

    def ask(self, count: int) -> list[int]:
        """The rest of the current choice's values."""
        if self._at not in self.seconds:
            return self.take([self._at], count)
        while count > 0 and not self.exhausted:
            line = self.lattice.along(self._at, self._position) if self.lattice.names else []
            found = self.take(line, count)
            if found:
                return found
            self._advance(line)
            if self._at not in self.seconds:
                return [self._at]
        return []

    def _advance(self, line: Sequence[int]) -> None:
        """To the best of a line that is known, then to the next choice, or to a new start."""
        nearest = min([self._at, *line], key=self.seconds.__getitem__)
        self._unimproved = 0 if nearest != self._at else self._unimproved + 1
        self._at = nearest
        choices = len(self.lattice.names)
        self._position = (self._position + 1) % max(1, choices)
        if self._unimproved >= choices:
            self._at, self._unimproved = int(self.rng.choice(self.unknown())), 0


class ModelSearcher(Ledger):
    """Descent around the best, in the order of the cost model, and what that proposes anywhere.

    It begins at what is told first, the analytic pick, which is near the best point as a rule; but
    `seeds` (points that a log recommends) go before. With `model` None the analytic model alone
    scores. The model learns when its owner fits it; what is told here is in its `group`.
    """

    def __init__(
        self,
        lattice: Lattice,
        group: Group,
        model: CostModel | None,
        seed: int,
        seeds: Sequence[int] = (),
    ) -> None:
        super().__init__(lattice, seed)
        self.group, self._model = group, model
        self._seeds, self._improved = tuple(seeds), True
        self._error = _FIRST_ERROR

    def ask(self, count: int) -> list[int]:
        """Seeds alone; then points around the best; then what the model, and chance, propose."""
        found = self.take(self._seeds, count)
        if found:  # what they tell is worth a batch of its own, and soon known
            return found
        if self._best is not None:
            around = count if self._improved else count - int(_ELSEWHERE * count)
            found += self.take(self._around(self._best[0]), around)
        drawn = int(self.rng.binomial(count - len(found), _EPSILON))
        found += self.take(self._proposals(), count - len(found) - drawn, found)
        return found + self.take(
            self.rng.permutation(self.unknown()).tolist(), count - len(found), found
        )

    def _around(self, point: int) -> list[int]:
        """The neighbours of a point, the promising first, then all that differ in one choice."""
        lattice = self.lattice
        lines = (lattice.along(point, position) for position in range(len(lattice.names)))
        line = [other for points in lines for other in points]
        return self._sorted(lattice.neighbours(point)) + self._sorted(line)

    def tell(self, seconds: Mapping[int, float]) -> None:
        """Checks the model's predictions, then learns the truth."""
        self._check(seconds)
        before = self._best
        super().tell(seconds)
        if seconds:
            self._improved = self._best != before
        self.group.seconds.update(seconds)

    def gain(self) -> float:
        """Expected improvement of the most promising point, or what recent batches saved."""
        unknown = self.unknown()
        if not len(unknown):
            return 0.0
        if self._best is None:
            return self._recent
        pool = unknown
        if len(unknown) > _SCORED:
            pool = self.rng.choice(unknown, _SCORED, replace=False)
        # Against the best's own time, not its prediction: it may have been lucky, and is known.
        ahead = math.log(self._best[1]) - self.group.level() - float(self._score(pool).min())
        expected = expected_improvement(ahead, self._error)
        return max(1 - math.exp(-expected), 0.5 * self._recent)

    def _check(self, seconds: Mapping[int, float]) -> None:
        """Averages the squared error of predictions that are checked now."""
        points = [point for point, spent in seconds.items() if math.isfinite(spent)]
        if not points or not any(map(math.isfinite, self.group.seconds.values())):
            return
        truth = np.log([seconds[point] for point in points])
        off = truth - self._score(np.asarray(points)) - self.group.level()
        # Points that are far too slow are of no interest, however far off.
        square = float(np.median(np.square(off)))
        self._error = math.sqrt(0.6 * self._error**2 + 0.4 * max(square, 1e-4))

    def _score(self, points: np.ndarray) -> np.ndarray:
        if self._model is None:
            estimate: np.ndarray = self.group.features.estimate[points]
            return estimate
        return self._model.predict(self.group, points)

    def _sorted(self, points: Sequence[int]) -> list[int]:
        order = np.argsort(self._score(np.asarray(points, np.int64)), kind="stable")
        return [points[i] for i in order]

    def _proposals(self) -> list[int]:
        """Unknown points, the promising ones first."""
        unknown = self.unknown()
        if len(unknown) > _SCORED:
            return self._evolved()
        # Ties in the order of the analytic ranking.
        rank = np.empty(self.lattice.size, np.int64)
        rank[self.group.features.ranking] = np.arange(self.lattice.size)
        order = np.lexsort((rank[unknown], self._score(unknown)))
        found: list[int] = unknown[order].tolist()
        return found

    def _evolved(self) -> list[int]:
        """A population from the best measured and random points, bred by predicted time."""
        measured = sorted(self.seconds, key=self.seconds.__getitem__)[:_PARENTS]
        drawn = self.rng.integers(self.lattice.size, size=_POPULATION - len(measured))
        head = self.group.features.ranking[:_PARENTS].tolist()
        alive = np.unique([*measured, *head, *drawn.tolist()])
        for _ in range(_GENERATIONS):
            alive = np.unique(np.concatenate([alive, self._children(alive)]))
            alive = alive[np.argsort(self._score(alive), kind="stable")[:_POPULATION]]
        found: list[int] = alive.tolist()
        return found

    def _children(self, alive: np.ndarray) -> np.ndarray:
        """Each takes its choices from two parents, good ones more often; one choice is mutated."""
        order = alive[np.argsort(self._score(alive), kind="stable")]
        chance = 1.0 / np.arange(1, len(order) + 1)
        pairs = self.rng.choice(order, (2, _POPULATION), p=chance / chance.sum())
        codes = self.lattice.codes
        mixed = self.rng.random((_POPULATION, codes.shape[1])) < 0.5
        rows = np.where(mixed, codes[pairs[0]], codes[pairs[1]])
        column = self.rng.integers(codes.shape[1], size=_POPULATION)
        sizes = np.asarray([len(values) for values in self.lattice.values])
        rows[np.arange(_POPULATION), column] = self.rng.integers(sizes[column])
        return np.asarray([p for p in self.lattice.at(rows) if p is not None], np.int64)


def expected_improvement(ahead: float, error: float) -> float:
    """Mean of max(0, x), x normal around `ahead` with deviation `error`; it grows with `ahead`.

    Source: Jones, Schonlau, Welch, "Efficient Global Optimization of Expensive Black-Box Functions"
    (1998), equation 15; here of logarithms of times.
    """
    scaled = ahead / error
    density = math.exp(-0.5 * scaled**2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + math.erf(scaled / math.sqrt(2)))
    return ahead * below + error * density
