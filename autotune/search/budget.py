"""How much may be measured, and for which task the next batch is worth most."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from planish.ir.errors import TuningError
from planish.ir.seconds import read_seconds

#: What is spent where neither time nor trials are limited.
DEFAULT_SECONDS = 600.0
#: Share of the model's time whose tasks all get a first batch.
_COVERED = 0.98
#: Share of the model's time that a batch has to promise while only time limits the tuning.
_WORTHWHILE = 2e-4


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits in seconds and in trials; None is no limit."""

    seconds: float | None = None
    trials: int | None = None

    @classmethod
    def of(
        cls, given: Budget | str | float | timedelta | None = None, trials: int | None = None
    ) -> Budget:
        """`("10m", None)` → 600 seconds; ten minutes without either.

        `given` is what `read_seconds` takes, or a budget, whose trials `trials` replaces.
        TuningError if it is neither, or `trials` is no count.
        """
        if isinstance(trials, bool) or not isinstance(trials, int | None) or (trials or 0) < 0:
            raise TuningError(f"trials={trials!r} is no number of trials; give an int from 0 on")
        if isinstance(given, Budget):
            return given if trials is None else cls(given.seconds, trials)
        if given is None:
            return cls(None if trials is not None else DEFAULT_SECONDS, trials)
        return cls(read_seconds(given), trials)


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a budget of wall time ends, in seconds of `clock`; `at` None is never."""

    at: float | None = None
    clock: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float | None:
        """Seconds until then, negative afterwards; None without an end."""
        return None if self.at is None else self.at - self.clock()

    def allows(self, seconds: float) -> bool:
        """True if so many seconds fit before the end."""
        left = self.left
        return left is None or left >= seconds


@dataclass(slots=True)
class Meter:
    """What is left of a budget; `clock` gives seconds."""

    budget: Budget
    clock: Callable[[], float] = time.monotonic
    trials: int = 0
    _begin: float = field(init=False)

    def __post_init__(self) -> None:
        self._begin = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self._begin

    @property
    def spent(self) -> bool:
        """True if nothing more may be measured."""
        return self.affordable(1, 0.0) == 0

    def affordable(self, count: int, seconds_a_trial: float) -> int:
        """How many of `count` trials fit what is left; at least one while there is time left."""
        budget = self.budget
        if budget.trials is not None:
            count = min(count, budget.trials - self.trials)
        if budget.seconds is None or count <= 0:
            return max(0, count)
        left = budget.seconds - self.elapsed
        if left <= 0:
            return 0
        if seconds_a_trial > 0:
            count = min(count, max(1, int(left / seconds_a_trial)))
        return count


class Claim(Protocol):
    """What a task has to say for itself when batches are allotted.

    `seconds` are the best of one call, `floor` what no schedule can beat (0 if not known), `gain`
    the share of `seconds` that a batch is expected to save, `batches` how many it had (of points
    other than its default), `cost` seconds of a trial so far, `ended` if no point is left.
    """

    @property
    def count(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def floor(self) -> float: ...
    @property
    def batches(self) -> int: ...
    @property
    def cost(self) -> float: ...
    @property
    def ended(self) -> bool: ...
    def gain(self) -> float:
        """See the class."""
        ...


def choose(claims: Sequence[Claim], budget: Budget) -> int | None:
    """The index of the claim that gets the next batch; None if none deserves one.

    First the tasks that make up most of the model's time, the longest first, get a batch each; then
    the one whose batch is expected to save most of the model's time: by the second of measuring if
    the budget has seconds, else by the trial. A budget of seconds alone is not used up for less
    than _WORTHWHILE; one of trials is, as long as there are points.
    """
    first = _first_batches(claims)
    if first is not None:
        return first
    by_time = budget.seconds is not None
    values = [worth(claim, by_time) for claim in claims]
    best = max(range(len(claims)), key=values.__getitem__, default=None)
    if best is None or values[best] < 0:
        return None
    if budget.trials is not None:
        return best
    promise = max(worth(claim, False) for claim in claims)
    whole = sum(claim.count * claim.seconds for claim in claims)
    return best if promise >= _WORTHWHILE * whole else None


def _first_batches(claims: Sequence[Claim]) -> int | None:
    times = [claim.count * claim.seconds for claim in claims]
    covered, whole = 0.0, sum(times)
    for index in sorted(range(len(claims)), key=lambda index: -times[index]):
        if covered >= _COVERED * whole:
            return None
        covered += times[index]
        if claims[index].batches == 0 and not claims[index].ended:
            return index
    return None


def worth(claim: Claim, by_time: bool) -> float:
    """Seconds of the model's time that a batch may save; negative where none is left."""
    if claim.ended:
        return -1.0
    headroom = 1 - claim.floor / claim.seconds
    saved = claim.count * claim.seconds * max(0.0, min(claim.gain(), headroom))
    return saved / claim.cost if by_time and claim.cost > 0 else saved
