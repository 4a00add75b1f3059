"""planish.autotune.search: which points of which tasks to measure, and when to stop."""

from __future__ import annotations

from planish.autotune.search.budget import Budget
from planish.autotune.search.confirm import confirm
from planish.autotune.search.cost_model import CostModel, Group
from planish.autotune.search.searcher import (
    DescentSearcher,
    ModelSearcher,
    RandomSearcher,
    Searcher,
)
from planish.autotune.search.standing import Standing, Step, Tuning
from planish.autotune.search.task_search import Limit
from planish.autotune.search.tasks import Task, make_tasks
from planish.autotune.search.tuner import Means, tune

__all__ = [
    "Budget",
    "CostModel",
    "DescentSearcher",
    "Group",
    "Limit",
    "Means",
    "ModelSearcher",
    "RandomSearcher",
    "Searcher",
    "Standing",
    "Step",
    "Task",
    "Tuning",
    "confirm",
    "make_tasks",
    "tune",
]
