"""One task while it is tuned: its search, its incumbent, and what came of its trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from operator import itemgetter

from planish.autotune.default_schedules import schedule_at
from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.fingerprint import grade as grade_of
from planish.autotune.log.lookup import TuningLog, rank_points
from planish.autotune.log.record import VETOES, Failure, Record, Trial
from planish.autotune.log.record import Timing as LoggedTiming
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Candidate, Incumbent, Result, Status, Timing
from planish.autotune.search.searcher import Searcher
from planish.autotune.search.standing import Standing, Step
from planish.autotune.search.tasks import Task
from planish.ir.errors import ScheduleError
from planish.ir.target import Target
from planish.passes.local import with_schedule

#: A noisy time known this well (half the interval's width as a share) still guides a search.
_USEFUL = 0.1
#: Points of a log's other hardware that a search begins with: the cost model learns from the rest.
_SEEDS = 3
#: Digits of a sample that are logged.
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Limit:
    """What no schedule of a kernel can beat, in seconds a call, and by what: compute or memory."""

    seconds: float = 0.0
    bound: str = ""


@dataclass(slots=True, eq=False)
class TaskSearch:
    """The state of one task.

    `default` and `incumbent` are None before they are measured; `batches` counts those beside the
    default's. `note` says why there is nothing to measure, and ends the task.

    All times of a task are on the scale of its default's first one, which may have been taken when
    a host gave the machine half its speed; `scale` is what later times of the incumbent make of it.
    """

    task: Task
    target: Target
    searcher: Searcher
    limit: Limit
    problem: Problem | None = None
    default: float | None = None
    incumbent: Incumbent | None = None
    point: int | None = None
    batches: int = 0
    trials: int = 0
    known: int = 0
    failures: int = 0
    spent: float = 0.0
    scale: float = 1.0
    note: str = ""
    curve: list[Step] = field(default_factory=list)

    # What the budget asks: see budget.Claim.

    @property
    def count(self) -> int:
        """How often the model computes it."""
        return self.task.count

    @property
    def seconds(self) -> float:
        """The incumbent's time; tasks that are not measured yet have none."""
        assert self.incumbent is not None
        return self.scale * self.incumbent.seconds

    @property
    def floor(self) -> float:
        """See Limit."""
        return self.limit.seconds

    @property
    def cost(self) -> float:
        """Seconds that a trial took on average."""
        return self.spent / self.trials if self.trials else 0.0

    @property
    def ended(self) -> bool:
        """True if nothing is left to measure."""
        return bool(self.note) or self.searcher.exhausted

    def gain(self) -> float:
        """The share of the time that a batch is expected to save."""
        return self.searcher.gain()

    def recall(self, log: TuningLog, hardware: Fingerprint) -> None:
        """Tells the search what was measured on this very hardware, and takes up the best of it."""
        records = [
            record
            for record in log.of_task(self.task.digest)
            if is_exact(record, self.task, self.target, hardware)
        ]
        found: dict[int, float] = {}
        for record in rank_points(records):
            point = self.task.lattice.find(dict(record.trial.point))
            if point is not None and record.trial.median is not None:
                found[point] = min(record.trial.median, found.get(point, math.inf))
        for record in records:
            point = self.task.lattice.find(dict(record.trial.point))
            if point is None or not isinstance(record.trial.result, Failure):
                continue
            if record.trial.result.kind in VETOES:  # never applied, whatever its time elsewhere
                found[point] = math.inf
            elif record.trial.result.kind != Status.NOISY:  # which deserves another trial
                found.setdefault(point, math.inf)
        self.known = len(found)
        self.searcher.tell(found)
        default = found.get(self.task.lattice.default, math.inf)
        self.default = default if math.isfinite(default) else None
        self._take_up(found)

    def _take_up(self, known: Mapping[int, float]) -> None:
        """Makes the fastest known point the incumbent, unless its space refuses it by now."""
        for point, seconds in sorted(known.items(), key=itemgetter(1)):
            if math.isinf(seconds):
                return
            try:
                self.incumbent = Incumbent(self.candidate(point), seconds)
            except ScheduleError:
                continue
            self.point = point
            return

    def candidate(self, point: int) -> Candidate:
        """The kernel with the schedule of a point; ScheduleError if there is none."""
        return candidate_at(self.task, self.target, point)

    def next_batch(self, count: int) -> list[Candidate]:
        """Candidates to measure; none if the search has come to its end.

        A point that the space makes no schedule of is told as a failure, without a trial.
        """
        while not self.searcher.exhausted:
            batch: list[Candidate] = []
            refused: dict[int, float] = {}
            for point in self.searcher.ask(count):
                try:
                    batch.append(self.candidate(point))
                except ScheduleError:
                    refused[point] = math.inf
            self.searcher.tell(refused)
            if batch or not refused:
                return batch
        return []

    def take(self, result: Result) -> tuple[int, float]:
        """Takes note of a trial: its point and the seconds that the search is to be told."""
        point, seconds = int(result.candidate), _told(result)
        self.trials += 1
        self.failures += result.status is not Status.OK
        if result.status is Status.OK and result.timing is not None and self.incumbent is not None:
            self.scale = min(self.scale, scale_of(result.timing))
            self._challenge(point, result.timing)
        return point, seconds

    def finish(self, results: Mapping[int, float]) -> None:
        """Tells the search what came of a batch."""
        self.searcher.tell(results)
        self.batches += 1

    def start(self, result: Result, candidate: Candidate) -> None:
        """Makes the default the incumbent, or notes why it cannot be."""
        self.trials += 1
        if result.timing is None:
            self.failures += 1
            self.note = f"its default schedule failed: {result.message or result.status.value}"
            return
        seconds = result.timing.seconds.median
        self.default = seconds
        self.searcher.tell({self.task.lattice.default: seconds})
        if self.incumbent is None or seconds < self.incumbent.seconds:
            self.incumbent = Incumbent(candidate, seconds)
            self.point = self.task.lattice.default

    def _challenge(self, point: int, timing: Timing) -> None:
        """A new incumbent is better than the old one beyond the noise of both."""
        assert self.incumbent is not None
        # The batch was measured beside an older one, but its seconds are on one scale.
        if timing.seconds.high < self.incumbent.seconds:
            self.incumbent = Incumbent(self.candidate(point), timing.seconds.median)
            self.point = point

    def reach(self, trials: int, elapsed: float) -> None:
        """Adds a step to the curve if the incumbent is a new one."""
        if self.incumbent is None:
            return
        seconds = self.seconds
        if not self.curve or seconds != self.curve[-1].seconds:
            self.curve.append(Step(trials, elapsed, seconds))

    def standing(self) -> Standing:
        """Where the task stands."""
        return Standing(
            task=self.task.digest,
            about=self.task.about,
            kernels=self.task.names,
            space=self.task.space.name,
            size=self.task.lattice.size,
            default=None if self.default is None else self.scale * self.default,
            best=self.seconds if self.incumbent else None,
            point=self.task.lattice.choices(self.point) if self.point is not None else {},
            roofline=self.limit.seconds,
            bound=self.limit.bound,
            trials=self.trials,
            known=self.known,
            failures=self.failures,
            note=self.note,
            curve=tuple(self.curve),
        )


def seed_points(task: Task, log: TuningLog, hardware: Fingerprint, target: Target) -> list[int]:
    """The few points that a log recommends for a task, nearer hardware and faster ones first.

    Those that were slower than the default elsewhere are none: the search begins beside that.
    """
    seeds = log.seeds(task.digest, task.space, hardware, target.cores, _SEEDS)
    found = (task.lattice.find(dict(seed.record.trial.point)) for seed in seeds)
    faster = takewhile(lambda point: point != task.lattice.default, found)
    return [point for point in faster if point is not None]


def candidate_at(task: Task, target: Target, point: int) -> Candidate:
    """A task's kernel with the schedule of a point; ScheduleError if there is none."""
    schedule = schedule_at(task.kernel, target, task.lattice.choices(point))
    return Candidate(str(point), with_schedule(task.kernel, schedule))


def is_exact(record: Record, task: Task, target: Target, hardware: Fingerprint) -> bool:
    """True for a trial of the task's space on this very hardware, with the target's threads."""
    trial, space = record.trial, task.space
    return (
        trial.space == space.name
        and record.space_version == space.version
        and trial.threads == target.cores
        and grade_of(record.header.hardware, hardware) == "exact"
    )


def logged_trial(task: Task, target: Target, point: int, result: Result) -> Trial:
    """The line of a trial: its times, or why there are none to go by."""
    outcome: LoggedTiming | Failure
    if result.status is Status.OK and result.timing is not None:
        interval = result.timing.seconds
        median, low, high = map(_rounded, (interval.median, interval.low, interval.high))
        samples = tuple(map(_rounded, comparable_samples(result.timing)))
        outcome = LoggedTiming(samples, median, (low, high))
    else:
        outcome = Failure(result.status.value, result.message)
    choices = task.lattice.choices(point)
    return Trial.of(task.digest, task.space.name, choices, target.cores, outcome, about=task.about)


def scale_of(timing: Timing) -> float:
    """The incumbent's time as it was in a trial, by what it was taken to be; 1 without one."""
    if timing.ratio is None or not timing.incumbent:
        return 1.0
    return statistics.median(timing.incumbent) * timing.ratio.median / timing.seconds.median


def comparable_samples(timing: Timing) -> Sequence[float]:
    """The samples in the incumbent's seconds, as the median is, however slow the machine was."""
    if timing.ratio is None:
        return timing.samples
    known = timing.seconds.median / timing.ratio.median
    return [mine / theirs * known for mine, theirs in zip(timing.samples, timing.incumbent)]


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{_DIGITS}g}")


def _told(result: Result) -> float:
    """Seconds that a search is told: infinite for a failure."""
    if result.timing is None:
        return math.inf
    known = result.status is Status.OK or result.timing.seconds.half_width <= _USEFUL
    return result.timing.seconds.median if known else math.inf
