"""The learned cost model: what the analytic model gets wrong, by gradient-boosted trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xgboost

from planish.autotune.search.features import Features

#: Rows from which on a fit says more than the analytic model alone.
_LEAST_ROWS = 8
#: How many times slower than the reference a point counts that failed.
_FAILED = 4.0
#: A point this many times slower than its group's best has the least weight: what matters is the
#: order among the fast ones.
_SLOWEST = 20.0
_ROUNDS = 50


@dataclass(slots=True, eq=False)
class Group:
    """The measured points of one task on one device, whose times can be compared.

    `reference` is the point whose residual counts as 0 (a tuner's default, measured first): what a
    device or a task is slower by as a whole says nothing about its points. `seconds` are infinite
    for a point that failed.
    """

    features: Features
    reference: int | None = None
    seconds: dict[int, float] = field(default_factory=dict)

    def level(self) -> float:
        """The residual that counts as 0: log(seconds) - log(estimate) of the reference."""
        if self.reference is not None and np.isfinite(self.seconds.get(self.reference, np.inf)):
            points = [self.reference]
        else:
            points = [point for point, seconds in self.seconds.items() if np.isfinite(seconds)]
        if not points:
            return 0.0
        times = np.log([self.seconds[point] for point in points])
        return float(np.median(times - self.features.estimate[points]))

    def residuals(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points, residuals against the reference, and weights; empty if none succeeded."""
        points = np.asarray(list(self.seconds), np.int64)
        seconds = np.asarray(list(self.seconds.values()), float)
        finite = np.isfinite(seconds)
        if not finite.any():
            return points[:0], seconds[:0], seconds[:0]
        level, best = self.level(), seconds[finite].min()
        estimate = self.features.estimate[points]
        fallen = np.log(_FAILED) + np.log(seconds[finite].max())
        found = np.where(finite, np.log(np.where(finite, seconds, 1.0)), fallen) - estimate - level
        slower = np.where(finite, seconds / best, _SLOWEST)
        return points, found, 1 / np.minimum(slower, _SLOWEST)


class CostModel:
    """Predicts log(seconds) of points against their task's reference.

    Prediction = analytic estimate + trees fitted to log(seconds) - log(estimate) of all groups;
    without data it is the analytic model. Seeded, and the same for the same data.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._groups: list[Group] = []
        self._names: tuple[str, ...] = ()
        self._trees: xgboost.Booster | None = None

    def add(self, group: Group) -> None:
        """Has the next fits learn from a group, and from what is added to it later."""
        self._groups.append(group)

    def fit(self) -> None:
        """Learns from all that was measured so far."""
        parts = [(group, *group.residuals()) for group in self._groups]
        parts = [part for part in parts if len(part[1]) > 1]
        if sum(len(points) for _, points, _, _ in parts) < _LEAST_ROWS:
            self._trees = None
            return
        columns = (name for group, *_ in parts for name in group.features.names)
        self._names = tuple(dict.fromkeys(columns))
        rows = [group.features.columns(self._names, points) for group, points, _, _ in parts]
        # Not a QuantileDMatrix, which takes longer to make than to fit for so few rows.
        data = xgboost.DMatrix(
            np.concatenate(rows),
            label=np.concatenate([residuals for _, _, residuals, _ in parts]),
            weight=np.concatenate([weights for _, _, _, weights in parts]),
            nthread=1,
        )
        self._trees = xgboost.train(_parameters(self._seed), data, _ROUNDS)

    def predict(self, group: Group, points: np.ndarray) -> np.ndarray:
        """log(seconds) of points of a group's task, relative to the group's reference residual."""
        estimate: np.ndarray = group.features.estimate[points]
        if self._trees is None or len(points) == 0:
            return estimate
        rows = group.features.columns(self._names, points)
        return np.asarray(estimate + self._trees.inplace_predict(rows), float)


def _parameters(seed: int) -> Mapping[str, object]:
    return {
        "objective": "reg:squarederror",
        "base_score": 0.0,  # with nothing known of a point, the analytic model is right
        "tree_method": "hist",
        "max_depth": 5,
        "eta": 0.25,
        "min_child_weight": 0.5,
        "lambda": 1.0,
        "subsample": 0.9,
        "colsample_bytree": 0.8,
        "max_bin": 64,
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
