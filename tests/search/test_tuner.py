"""Tuning with made-up times: what is measured, told, logged, and never measured again."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

from planish.autotune.log import Failure, LogWriter, TuningLog
from planish.autotune.measure.results import Incumbent, Result
from planish.autotune.search import Budget, Limit, Task, Tuning, tune
from planish.autotune.search.logged import groups_of, logged_kernels, own_groups
from planish.autotune.search.task_search import seed_points
from planish.autotune.spaces import space_of
from planish.ir.errors import TuningError
from planish.ir.graph import Node
from planish.logged_schedules import hardware_of
from tests.autotune_log.logged_model import HOST, sister, stranger
from tests.search.kernels import (
    TableMeasurer,
    means_for,
    optimum,
    problem_of,
    seconds_of,
    tasks_of_perceptron,
)

TASKS = tasks_of_perceptron()
ALL = Budget(trials=10**6)


def points_of(log: Path) -> list[tuple[str, tuple[tuple[str, object], ...]]]:
    """The task and point of each trial in a log."""
    return [(r.trial.task, r.trial.point) for r in TuningLog.read([log]).records]


def test_finds_the_optimum_and_the_log_has_every_trial(tmp_path: Path) -> None:
    measurer = TableMeasurer(TASKS)
    found = tune(TASKS, HOST, ALL, means_for(tmp_path / "log", measurer))
    assert not found.interrupted
    assert found.trials == len(measurer.asked) == sum(task.lattice.size for task in TASKS)
    assert len(set(measurer.asked)) == found.trials
    log = TuningLog.read([tmp_path / "log"])
    assert len(log.records) == found.trials
    for task, standing in zip(TASKS, found.standings):
        default = seconds_of(task, task.lattice.default)
        assert standing.default == pytest.approx(default)
        # Beyond the noise of one per cent on either side.
        assert standing.best is not None
        assert optimum(task) * 0.999 <= standing.best <= optimum(task) * 1.03
        assert task.lattice.find(standing.point) is not None
        best = log.best(task.digest, task.space, hardware_of(HOST), HOST.cores)
        assert best is not None
        assert best.record.trial.median == pytest.approx(optimum(task), rel=1e-3)
        assert standing.failures == sum(
            point % 7 == 3 and point != task.lattice.default for point in range(task.lattice.size)
        )
    crashes = [r for r in log.records if isinstance(r.trial.result, Failure)]
    assert {r.trial.result.kind for r in crashes} == {"crash"}  # type: ignore[union-attr]
    assert found.best < found.default
    assert found.best == pytest.approx(sum(s.count * (s.best or 0) for s in found.standings))
    assert {s.count for s in found.standings} == {1, 2}


def test_defaults_come_first_and_every_task_gets_a_batch(tmp_path: Path) -> None:
    measurer = TableMeasurer(TASKS)
    tune(TASKS, HOST, Budget(trials=2 + 8 * len(TASKS)), means_for(tmp_path / "log", measurer))
    defaults = {(task.digest, task.lattice.default) for task in TASKS}
    assert set(measurer.asked[: len(TASKS)]) == defaults
    batches = measurer.asked[len(TASKS) :: 8]
    assert {digest for digest, _ in batches} == {task.digest for task in TASKS}


def test_budget_of_trials_is_kept_to_the_trial(tmp_path: Path) -> None:
    for trials in (0, 1, 13):
        measurer = TableMeasurer(TASKS)
        log = tmp_path / f"log{trials}"
        found = tune(TASKS, HOST, Budget(trials=trials), means_for(log, measurer))
        assert found.trials == len(measurer.asked) == trials


def test_budget_of_seconds(tmp_path: Path) -> None:
    measurer = TableMeasurer(TASKS)
    clock = lambda: 0.5 * len(measurer.asked)  # noqa: E731
    found = tune(TASKS, HOST, Budget(8.0), means_for(tmp_path / "log", measurer, clock=clock))
    assert found.trials == 16
    assert found.left == 0


def test_resuming_measures_nothing_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first, second = TableMeasurer(TASKS), TableMeasurer(TASKS)
    half = tune(TASKS, HOST, Budget(trials=21), means_for(log, first))
    rest = tune(TASKS, HOST, ALL, means_for(log, second))
    assert not set(first.asked) & set(second.asked)
    assert half.trials + rest.trials == sum(task.lattice.size for task in TASKS)
    assert len(set(points_of(log))) == len(points_of(log))
    assert sum(s.known for s in rest.standings) == 21
    assert rest.best <= half.best
    again = TableMeasurer(TASKS)
    assert tune(TASKS, HOST, ALL, means_for(log, again)).trials == 0
    assert again.asked == []


@pytest.mark.parametrize("after", [0, 1, 2, 9, 20])
def test_interrupt_keeps_what_is_there(after: int, tmp_path: Path) -> None:
    measurer = TableMeasurer(TASKS, stop_after=after)
    found = tune(TASKS, HOST, ALL, means_for(tmp_path / "log", measurer))
    assert found.interrupted
    assert found.trials == after == len(points_of(tmp_path / "log") if after else [])
    assert (found.best > 0) == (after > 0)


def test_same_seed_same_trials(tmp_path: Path) -> None:
    asked = []
    for run, seed in enumerate((0, 0, 1)):
        measurer = TableMeasurer(TASKS)
        means = means_for(tmp_path / f"log{run}", measurer)
        tune(TASKS, HOST, Budget(trials=120), means, seed)
        asked.append(measurer.asked)
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_records_of_other_hardware_are_seeds_and_never_results(tmp_path: Path) -> None:
    for hardware in (sister(), stranger()):
        log = tmp_path / f"log of {hardware.l2} {hardware.stepping}"  # type: ignore[union-attr]
        there = TableMeasurer(TASKS)
        tune(TASKS, HOST, ALL, means_for(log, there, hardware))
        here = TableMeasurer(TASKS)
        found = tune(TASKS, HOST, Budget(trials=2 + 8 * len(TASKS)), means_for(log, here))
        assert sum(s.known for s in found.standings) == 0
        assert found.trials == 2 + 8 * len(TASKS)
        for task, standing in zip(TASKS, found.standings):
            assert standing.best == pytest.approx(optimum(task), rel=0.03)


def test_seeds_were_faster_than_the_default_elsewhere(tmp_path: Path) -> None:
    tune(TASKS, HOST, ALL, means_for(tmp_path / "log", TableMeasurer(TASKS), stranger()))
    log = TuningLog.read([tmp_path / "log"])
    for task in TASKS:
        seconds = [seconds_of(task, point) for point in range(task.lattice.size)]
        found = seed_points(task, log, hardware_of(HOST), HOST)
        ahead = [
            point
            for point in sorted(range(task.lattice.size), key=seconds.__getitem__)
            if seconds[point] < seconds[task.lattice.default] and not TableMeasurer.fails(point)
        ]
        assert found == ahead[:3]


def test_other_devices_teach_the_model(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tune(TASKS[:1], HOST, ALL, means_for(log, TableMeasurer(TASKS), stranger()))
    tune(TASKS, HOST, Budget(trials=20), means_for(log, TableMeasurer(TASKS)))
    known, here = TuningLog.read([log]), hardware_of(HOST)
    taught = list(groups_of(known, TASKS, here, HOST))
    assert [len(group.seconds) for group in taught] == [TASKS[0].lattice.size]
    assert any(map(math.isinf, taught[0].seconds.values()))
    own = own_groups(known, TASKS, here, HOST)
    assert sum(len(group.seconds) for group in own) == 20
    # Another model's tuner knows neither kernel, and learns from both.
    foreign = list(groups_of(known, [], here, HOST))
    assert len(foreign) == 3
    kernels = logged_kernels(known)
    assert kernels.keys() == {task.digest for task in TASKS}
    for task in TASKS:
        assert space_of(kernels[task.digest]) is task.space


def test_noisy_default_is_tried_again(tmp_path: Path) -> None:
    measurer = TableMeasurer(TASKS[:1], noisy_defaults=2)
    found = tune(TASKS[:1], HOST, Budget(trials=4), means_for(tmp_path / "log", measurer))
    default = (TASKS[0].digest, TASKS[0].lattice.default)
    assert measurer.asked[:3] == [default] * 3
    assert found.standings[0].default == seconds_of(TASKS[0], TASKS[0].lattice.default)
    failed = [r for r in TuningLog.read([tmp_path / "log"]).records if r.trial.median is None]
    assert {r.trial.result.kind for r in failed} >= {"noisy"}  # type: ignore[union-attr]


def test_noisy_points_are_measured_again_when_resumed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    noisy = TableMeasurer(TASKS[:1], noisy_defaults=3)
    tune(TASKS[:1], HOST, Budget(trials=3), means_for(log, noisy))
    again = TableMeasurer(TASKS[:1])
    tune(TASKS[:1], HOST, Budget(trials=1), means_for(log, again))
    assert again.asked == noisy.asked[:1]


def test_task_that_cannot_be_measured_is_left_alone(tmp_path: Path) -> None:
    def refuse(kernel: Node) -> None:
        if kernel is TASKS[0].kernel:
            raise TuningError("it holds a custom op")
        return problem_of(kernel)  # type: ignore[return-value]

    measurer = TableMeasurer(TASKS)
    means = dataclasses.replace(means_for(tmp_path / "log", measurer), problem_of=refuse)
    found = tune(TASKS, HOST, ALL, means)
    assert found.standings[0].note == "it holds a custom op"
    assert found.standings[0].trials == 0
    assert found.standings[1].trials == TASKS[1].lattice.size
    assert found.curve[-1].seconds == pytest.approx(found.best)


def test_log_that_cannot_be_written_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurer = TableMeasurer(TASKS)
    means = means_for(tmp_path / "log", measurer)
    written = LogWriter.append

    def full(self: LogWriter, trial: object) -> None:
        if len(measurer.asked) == 5:
            raise TuningError("tuning log cannot be written: No space left on device")
        written(self, trial)  # type: ignore[arg-type]

    monkeypatch.setattr(LogWriter, "append", full)
    with pytest.raises(TuningError, match="No space left on device"):
        tune(TASKS, HOST, ALL, means)
    assert len(points_of(tmp_path / "log")) == 4


def test_first_time_of_a_default_may_have_been_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later, both sides of each trial take half of what the first one said."""
    timed = TableMeasurer._timed

    def quicker(self: TableMeasurer, task: Task, point: int, incumbent: Incumbent | None) -> Result:
        result = timed(self, task, point, incumbent)
        if incumbent is None or result.timing is None:
            return result
        samples = (0.5 * incumbent.seconds,) * 4
        return dataclasses.replace(
            result, timing=dataclasses.replace(result.timing, incumbent=samples)
        )

    monkeypatch.setattr(TableMeasurer, "_timed", quicker)
    found = tune(TASKS, HOST, ALL, means_for(tmp_path / "log", TableMeasurer(TASKS)))
    for task, standing in zip(TASKS, found.standings):
        assert standing.default == pytest.approx(0.5 * seconds_of(task, task.lattice.default))
        assert standing.best == pytest.approx(0.5 * optimum(task), rel=0.03)
    # The log's times are on one scale, that of the first.
    log, here = TuningLog.read([tmp_path / "log"]), hardware_of(HOST)
    for task in TASKS:
        best = log.best(task.digest, task.space, here, HOST.cores)
        assert best is not None
        assert best.record.trial.median == pytest.approx(optimum(task), rel=1e-3)


def test_observer_sees_times_fall(tmp_path: Path) -> None:
    seen: list[Tuning] = []
    limits = {TASKS[0].digest: Limit(1e-7, "compute")}
    means = means_for(tmp_path / "log", TableMeasurer(TASKS), observer=seen.append, limits=limits)
    tune(TASKS, HOST, Budget(trials=34), means)
    assert [t.trials for t in seen] == sorted(t.trials for t in seen)
    assert {t.current for t in seen} == {task.digest for task in TASKS}
    last = seen[-1]
    assert sum(last.share(s) for s in last.standings) == pytest.approx(1)
    assert last.standings[0].achieved == pytest.approx(1e-7 / (last.standings[0].best or 0))
    assert last.standings[1].achieved is None
    for standing in last.standings:
        times = [step.seconds for step in standing.curve]
        assert times == sorted(times, reverse=True)
    assert [step.seconds for step in last.curve] == sorted(
        (step.seconds for step in last.curve), reverse=True
    )
    assert re.fullmatch(r"\w+(\+\w+)* float32\[.*\]", last.standings[0].about)
