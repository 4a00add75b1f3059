"""Tasks of small models, and something that measures them by a table, not by a clock."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import planish
from planish.autotune.log import Header, LogWriter, TuningLog
from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.task import task_digest
from planish.autotune.measure.intervals import Interval
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Candidate, Incumbent, Result, Status, Timing
from planish.autotune.search.cost_model import CostModel
from planish.autotune.search.tasks import Task, make_tasks
from planish.autotune.search.tuner import Means
from planish.ir.graph import Node
from planish.logged_schedules import fuse_kernels, hardware_of
from tests.autotune_log.logged_model import HOST
from tests.compiler.small_models import perceptron


@functools.cache
def tasks_of_perceptron() -> tuple[Task, ...]:
    """Two matrix products, and a kernel that computes the first once more."""
    with tempfile.TemporaryDirectory() as folder:
        graph = planish.import_model(perceptron(Path(folder, "small.onnx"), batch=12))
        first, second = fuse_kernels(graph, HOST)
    return make_tasks([first, second, first], HOST)


def seconds_of(task: Task, point: int) -> float:
    """A made-up time: the analytic model is right but for what hashing a point adds."""
    luck = (point * 2654435761 + int(task.digest[:4], 16)) % 97 / 97
    return 1e-6 * (1 + luck + 3 * (point % 5 == 1))


def optimum(task: Task) -> float:
    """The least time that can be found."""
    points = range(task.lattice.size)
    return min(seconds_of(task, p) for p in points if not TableMeasurer.fails(p))


@dataclass
class TableMeasurer:
    """Tells made-up times; every seventh point crashes but the default.

    `asked` has the digest and point of each trial. `stop_after` trials it is interrupted.
    """

    tasks: Sequence[Task]
    stop_after: int = 10**9
    noisy_defaults: int = 0
    asked: list[tuple[str, int]] = field(default_factory=list)

    @staticmethod
    def fails(point: int) -> bool:
        """Points that crash."""
        return point % 7 == 3

    def measure(
        self, problem: Problem, candidates: Sequence[Candidate], incumbent: Incumbent | None = None
    ) -> Iterator[Result]:
        """The results in the order of the candidates."""
        for candidate in candidates:
            if len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            task = self._task_of(candidate)
            point = int(candidate.id)
            self.asked.append((task.digest, point))
            if self.fails(point) and point != task.lattice.default:
                yield Result(candidate.id, Status.CRASH, "running it: killed by SIGSEGV")
                continue
            yield self._timed(task, point, incumbent)

    def _timed(self, task: Task, point: int, incumbent: Incumbent | None) -> Result:
        seconds = seconds_of(task, point)
        status = Status.OK
        if point == task.lattice.default and self.noisy_defaults > 0:
            self.noisy_defaults -= 1
            status = Status.NOISY
        ratio = None
        if incumbent is not None:
            ratio = _around(seconds / incumbent.seconds)
        timing = Timing(_around(seconds), (seconds,) * 4, 1, (1.0,) * 4 if ratio else (), ratio)
        return Result(str(point), status, "", timing)

    def _task_of(self, candidate: Candidate) -> Task:
        digest = task_digest(candidate.kernel)
        return next(task for task in self.tasks if task.digest == digest)


def _around(median: float) -> Interval:
    return Interval(median, 0.99 * median, 1.01 * median)


def problem_of(kernel: Node) -> Problem:
    """No data: nothing is run."""
    return Problem(kernel.where(), (), ())


def means_for(
    log: Path,
    measurer: TableMeasurer,
    hardware: Fingerprint | None = None,
    **more: object,
) -> Means:
    """What `tune` works with; a log that is there is known."""
    known = TuningLog.read([log]) if log.exists() else None
    writer = LogWriter(log, Header.of(hardware or hardware_of(HOST)))
    given = {"known": known, "model": CostModel(), **more}
    return Means(measurer, writer, problem_of, **given)  # type: ignore[arg-type]
