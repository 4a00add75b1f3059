"""`planish.tune`: measures a model's kernels, and ships what is then faster than the defaults."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planish.artefact.format import WEIGHTS, read_manifest
from planish.artefact.writing import check_replaceable, write_artefact
from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.lookup import TuningLog
from planish.autotune.log.race import Race
from planish.autotune.log.record import Header
from planish.autotune.log.store import LogSource, open_log, written_path
from planish.autotune.log.writing import LogWriter
from planish.autotune.measure.measurer import Measurer
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem, make_problem
from planish.autotune.search.assess import Quality, assess
from planish.autotune.search.budget import Budget
from planish.autotune.search.confirm import confirm
from planish.autotune.search.cost_model import CostModel
from planish.autotune.search.features import work_of
from planish.autotune.search.logged import groups_of, own_groups
from planish.autotune.search.standing import Tuning
from planish.autotune.search.task_search import Limit
from planish.autotune.search.tasks import Task, make_tasks
from planish.autotune.search.tuner import Means, Observer
from planish.autotune.search.tuner import tune as tune_tasks
from planish.bench.peaks import Peaks, measure_peaks
from planish.driver import CompileReport, Progress, compile
from planish.ir.errors import TuningError
from planish.ir.graph import Constant, Graph, Node
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.logged_schedules import fuse_kernels, hardware_of
from planish.measuring import BACKEND
from planish.racing import losing_tasks, race_artefacts
from planish.targets.hardware import find_target, usable_cores

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source

#: Part of a budget in seconds for measuring winners again.
_CONFIRMING = 0.1


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a tuning did.

    `compiled` is of the artefact that was put in place, with the tuned schedules if `tuned`. `race`
    is None where both artefacts are the same code; `others` is how many CPUs other processes used
    during it. `quality` is of the cost model on held-out tasks; None where too few were measured.
    """

    tuning: Tuning
    compiled: CompileReport
    tuned: bool
    race: Race | None
    others: float
    quality: Quality | None
    log: Path

    @property
    def verdict(self) -> str:
        """A sentence on what was shipped."""
        if self.compiled.log is not None and self.compiled.log.lost is not None:
            return f"{self.compiled.log.why_lost}; the artefact is as untuned"
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
    target: str | Target = "host",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
    threads: int | None = None,
    log: str | os.PathLike[str] | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    options: Options | None = None,
    observer: Observer | None = None,
    progress: Progress | None = None,
) -> TuneReport:
    """Tunes an ONNX model on this machine, and compiles it into the artefact folder `output`.

    Trials are appended to `log` (default: the user's store), and what it holds of this hardware is
    not measured again. `budget` limits them (default: ten minutes); KeyboardInterrupt while
    measuring ends it early. Both artefacts, with logged and with default schedules, are verified
    and then timed in turn: the tuned one is put in place only if it is not slower. Tasks whose
    kernels lose time in the model keep their defaults, if the model is then faster.

    Raises TuningError if the target is not this machine or the log cannot be written, and what
    `compile` raises.
    """
    folder = Path(output)
    check_replaceable(folder)
    chosen = find_target(target) if isinstance(target, str) else target
    chosen = chosen if threads is None else dataclasses.replace(chosen, cores=threads)
    path = written_path() if log is None else Path(log)
    told = progress or _silent
    graph = import_model(model, dims=dims, shapes=shapes)
    hardware = hardware_of(chosen)
    work = _Work(graph, chosen, hardware, path, log is None, seed)
    tuning, quality = _measure(work, budget or Budget(600.0), options, observer, told)

    def build(place: Path, source: LogSource) -> CompileReport:
        return compile(
            model, place, target=chosen, dims=dims, shapes=shapes, name=name, log=source,
            progress=progress,
        )  # fmt: skip

    with ExitStack() as stack:
        places = [stack.enter_context(_sibling(folder, f"{i}")) for i in range(3)]
        decision = _decide(work, build, places, told)
        _put(decision.compiled.output, folder)
    compiled = dataclasses.replace(decision.compiled, output=folder)
    return TuneReport(
        tuning, compiled, decision.tuned, decision.race, decision.others, quality, path
    )


@dataclass(frozen=True, slots=True)
class _Decision:
    """The artefact to ship, and the race that decided; None if there is one artefact only."""

    compiled: CompileReport
    tuned: bool = False
    race: Race | None = None
    others: float = 0.0


def _decide(
    work: _Work,
    build: Callable[[Path, LogSource], CompileReport],
    places: Sequence[Path],
    progress: Progress,
) -> _Decision:
    """Builds the model untuned and tuned, races them, and logs what compilations are to do.

    Tasks that lose time in the model are then left untuned, if that makes it faster still.
    """
    plain, best = build(places[0], False), build(places[1], work.sources)
    if plain.manifest.digest == best.manifest.digest:
        return _Decision(best)
    race, others = _race(work, plain, best, progress)
    decision = _Decision(best if race.speed >= 1 else plain, race.speed >= 1, race, others)
    races = [race]
    left = _left(work, plain, best, progress)
    if left:
        known, losing = open_log(work.sources), dataclasses.replace(race, left=left)
        assert known is not None, "the points are from somewhere"
        mixed = build(places[2], known.with_race(losing, Header.of(work.hardware)))
        if mixed.manifest.digest not in (plain.manifest.digest, best.manifest.digest):
            again, more = _race(work, plain, mixed, progress)
            races = [race, again]
            if again.speed >= max(1.0, race.speed):
                races = [losing, again]
                decision = _Decision(mixed, True, again, max(others, more))
    with work.open_writer() as writer:
        for held in races:  # compilations with this log then do as this one does
            writer.append(held)
    return decision


def _race(
    work: _Work, plain: CompileReport, best: CompileReport, progress: Progress
) -> tuple[Race, float]:
    assert best.log is not None
    return race_artefacts(
        work.graph, plain.output, best.output, best.log.points, work.target.cores, progress
    )


def _left(
    work: _Work, plain: CompileReport, best: CompileReport, progress: Progress
) -> tuple[str, ...]:
    assert best.log is not None
    return losing_tasks(
        work.graph, plain.output, best.output, best.log.kernels, work.target.cores, progress
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """What is tuned, for what, and where it is logged: `path`, of the user's store if `stored`."""

    graph: Graph
    target: Target
    hardware: Fingerprint
    path: Path
    stored: bool
    seed: int

    def open_writer(self) -> LogWriter:
        """Opens the log to append to it."""
        return LogWriter(self.path, Header.of(self.hardware))

    @property
    def sources(self) -> LogSource:
        """The logs to read."""
        return True if self.stored else [self.path] if self.path.exists() else False


def _measure(
    work: _Work,
    budget: Budget,
    options: Options | None,
    observer: Observer | None,
    progress: Progress,
) -> tuple[Tuning, Quality | None]:
    """Tunes the kernels of a graph as imported; what the log then knows of the cost model."""
    target, hardware, seed = work.target, work.hardware, work.seed
    if not hardware.is_identified:
        raise TuningError(
            f"target '{target.name}' is not this machine, so its kernels cannot be measured here; "
            "tune on such a machine, and bring its log with `planish log merge`"
        )
    progress("optimise", 0, 0)
    kernels = fuse_kernels(work.graph, target)
    tasks = make_tasks(kernels, target)
    limits = _limits(tasks, target, progress)
    searching = budget
    if budget.seconds is not None:
        searching = dataclasses.replace(budget, seconds=(1 - _CONFIRMING) * budget.seconds)
    with work.open_writer() as writer:
        progress("start measuring", 0, 0)
        with Measurer(BACKEND, target, options) as measurer:
            known, model = open_log(work.sources), CostModel(seed)
            means = Means(
                measurer, writer, _problems(kernels, seed), known, limits, model, observer
            )
            tuning = tune_tasks(tasks, target, searching, means, seed)
            progress("measure winners again", 0, 0)
            left = None if budget.seconds is None else budget.seconds - tuning.elapsed
            tuning = confirm(tuning, tasks, target, means, left)
    after = TuningLog.read([work.path])
    own = own_groups(after, tasks, hardware, target)
    others = list(groups_of(after, tasks, hardware, target))
    return tuning, assess(own, others, seed)


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


@contextmanager
def _sibling(folder: Path, label: str) -> Iterator[Path]:
    """A path beside `folder`, on its file system; what lies there is gone afterwards."""
    path = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.{label}"
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _put(staging: Path, folder: Path) -> None:
    """Writes the artefact to its place."""
    manifest = read_manifest(staging)
    size = manifest.weights_bytes
    weights = [(0, np.memmap(staging / WEIGHTS, np.uint8, mode="r").data)] if size else []
    write_artefact(
        folder,
        manifest,
        library=staging / manifest.library,
        header=staging / manifest.header,
        weights=weights,
    )


def _silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
