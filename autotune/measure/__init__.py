"""planish.autotune.measure: candidates built and timed in processes of their own."""

from __future__ import annotations

from planish.autotune.measure.backend import Backend
from planish.autotune.measure.intervals import Interval, median_interval
from planish.autotune.measure.measurer import Measurer
from planish.autotune.measure.options import Cache, Options
from planish.autotune.measure.problem import Problem, make_problem
from planish.autotune.measure.results import Candidate, Incumbent, Result, Status, Timing
from planish.autotune.measure.runner import ProcessRunner, Runner, local_runner

__all__ = [
    "Backend",
    "Cache",
    "Candidate",
    "Incumbent",
    "Interval",
    "Measurer",
    "Options",
    "Problem",
    "ProcessRunner",
    "Result",
    "Runner",
    "Status",
    "Timing",
    "local_runner",
    "make_problem",
    "median_interval",
]
