"""How good the cost model is on tasks that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planish.autotune.search.cost_model import CostModel, Group

#: Folds that the tasks are divided into; each is predicted by what the others teach.
_FOLDS = 5
#: Measured points from which on the order of a task's points says something.
_LEAST_POINTS = 8
#: The fastest points that should be among those predicted to be the fastest.
TOP = 8


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over held-out tasks, of the cost model and of the analytic model alone.

    `rank` is Spearman's correlation of predicted and measured order; `recall` the share of the TOP
    fastest points (a quarter, of fewer than 32) among as many predicted ones.
    """

    tasks: int
    points: int
    rank: float
    recall: float
    analytic_rank: float
    analytic_recall: float


def assess(groups: Sequence[Group], others: Sequence[Group] = (), seed: int = 0) -> Quality | None:
    """The quality on `groups` (one a task), each held out in turn; `others` are always learned.

    None with fewer than two tasks that have enough points.
    """
    judged = [group for group in groups if _finite(group) >= _LEAST_POINTS]
    if len(judged) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(judged))
    found: list[tuple[float, float, float, float]] = []
    for fold in range(min(_FOLDS, len(judged))):
        held = {int(i) for i in order[fold::_FOLDS]}
        model = CostModel(seed)
        held_groups = [judged[i] for i in sorted(held)]
        for group in (*others, *groups):
            if group not in held_groups:
                model.add(group)
        model.fit()
        found += [_judge(model, group) for group in held_groups]
    rank, recall, analytic_rank, analytic_recall = np.mean(found, axis=0).tolist()
    points = sum(map(_finite, judged))
    return Quality(len(judged), points, rank, recall, analytic_rank, analytic_recall)


def _judge(model: CostModel, group: Group) -> tuple[float, float, float, float]:
    points = np.asarray([p for p, s in group.seconds.items() if np.isfinite(s)], np.int64)
    truth = np.asarray([group.seconds[int(point)] for point in points])
    learned, analytic = model.predict(group, points), group.features.estimate[points]
    return (
        spearman(learned, truth),
        top_recall(learned, truth),
        spearman(analytic, truth),
        top_recall(analytic, truth),
    )


def spearman(left: np.ndarray, right: np.ndarray) -> float:
    """The rank correlation of two samples; 0 where one of them does not vary."""
    first, second = _ranks(left), _ranks(right)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(sample: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(sample, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: np.ndarray = ((ends - counts + ends - 1) / 2)[inverse]
    return mean


def top_recall(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The share of the fastest points that are among as many predicted to be the fastest.

    Points predicted to be equal count by the chance that they are drawn.
    """
    count = min(TOP, max(1, len(truth) // 4))
    wanted = set(np.argsort(truth, kind="stable")[:count].tolist())
    bound = np.sort(predicted)[count - 1]
    sure, tied = np.flatnonzero(predicted < bound), np.flatnonzero(predicted == bound)
    chance = (count - len(sure)) / len(tied)
    hits = sum(int(i) in wanted for i in sure) + chance * sum(int(i) in wanted for i in tied)
    return float(hits) / count


def _finite(group: Group) -> int:
    return sum(map(bool, np.isfinite(list(group.seconds.values()))))
