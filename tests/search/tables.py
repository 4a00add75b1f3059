"""Kernels that are never built: lattices with made-up times that an analytic model half knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planish.autotune.search.cost_model import CostModel, Group
from planish.autotune.search.features import Features
from planish.autotune.search.lattice import Lattice
from planish.autotune.search.searcher import ModelSearcher, Searcher


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A lattice with features, and the seconds of every point."""

    lattice: Lattice
    features: Features
    seconds: np.ndarray

    @property
    def optimum(self) -> float:
        """The least time of all points."""
        return float(self.seconds.min())

    def group(self) -> Group:
        """What a cost model learns it by."""
        return Group(self.features, self.lattice.default)


OPTIONS = {
    "oc": (1, 2, 4, 8),
    "ow": tuple(range(1, 29)),
    "outer": ("channels", "pixels"),
    "vector": (1, 4, 8, 16),
    "parallel": (False, True),
}


def grid(options: dict[str, tuple[object, ...]]) -> dict[str, np.ndarray]:
    """All points of these options."""
    axes = np.meshgrid(*(np.asarray(values) for values in options.values()), indexing="ij")
    return {name: axis.reshape(-1) for name, axis in zip(options, axes)}


def table(
    size: int = 64, *, known: float = 1.0, noise: float = 0.0, seed: int = 0, odd: float = 1.0
) -> Table:
    """A made-up convolution of `size` columns.

    The estimate sees registers, vectors and cores, times `known`; the truth has also what tiles
    waste that do not divide the columns and, times `odd`, what the order of loops does.
    """
    points = grid(OPTIONS)
    sums = points["oc"] * points["ow"]
    spilled = np.maximum(0, sums - 24) * 0.02
    cores = np.where(points["parallel"], 1.5, 1)
    seen = np.log((1 + 4 / sums + spilled) / points["vector"] ** 0.3 / cores)
    pick = {name: values[seen.argmin()].item() for name, values in points.items()}
    lattice = Lattice(points, pick)
    waste = 2 * np.log(-(-size // points["ow"]) * points["ow"] / size)
    by_pixels = np.where(points["outer"] == "pixels", 0.5, 0.0)
    order = by_pixels * np.where(points["oc"] > 2, -1, 1)
    crossed = np.where(points["vector"] == 16, 0.6 * (points["ow"] % 2), 0.0)
    drawn = np.random.default_rng(seed).normal(0, noise, lattice.size)
    seconds = size * 1e-6 * np.exp(seen + waste + odd * (order + crossed) + drawn)
    estimate = known * seen
    columns = [
        *lattice.codes.T.astype(float),
        estimate,
        -(-size // points["ow"]) * points["ow"] / size,
        np.full(lattice.size, float(size)),
    ]
    names = (*points, "cycles", "waste", "size")
    rows = np.stack(columns, axis=1).astype(np.float32)
    ranking = np.argsort(estimate, kind="stable")
    return Table(lattice, Features(names, rows, estimate, ranking), seconds)


def model_searcher(source: Table, seed: int, model: CostModel | None) -> ModelSearcher:
    """Our search over a table."""
    group = source.group()
    if model is not None:
        model.add(group)
    return ModelSearcher(source.lattice, group, model, seed)


def run(
    searcher: Searcher, source: Table, budget: int, model: CostModel | None = None
) -> list[float]:
    """The best time after each trial, in batches of eight after the default."""
    curve: list[float] = []
    batch = [source.lattice.default]
    while batch and len(curve) < budget:
        found = {point: float(source.seconds[point]) for point in batch}
        for seconds in found.values():
            curve.append(min([seconds, *curve[-1:]]))
        searcher.tell(found)
        if model is not None:
            model.fit()
        batch = searcher.ask(min(8, budget - len(curve)))
    return curve
