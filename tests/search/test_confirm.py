"""Winners are measured again: luck does not last, and what the log then says is what is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from planish.autotune.log import TuningLog
from planish.autotune.measure.intervals import Interval
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Candidate, Incumbent, Result, Status
from planish.autotune.search import Budget, Means, Tuning, confirm, tune
from planish.autotune.search.tasks import Task
from planish.logged_schedules import hardware_of
from tests.autotune_log.logged_model import HOST
from tests.search.kernels import TableMeasurer, means_for, optimum, seconds_of, tasks_of_perceptron

TASKS = tasks_of_perceptron()
LUCKY = 0.5


def lucky_point(task: Task) -> int:
    """A point far from the optimum."""
    points = (p for p in range(task.lattice.size) if not TableMeasurer.fails(p))
    slow = [p for p in points if seconds_of(task, p) > 1.5 * optimum(task)]
    return next(point for point in slow if point != task.lattice.default)


class LuckyOnce(TableMeasurer):
    """One point of each task takes a fraction of its time when it is first measured.

    No two times of a point are quite the same: equal lines of a log are one record.
    """

    def measure(
        self, problem: Problem, candidates: Sequence[Candidate], incumbent: Incumbent | None = None
    ) -> Iterator[Result]:
        """The table's results but for that one."""
        for result in super().measure(problem, candidates, incumbent):
            digest, point = self.asked[-1]
            task = next(task for task in self.tasks if task.digest == digest)
            first = self.asked.count((digest, point)) == 1
            if result.timing is None:
                yield result
                continue
            lucky = point == lucky_point(task) and first
            seconds = LUCKY * optimum(task) if lucky else seconds_of(task, point)
            seconds *= 1 + 1e-3 * self.asked.count((digest, point))
            around = Interval(seconds, 0.99 * seconds, 1.01 * seconds)
            timing = dataclasses.replace(result.timing, seconds=around)
            yield dataclasses.replace(result, timing=timing)


def tuned(log: Path, measurer: TableMeasurer) -> tuple[Tuning, Means]:
    """All points measured once."""
    means = means_for(log, measurer)
    return tune(TASKS, HOST, Budget(trials=10**6), means), means


def best_times(log: Path) -> list[float | None]:
    """What a lookup finds for each task."""
    known, here = TuningLog.read([log]), hardware_of(HOST)
    found = (known.best(task.digest, task.space, here, HOST.cores) for task in TASKS)
    return [None if best is None else best.record.trial.median for best in found]


def test_luck_does_not_win(tmp_path: Path) -> None:
    measurer = LuckyOnce(TASKS)
    before, means = tuned(tmp_path / "log", measurer)
    lucky = [pytest.approx(LUCKY * optimum(task), rel=1e-2) for task in TASKS]
    assert best_times(tmp_path / "log") == lucky
    asked = len(measurer.asked)
    after = confirm(before, TASKS, HOST, means, None)
    true = [pytest.approx(optimum(task), rel=1e-2) for task in TASKS]
    assert best_times(tmp_path / "log") == true
    assert [standing.best for standing in after.standings] == true
    for task, standing in zip(TASKS, after.standings):
        winner = task.lattice.find(standing.point)
        assert winner is not None
        assert seconds_of(task, winner) == optimum(task)
        again = [point for digest, point in measurer.asked[asked:] if digest == task.digest]
        assert sorted(again) == sorted([lucky_point(task)] * 2 + [winner] * 2)
    assert after.trials == before.trials + 4 * len(TASKS)
    # What is confirmed is not measured again.
    assert confirm(after, TASKS, HOST, means, None).trials == after.trials


def test_winner_that_fails_now_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measurer = TableMeasurer(TASKS)
    before, means = tuned(tmp_path / "log", measurer)
    first = [task.lattice.find(standing.point) for task, standing in zip(TASKS, before.standings)]
    monkeypatch.setattr(TableMeasurer, "fails", staticmethod(lambda point: point in first))
    after = confirm(before, TASKS, HOST, means, None)
    for task, standing, failed in zip(TASKS, after.standings, first):
        assert task.lattice.find(standing.point) not in (None, failed)
    kinds = [r.trial.result for r in TuningLog.read([tmp_path / "log"]).records[before.trials :]]
    assert sum(getattr(result, "kind", "") == "crash" for result in kinds) >= len(TASKS)


def test_noise_without_end_comes_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, means = tuned(tmp_path / "log", TableMeasurer(TASKS))
    timed = TableMeasurer._timed

    def noisy(*arguments: object) -> Result:
        return dataclasses.replace(timed(*arguments), status=Status.NOISY)  # type: ignore[arg-type]

    monkeypatch.setattr(TableMeasurer, "_timed", noisy)
    after = confirm(before, TASKS, HOST, means, None)
    assert after.trials == before.trials + 12 * len(TASKS)
    assert [s.best for s in after.standings] == [pytest.approx(optimum(t), rel=1e-3) for t in TASKS]


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_time_is_kept(seconds: float, tmp_path: Path) -> None:
    measurer = TableMeasurer(TASKS)
    before, means = tuned(tmp_path / "log", measurer)
    asked = len(measurer.asked)
    clock = lambda: float(len(measurer.asked))  # noqa: E731
    after = confirm(before, TASKS, HOST, dataclasses.replace(means, clock=clock), seconds)
    assert after.trials - before.trials == len(measurer.asked) - asked == seconds
    stopped = TableMeasurer(TASKS, stop_after=1)
    ended = confirm(before, TASKS, HOST, dataclasses.replace(means, measurer=stopped), None)
    assert ended.interrupted
    assert confirm(ended, TASKS, HOST, means, None).trials == ended.trials
