"""Tuning: batches of trials where they are worth most, every one in the log at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.lookup import TuningLog
from planish.autotune.log.writing import LogWriter
from planish.autotune.measure.measurer import BATCH
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Candidate, Incumbent, Result, Status
from planish.autotune.search.budget import Budget, Meter, choose
from planish.autotune.search.cost_model import CostModel, Group
from planish.autotune.search.logged import groups_of, write_kernel
from planish.autotune.search.searcher import ModelSearcher, Searcher
from planish.autotune.search.standing import Standing, Step, Tuning
from planish.autotune.search.task_search import (
    Limit,
    TaskSearch,
    logged_trial,
    seed_points,
)
from planish.autotune.search.tasks import Task
from planish.ir.errors import TuningError
from planish.ir.graph import Node
from planish.ir.target import Target

#: Trials of a default whose times do not come close enough together.
_ATTEMPTS = 3
#: CPUs that others may use during a trial without its being told of.
_DISTURBING = 0.15


class Measures(Protocol):
    """What measures: `planish.autotune.measure.Measurer`, or a table in a test."""

    def measure(
        self, problem: Problem, candidates: Sequence[Candidate], incumbent: Incumbent | None = None
    ) -> Iterator[Result]:
        """One result for each candidate, as they come."""
        ...


Observer = Callable[[Tuning], None]


@dataclass(frozen=True, slots=True)
class Means:
    """What a tuning works with.

    `writer` has the log that trials go to, `known` what logs held before. `problem_of` makes the
    problem of a kernel, or raises TuningError. `limits` are by digest of task. `model` None has the
    analytic model alone score. `observer` is told after each batch.
    """

    measurer: Measures
    writer: LogWriter
    problem_of: Callable[[Node], Problem]
    known: TuningLog | None = None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    model: CostModel | None = None
    observer: Observer | None = None
    clock: Callable[[], float] = time.monotonic


def tune(
    tasks: Sequence[Task], target: Target, budget: Budget, means: Means, seed: int = 0
) -> Tuning:
    """Measures points of the tasks until the budget is spent or no point is worth it.

    Each trial is in the log before the next begins, and those that the log holds of this very
    hardware are not made again. KeyboardInterrupt ends it: what it has is the result. TuningError
    if the log cannot be written.
    """
    return _Tuner(tasks, target, budget, means, seed).run()


def unmeasured(tasks: Sequence[Task]) -> Tuning:
    """A tuning that had no time to measure anything."""
    return Tuning(tuple(_untouched(task) for task in tasks), 0, 0.0, None, ())


def _untouched(task: Task) -> Standing:
    return Standing(
        task=task.digest,
        about=task.about,
        kernels=task.names,
        space=task.space.name,
        size=task.lattice.size,
        default=None,
        best=None,
        point={},
        roofline=0.0,
        bound="",
        trials=0,
        known=0,
        failures=0,
        note="",
        curve=(),
    )


class _Tuner:
    """One call of `tune`."""

    def __init__(
        self, tasks: Sequence[Task], target: Target, budget: Budget, means: Means, seed: int
    ) -> None:
        self._target, self._means = target, means
        self._meter = Meter(budget, means.clock)
        self._curve: list[Step] = []
        self._current, self._interrupted, self._disturbed = "", False, 0
        self._states = [self._state(task, seed + i) for i, task in enumerate(tasks)]
        if means.known is not None:
            for state in self._states:
                state.recall(means.known, self._hardware)
            if means.model is not None:
                for group in groups_of(means.known, tasks, self._hardware, target):
                    means.model.add(group)
                means.model.fit()

    @property
    def _hardware(self) -> Fingerprint:
        return self._means.writer.header.hardware

    def _state(self, task: Task, seed: int) -> TaskSearch:
        group = Group(task.features, task.lattice.default)
        known, model = self._means.known, self._means.model
        seeds = [] if known is None else seed_points(task, known, self._hardware, self._target)
        searcher: Searcher = ModelSearcher(task.lattice, group, model, seed, seeds)
        if model is not None:
            model.add(group)
        limit = self._means.limits.get(task.digest, Limit())
        return TaskSearch(task, self._target, searcher, limit)

    def run(self) -> Tuning:
        """Until the budget is spent, nothing is left, or somebody interrupts."""
        try:
            self._measure_defaults()
            while not self._meter.spent and self._measure_batch():
                pass
        except KeyboardInterrupt:
            self._interrupted = True
        return self._standing()

    def _measure_defaults(self) -> None:
        """The default of each task, those first that the analytic model takes to be long."""
        for state in sorted(self._states, key=_guess, reverse=True):
            if self._meter.spent:
                return
            if state.default is None:
                self._measure_default(state)
                self._tell()

    def _measure_default(self, state: TaskSearch) -> None:
        point = state.task.lattice.default
        for attempt in range(_ATTEMPTS):
            begin, self._current = self._meter.elapsed, state.task.digest
            candidate = state.candidate(point)
            results = list(self._results(state, [candidate]))
            state.spent += self._meter.elapsed - begin
            if not results:
                return
            noisy = results[0].status is Status.NOISY
            if not noisy or attempt + 1 == _ATTEMPTS or self._meter.spent:
                state.start(results[0], candidate)
                return

    def _measure_batch(self) -> bool:
        """One batch of the task that needs it most; False if none deserves one."""
        # A task without a time was not reached by the budget, or cannot be measured.
        open_states = [state for state in self._states if state.incumbent is not None]
        chosen = choose(open_states, self._meter.budget)
        if chosen is None:
            return False
        state = open_states[chosen]
        begin, self._current = self._meter.elapsed, state.task.digest
        batch = state.next_batch(self._meter.affordable(BATCH, state.cost))
        found: dict[int, float] = {}
        for result in self._results(state, batch):
            point, seconds = state.take(result)
            found[point] = seconds
        state.spent += self._meter.elapsed - begin
        state.finish(found)
        if self._means.model is not None:
            self._means.model.fit()
        self._tell()
        return True

    def _results(self, state: TaskSearch, batch: Sequence[Candidate]) -> Iterator[Result]:
        """Measures, and logs each result before anybody sees it."""
        writer = self._means.writer
        with closing(self._measured(state, batch)) as measured:
            while True:
                try:
                    result = next(measured, None)
                except TuningError as error:
                    state.note = str(error)
                    return
                if result is None:
                    return
                self._meter.trials += 1
                self._disturbed += result.foreign_cpus > _DISTURBING
                if state.trials == 0:
                    write_kernel(writer.path, state.task)
                writer.append(logged_trial(state.task, self._target, int(result.candidate), result))
                yield result

    def _measured(
        self, state: TaskSearch, batch: Sequence[Candidate]
    ) -> Generator[Result, None, None]:
        if state.problem is None:
            state.problem = self._means.problem_of(state.task.kernel)
        yield from self._means.measurer.measure(state.problem, batch, state.incumbent)

    def _tell(self) -> None:
        """Brings the curves up to date and tells the observer."""
        for state in self._states:
            state.reach(self._meter.trials, self._meter.elapsed)
        if all(state.incumbent or state.note for state in self._states):
            seconds = sum(s.count * s.seconds for s in self._states if s.incumbent)
            self._curve.append(Step(self._meter.trials, self._meter.elapsed, seconds))
        if self._means.observer is not None:
            self._means.observer(self._standing())

    def _standing(self) -> Tuning:
        budget, elapsed = self._meter.budget, self._meter.elapsed
        return Tuning(
            standings=tuple(state.standing() for state in self._states),
            trials=self._meter.trials,
            elapsed=elapsed,
            left=None if budget.seconds is None else max(0.0, budget.seconds - elapsed),
            curve=tuple(self._curve),
            current=self._current,
            interrupted=self._interrupted,
            disturbed=self._disturbed,
        )


def _guess(state: TaskSearch) -> float:
    """The task's time in the model by the analytic model, or by its bytes where there is none."""
    task = state.task
    estimate = float(task.features.estimate[task.lattice.default])
    if task.space.work is not None:
        return task.count * math.exp(estimate)
    moved = sum(v.type.nbytes for v in (*task.kernel.inputs, *task.kernel.outputs))
    return task.count * moved / 32.0
