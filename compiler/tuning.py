"""`planish.tune`: measures a model's kernels, and ships what is then faster than the defaults."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from planish.artefact.format import read_manifest
from planish.artefact.loading import load
from planish.artefact.writing import beside, check_replaceable, copy_artefact
from planish.autotune.log.lookup import TuningLog
from planish.autotune.log.race import Race
from planish.autotune.log.store import LogSource, open_log, written_path
from planish.autotune.measure.measurer import Measurer
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem, make_problem
from planish.autotune.search.assess import Quality, assess
from planish.autotune.search.budget import Budget, Deadline
from planish.autotune.search.confirm import confirm
from planish.autotune.search.cost_model import CostModel
from planish.autotune.search.features import work_of
from planish.autotune.search.logged import groups_of, own_groups
from planish.autotune.search.standing import Tuning
from planish.autotune.search.task_search import Limit
from planish.autotune.search.tasks import Task, make_tasks
from planish.autotune.search.tuner import Means, Observer, unmeasured
from planish.autotune.search.tuner import tune as tune_tasks
from planish.bench.peaks import Peaks, measure_peaks
from planish.deciding import Costs, Decision, decide
from planish.driver import CompileReport, Progress, compile
from planish.ir.errors import TuningError
from planish.ir.graph import Constant, Graph, Node
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.logged_schedules import fuse_kernels, hardware_of
from planish.measuring import BACKEND
from planish.targets.hardware import find_target, usable_cores
from planish.tuning_job import Job
from planish.verify import model_inputs

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source

#: Part of the time for measuring that goes to measuring winners again.
_CONFIRMING = 0.1
#: Part of the time for measuring that a batch may spend on waiting for a quiet machine.
_WAITING = 0.02
#: Seconds below which measuring is not begun: the machine's peaks and the workers' start take them.
_LEAST_MEASURING = 4.0
#: Seconds that the figures of the cost model may take at the end.
_ASSESSING = 3.0


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a tuning did.

    `compiled` is of the artefact that was put in place, with the tuned schedules if `tuned`. `race`
    is None where both artefacts are the same code, or there was no time for a second; `others` is
    how many CPUs other processes used during it. `quality` is of the cost model on held-out tasks;
    None where too few were measured, or time was up. `elapsed` are the seconds of the whole tuning,
    compilations and races included, of those that `budget` allowed. `note` says what was left out
    for want of time.
    """

    tuning: Tuning
    compiled: CompileReport
    tuned: bool
    race: Race | None
    others: float
    quality: Quality | None
    log: Path
    budget: Budget = field(default_factory=Budget)
    elapsed: float = 0.0
    note: str = ""

    @property
    def before(self) -> float | None:
        """Median latency in seconds of the untuned model; None if it was not raced."""
        return None if self.race is None else self.race.untuned

    @property
    def after(self) -> float | None:
        """That of what was put in place, measured in turn with the untuned one."""
        if self.race is None:
            return None
        return self.race.tuned if self.tuned else self.race.untuned

    @property
    def verdict(self) -> str:
        """A sentence on what was shipped."""
        if self.compiled.log is not None and self.compiled.log.lost is not None:
            return f"{self.compiled.log.why_lost}; the artefact is as untuned"
        if self.race is None and self.note:
            return f"{self.note}; the artefact is as untuned"
        if self.race is None:
            return "no kernel has a better schedule than its default; the artefact is as untuned"
        speed = f"{self.race.speed:.3f} times as fast as untuned"
        if self.tuned and self.compiled.log is not None and self.compiled.log.left:
            left = len(self.compiled.log.left)
            kernels = f"{left} kernel{'s' if left > 1 else ''}"
            return f"the tuned artefact, with {kernels} left untuned, is {speed}"
        if self.tuned:
            return f"the tuned artefact is {speed}"
        return f"the tuned artefact is only {speed}, so the untuned one was put in place"


def tune(
    model: Source,
    output: str | os.PathLike[str],
    *,
    budget: str | float | timedelta | Budget | None = None,
    trials: int | None = None,
    target: str | Target = "host",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
    threads: int | None = None,
    log: str | os.PathLike[str] | None = None,
    keep_subnormals: bool = False,
    seed: int = 0,
    options: Options | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
    begun: float | None = None,
) -> TuneReport:
    """Tunes an ONNX model on this machine, and compiles it into the artefact folder `output`.

    `budget` is how long the whole call may take, compilations, verification and races included:
    "60s", "1m30s", a number of seconds or a timedelta (default: ten minutes, unless there are
    `trials`). It counts from `begun`, a time.monotonic() (default: now). `trials` limits how many
    schedules are measured. Where a budget is too short for it, nothing is measured, and the
    artefact is as untuned.

    Trials are appended to `log` (default: the user's store), and what it holds of this hardware is
    not measured again. KeyboardInterrupt while measuring ends it early. Both artefacts, with logged
    and with default schedules, are verified and then timed in turn: the tuned one is put in place
    only if it is not slower. Tasks whose kernels lose time in the model keep their defaults, if the
    model is then faster. `keep_subnormals` is as for `compile`.

    Raises TuningError if the target is not this machine, the budget is none or the log cannot be
    written, and what `compile` raises.
    """
    begun = time.monotonic() if begun is None else begun
    allowed = Budget.of(budget, trials)
    at = None if allowed.seconds is None else begun + allowed.seconds
    deadline = Deadline(at, time.monotonic)
    folder = Path(output)
    check_replaceable(folder)
    chosen = find_target(target) if isinstance(target, str) else target
    chosen = chosen if threads is None else dataclasses.replace(chosen, cores=threads)
    path = written_path() if log is None else Path(log)
    told = progress or _silent
    if keep_subnormals:
        options = dataclasses.replace(options or Options(), keep_subnormals=True)
    graph = import_model(model, dims=dims, shapes=shapes)
    job = Job(graph, chosen, hardware_of(chosen), path, log is None, seed, deadline)
    _check(job)

    def build(place: Path, source: LogSource) -> CompileReport:
        return compile(
            model, place, target=chosen, dims=dims, shapes=shapes, name=name, log=source,
            keep_subnormals=keep_subnormals, progress=progress,
        )  # fmt: skip

    with beside(folder) as work:
        places = [work.with_name(f"{work.name}-{i}") for i in range(3)]
        # First, so that there is something to ship whenever time is up, and that it is known how
        # long the tuned one will take.
        start = time.monotonic()
        plain = build(places[0], False)
        costs = Costs(time.monotonic() - start, _latency(plain, graph))
        try:
            told("optimise", 0, 0)
            kernels = fuse_kernels(graph, chosen)
            tasks = make_tasks(kernels, chosen)
            means = _Means(kernels, tasks, allowed, options, observer, told)
            tuning, decision = _tune(job, plain, build, places[1:], costs, means)
        except KeyboardInterrupt:
            tuning = Tuning((), 0, 0.0, None, (), interrupted=True)
            decision = Decision(plain, note="interrupted before anything was measured")
        _put(decision.compiled.output, folder)
        quality = _quality(job, tasks) if tuning.trials and deadline.allows(_ASSESSING) else None
    return TuneReport(
        tuning,
        dataclasses.replace(decision.compiled, output=folder),
        decision.tuned,
        decision.race,
        decision.others,
        quality,
        path,
        allowed,
        time.monotonic() - begun,
        decision.note,
    )


def _check(job: Job) -> None:
    """TuningError for what is found out before the long part: another machine, a log that cannot
    be written."""
    if not job.hardware.is_identified:
        raise TuningError(
            f"target '{job.target.name}' is not this machine, so its kernels cannot be measured "
            "here; tune on such a machine, and bring its log with `planish log merge`"
        )
    job.open_writer().close()


def _latency(plain: CompileReport, graph: Graph) -> float:
    """About what a run of the model takes, in seconds; only to plan with."""
    inputs = model_inputs(graph, 0)
    with load(plain.output, threads=plain.target.cores) as model:
        model.run(inputs)
        start = time.monotonic()
        model.run(inputs)
        return time.monotonic() - start


@dataclass(frozen=True, slots=True)
class _Means:
    """What is measured, for how long, how, and who is told."""

    kernels: Sequence[Node]
    tasks: Sequence[Task]
    budget: Budget
    options: Options | None
    observer: Observer | None
    progress: Progress


def _tune(
    job: Job,
    plain: CompileReport,
    build: Callable[[Path, LogSource], CompileReport],
    places: Sequence[Path],
    costs: Costs,
    means: _Means,
) -> tuple[Tuning, Decision]:
    """Measures, builds and decides, as far as there is time."""
    left = job.deadline.left
    if left is not None and left < costs.least:
        note = (
            f"the budget of {means.budget.seconds:.3g} s is too short to measure anything: to "
            f"compile and verify the model took {costs.build:.3g} s, and to do so again and race "
            f"the two would take {costs.least:.0f} s more"
        )
        return unmeasured(means.tasks), Decision(plain, note=note)
    measuring = None if left is None else left - costs.reserve(left)
    if measuring is not None and measuring < _LEAST_MEASURING:
        tuning = unmeasured(means.tasks)
    else:
        tuning = _measure(job, means, measuring)
    return tuning, decide(job, plain, build, places, costs, means.progress)


def _measure(job: Job, means: _Means, seconds: float | None) -> Tuning:
    """Tunes the tasks for so many seconds, from now on."""
    until = Deadline(None if seconds is None else time.monotonic() + seconds)
    limits = _limits(means.tasks, job.target, means.progress)
    with job.open_writer() as writer:
        means.progress("start measuring", 0, 0)
        with Measurer(BACKEND, job.target, _patience(means.options, seconds)) as measurer:
            known, model = open_log(job.sources), CostModel(job.seed)
            problems = _problems(means.kernels, job.seed)
            measures = Means(measurer, writer, problems, known, limits, model, means.observer)
            searching = dataclasses.replace(means.budget, seconds=None)
            if seconds is not None and until.left is not None:
                left = max(0.0, until.left - _CONFIRMING * seconds)
                searching = dataclasses.replace(means.budget, seconds=left)
            tuning = tune_tasks(means.tasks, job.target, searching, measures, job.seed)
            means.progress("measure winners again", 0, 0)
            return confirm(tuning, means.tasks, job.target, measures, until.left)


def _patience(options: Options | None, seconds: float | None) -> Options | None:
    """The options, but on a busy machine a short time is not spent on waiting for quiet."""
    if seconds is None:
        return options
    chosen = options or Options()
    return dataclasses.replace(chosen, patience=min(chosen.patience, _WAITING * seconds))


def _quality(job: Job, tasks: Sequence[Task]) -> Quality | None:
    """What the log now knows of the cost model."""
    log = TuningLog.read([job.path])
    own = own_groups(log, tasks, job.hardware, job.target)
    others = list(groups_of(log, tasks, job.hardware, job.target))
    return assess(own, others, job.seed)


def _problems(kernels: Sequence[Node], seed: int) -> Callable[[Node], Problem]:
    """Makes problems whose weights are as cold as in the whole model."""
    constants = {
        value: value.type.nbytes
        for kernel in kernels
        for value in kernel.inputs
        if isinstance(value, Constant)
    }
    weights = sum(constants.values())
    return lambda kernel: make_problem(kernel, BACKEND, seed=seed, model_weights=weights)


def _limits(tasks: Sequence[Task], target: Target, progress: Progress) -> dict[str, Limit]:
    """The rooflines of the tasks on this machine."""
    threads = min(target.cores, usable_cores())
    peaks = measure_peaks(threads, progress)
    return {task.digest: roofline(task.kernel, peaks, threads) for task in tasks}


def roofline(kernel: Node, peaks: Peaks, threads: int) -> Limit:
    """The least time that the machine's peaks leave a kernel; see bench/roofline.py."""
    flops, moved = work_of(kernel)
    level = peaks.level_of(int(moved), threads).name
    computing, moving = flops / peaks.flops[threads], moved / peaks.reading(level, threads).rate
    return Limit(max(computing, moving), "compute" if computing > moving else "memory")


def _put(staging: Path, folder: Path) -> None:
    """Writes the artefact to its place."""
    copy_artefact(staging, folder, read_manifest(staging))


def _silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
