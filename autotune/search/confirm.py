"""Measuring winners again: the least of many noisy times is too good to be true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median_low

from planish.autotune.log.lookup import TuningLog
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Incumbent, Result, Status
from planish.autotune.search.standing import Standing, Tuning
from planish.autotune.search.task_search import candidate_at, is_exact, logged_trial
from planish.autotune.search.tasks import Task
from planish.autotune.search.tuner import Means
from planish.ir.errors import PlanishError
from planish.ir.target import Target

#: Times of a point that its median is to be taken of.
_TIMES = 3
#: Trials of a task at most: its points may be so close that none stays ahead.
_MOST = 12

#: The times of each point of a task that was measured on this hardware; like a lookup
#: (`rank_points`), all here go by the lower median of a point's.
Times = dict[int, list[float]]


def confirm(
    tuning: Tuning, tasks: Sequence[Task], target: Target, means: Means, seconds: float | None
) -> Tuning:
    """Measures each task's fastest point beside the default until it has three times.

    A point counts by the median of its times, so one that was lucky gives way to the next, which is
    then measured again in its turn. It goes on for so many seconds (None: to the end), with tasks
    first that save the model most. Each trial is in the log. The tuning is given back with the
    points and times that a lookup finds then; KeyboardInterrupt ends it early.
    """
    until = None if seconds is None else means.clock() + seconds
    times = _logged_times(tasks, target, means)
    standings = {standing.task: standing for standing in tuning.standings}
    trials, interrupted = 0, tuning.interrupted
    try:
        for task in sorted(tasks, key=lambda task: -_saved(standings[task.digest])):
            if not interrupted and _saved(standings[task.digest]) > 0:
                trials += _confirm_task(task, times[task.digest], target, means, until)
    except KeyboardInterrupt:
        interrupted = True
    updated = (_updated(standings[task.digest], task, times[task.digest]) for task in tasks)
    return replace(
        tuning,
        standings=tuple(updated),
        trials=tuning.trials + trials,
        interrupted=interrupted,
    )


def _saved(standing: Standing) -> float:
    """Seconds of the model's time that a task seems to have gained."""
    if standing.default is None or standing.best is None:
        return 0.0
    return standing.count * (standing.default - standing.best)


def _logged_times(tasks: Sequence[Task], target: Target, means: Means) -> Mapping[str, Times]:
    """By task; of its own space and of this hardware only."""
    known = TuningLog.read([means.writer.path])
    found: dict[str, Times] = {}
    for task in tasks:
        times = found.setdefault(task.digest, {})
        for record in known.of_task(task.digest):
            point = task.lattice.find(dict(record.trial.point))
            exact = is_exact(record, task, target, means.writer.header.hardware)
            if exact and point is not None and record.trial.median is not None:
                times.setdefault(point, []).append(record.trial.median)
    return found


def _leader(times: Times) -> int:
    return min(times, key=lambda point: median_low(times[point]))


def _confirm_task(
    task: Task, times: Times, target: Target, means: Means, until: float | None
) -> int:
    """One trial of the leader after the other; gives their number."""
    default = task.lattice.default
    problem: Problem | None = None
    for trial in range(_MOST):
        if default not in times or (until is not None and means.clock() >= until):
            return trial
        leader = _leader(times)
        if leader == default or len(times[leader]) >= _TIMES:
            return trial
        try:
            problem = problem or means.problem_of(task.kernel)
            beside = Incumbent(candidate_at(task, target, default), median_low(times[default]))
            candidate = candidate_at(task, target, leader)
            (result,) = means.measurer.measure(problem, [candidate], beside)
        except PlanishError:  # it cannot be measured, or its space refuses it by now
            return trial
        means.writer.append(logged_trial(task, target, leader, result))
        _take(times, leader, result)
    return _MOST


def _take(times: Times, point: int, result: Result) -> None:
    """Notes a time; a point that fails now is no leader any more."""
    if result.status is Status.OK and result.timing is not None:
        times[point].append(result.timing.seconds.median)
    elif result.status is not Status.NOISY:
        del times[point]


def _updated(standing: Standing, task: Task, times: Times) -> Standing:
    """The standing with what a lookup would find."""
    if standing.default is None or task.lattice.default not in times:
        return standing
    leader = _leader(times)
    gain = median_low(times[leader]) / median_low(times[task.lattice.default])
    return replace(standing, best=gain * standing.default, point=task.lattice.choices(leader))
