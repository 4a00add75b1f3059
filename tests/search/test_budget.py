"""Batches go where they save most of the model's time, within what may be spent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest

from planish.autotune.search.budget import Budget, Deadline, Meter, choose, worth
from planish.ir.errors import TuningError
from planish.ir.seconds import read_seconds

TIME, TRIALS = Budget(seconds=600.0), Budget(trials=10**6)


@dataclass
class Claimant:
    """A task whose batches save less and less."""

    count: int = 1
    seconds: float = 1e-3
    saves: float = 0.1
    floor: float = 0.0
    batches: int = 1
    cost: float = 1.0
    ended: bool = False

    def gain(self) -> float:
        """See budget.Claim."""
        return self.saves


def test_first_batches_go_to_tasks_of_most_of_the_time() -> None:
    times = (1e-6, 5e-4, 3e-4, 1e-5, 2e-6)
    claims = [Claimant(seconds=seconds, batches=0) for seconds in times]
    order = []
    for _ in range(3):
        chosen = choose(claims, TIME)
        assert chosen is not None
        order.append(chosen)
        claims[chosen].batches += 1
        claims[chosen].saves = 0.0
    assert order[:2] == [1, 2]  # together 98.4 % of the time
    assert order[2] == 3  # of the others, what saves most


def test_ended_tasks_get_nothing() -> None:
    claims = [Claimant(seconds=1.0, batches=0, ended=True), Claimant(batches=0)]
    assert choose(claims, TRIALS) == 1
    claims[1].ended = True
    assert choose(claims, TRIALS) is None
    assert choose([], TRIALS) is None


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (Claimant(count=4), Claimant()),
        (Claimant(seconds=2e-3), Claimant()),
        (Claimant(saves=0.2), Claimant()),
        (Claimant(), Claimant(floor=0.95e-3)),
        (Claimant(cost=0.5), Claimant()),
    ],
)
def test_worth(better: Claimant, worse: Claimant) -> None:
    assert choose([worse, better], TIME) == 1
    assert worth(better, True) > worth(worse, True) > 0


def test_cost_counts_only_where_time_is_what_runs_out() -> None:
    assert worth(Claimant(cost=0.5), by_time=False) == worth(Claimant(), by_time=False)


def test_faster_than_its_roofline_has_nothing_to_gain() -> None:
    assert worth(Claimant(seconds=1e-3, floor=2e-3), by_time=False) == 0


def test_equal_gains_are_had_in_turn() -> None:
    claims = [Claimant(), Claimant(), Claimant(count=2)]
    had: Counter[int] = Counter()
    for _ in range(40):
        chosen = choose(claims, TRIALS)
        assert chosen is not None
        had[chosen] += 1
        claims[chosen].saves *= 0.8
    assert min(had.values()) >= 10
    assert had[2] == max(had.values())


def test_time_is_not_spent_on_next_to_nothing() -> None:
    claims = [Claimant(saves=1e-4), Claimant(seconds=1e-4, saves=1e-3)]
    assert choose(claims, TIME) is None
    assert choose(claims, TRIALS) == 0
    assert choose(claims, Budget(600.0, 10**6)) is not None
    assert choose([*claims, Claimant(batches=0)], TIME) == 2


def test_meter_of_trials() -> None:
    meter = Meter(Budget(trials=10))
    assert meter.affordable(8, 1.0) == 8
    meter.trials = 7
    assert meter.affordable(8, 1.0) == 3
    assert not meter.spent
    meter.trials = 10
    assert meter.spent


def test_meter_of_seconds() -> None:
    now = [100.0]
    meter = Meter(Budget(seconds=10.0), lambda: now[0])
    assert meter.affordable(8, 0.0) == 8
    now[0] = 107.0
    assert meter.elapsed == 7
    assert meter.affordable(8, 1.0) == 3
    assert meter.affordable(8, 5.0) == 1  # the last trial may end a little late
    now[0] = 110.0
    assert meter.spent
    assert Meter(Budget(seconds=10.0, trials=0)).spent
    assert not Meter(Budget()).spent


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("1m30s", 90.0),
        (" 1M 30S ", 90.0),
        ("1.5min", 90.0),
        ("1h", 3600.0),
        ("1h2m3s", 3723.0),
        ("1d", 86400.0),
        (".5m", 30.0),
        ("2 hours 1 minute", 7260.0),
        (90, 90.0),
        (0.5, 0.5),
        (np.float32(1.5), 1.5),
        (np.int64(3), 3.0),
        (timedelta(minutes=1, seconds=30), 90.0),
    ],
)
def test_times(given: str | float | timedelta, seconds: float) -> None:
    assert read_seconds(given) == seconds
    assert Budget.of(given) == Budget(seconds)
    assert Budget.of(given, 3) == Budget(seconds, 3)


@pytest.mark.parametrize(
    "given",
    [
        *("", "0", "0s", "-1", "-1s", "soon", "1x", "1m30", "30s1m", "1s1s", "1e3", "nan", "1:30"),
        *("1" * 400 + "s", 0, -1.0, float("nan"), float("inf"), True, timedelta(0), b"1s", [1], 1j),
    ],
)
def test_no_times(given: object) -> None:
    with pytest.raises(TuningError, match="is no time; write 90s, 10m"):
        read_seconds(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("trials", [-1, 1.5, True, "3"])
def test_no_trials(trials: object) -> None:
    with pytest.raises(TuningError, match="is no number of trials"):
        Budget.of(None, trials)  # type: ignore[arg-type]


def test_budgets_of_budgets() -> None:
    assert Budget.of() == Budget(600.0)
    assert Budget.of(None, 8) == Budget(None, 8)
    assert Budget.of(Budget(5.0, 7)) == Budget(5.0, 7)
    assert Budget.of(Budget(5.0, 7), 8) == Budget(5.0, 8)


def test_deadlines() -> None:
    now = [10.0]
    deadline = Deadline(12.0, lambda: now[0])
    assert deadline.left == 2.0
    assert deadline.allows(2.0)
    now[0] = 12.5
    assert not deadline.allows(0)
    assert Deadline().left is None
    assert Deadline().allows(1e9)
