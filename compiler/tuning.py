"""`planish.tune`: measures a model's kernels, and ships what is then faster than the defaults."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planish.artefact.format import WEIGHTS, read_manifest
from planish.artefact.writing import check_replaceable, write_artefact
from planish.autotune.log.lookup import TuningLog
from planish.autotune.log.record import Header
from planish.autotune.log.store import open_log, written_path
from planish.autotune.log.writing import LogWriter
from planish.autotune.measure.measurer import Measurer
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem, make_problem
from planish.autotune.search.assess import Quality, assess
from planish.autotune.search.budget import Budget
from planish.autotune.search.cost_model import CostModel
from planish.autotune.search.features import work_of
from planish.autotune.search.logged import groups_of, own_groups
from planish.autotune.search.standing import Tuning
from planish.autotune.search.task_search import Limit
from planish.autotune.search.tasks import Task, make_tasks
from planish.autotune.search.tuner import Means, Observer
from planish.autotune.search.tuner import tune as tune_tasks
from planish.bench.contest import save_arrays
from planish.bench.peaks import Peaks, measure_peaks
from planish.bench.turns import foreign_load, summarise, take_turns, workers
from planish.driver import CompileReport, Progress, compile
from planish.ir.errors import TuningError
from planish.ir.graph import Constant, Graph, Node
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.logged_schedules import fuse_kernels, hardware_of
from planish.measuring import BACKEND
from planish.targets.hardware import find_target, usable_cores
from planish.verify import model_inputs

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source

#: The two artefacts at the end: turns of each, and seconds of a turn.
_ROUNDS, _TURN_SECONDS = 9, 0.3


@dataclass(frozen=True, slots=True)
class Race:
    """The tuned artefact against the untuned one, in turn.

    `tuned` and `untuned` are median latencies in seconds, `speed` the median over the rounds of
    untuned : tuned, above 1 where tuning helped; `others` CPUs that other processes used meanwhile.
    """

    tuned: float
    untuned: float
    speed: float
    others: float


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a tuning did.

    `compiled` is of the artefact that was put in place, with the tuned schedules if `tuned`. `race`
    is None where both artefacts are the same code. `quality` is of the cost model on held-out
    tasks; None where too few were measured.
    """

    tuning: Tuning
    compiled: CompileReport
    tuned: bool
    race: Race | None
    quality: Quality | None
    log: Path

    @property
    def verdict(self) -> str:
        """A sentence on what was shipped."""
        if self.race is None:
            return "no kernel has a better schedule than its default; the artefact is as untuned"
        speed = f"{self.race.speed:.3f} times as fast as untuned"
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
    and then timed in turn: the tuned one is put in place only if it is not slower.

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
    tuning, quality = _measure(
        graph, chosen, path, log is None, budget or Budget(600.0), seed, options, observer, told
    )

    def build(place: Path, logged: bool) -> CompileReport:
        source = (True if log is None else [path]) if logged else False
        return compile(
            model, place, target=chosen, dims=dims, shapes=shapes, name=name, log=source,
            progress=progress,
        )  # fmt: skip

    with _sibling(folder, "untuned") as plain, _sibling(folder, "tuned") as best:
        reports = {"untuned": build(plain, False), "tuned": build(best, True)}
        race = _race(graph, plain, best, chosen.cores, told)
        winner = "tuned" if race is None or race.speed >= 1 else "untuned"
        _put(best if winner == "tuned" else plain, folder)
    compiled = dataclasses.replace(reports[winner], output=folder)
    return TuneReport(tuning, compiled, winner == "tuned" and race is not None, race, quality, path)


def _measure(
    graph: Graph,
    target: Target,
    path: Path,
    stored: bool,
    budget: Budget,
    seed: int,
    options: Options | None,
    observer: Observer | None,
    progress: Progress,
) -> tuple[Tuning, Quality | None]:
    """Tunes the kernels of a graph as imported; what the log then knows of the cost model."""
    hardware = hardware_of(target)
    if not hardware.is_identified:
        raise TuningError(
            f"target '{target.name}' is not this machine, so its kernels cannot be measured here; "
            "tune on such a machine, and bring its log with `planish log merge`"
        )
    progress("optimise", 0, 0)
    kernels = fuse_kernels(graph, target)
    tasks = make_tasks(kernels, target)
    limits = _limits(tasks, target, progress)
    sources = True if stored else [path] if path.exists() else False
    with LogWriter(path, Header.of(hardware)) as writer:
        progress("start measuring", 0, 0)
        with Measurer(BACKEND, target, options) as measurer:
            means = Means(
                measurer,
                writer,
                _problems(kernels, seed),
                open_log(sources),
                limits,
                CostModel(seed),
                observer,
            )
            tuning = tune_tasks(tasks, target, budget, means, seed)
    known = TuningLog.read([path])
    own = own_groups(known, tasks, hardware, target)
    others = list(groups_of(known, tasks, hardware, target))
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


def _race(graph: Graph, plain: Path, best: Path, threads: int, progress: Progress) -> Race | None:
    """Both artefacts in turn, each in a process of its own; None if they are the same."""
    if read_manifest(plain).digest == read_manifest(best).digest:
        return None
    engine: tuple[str, dict[str, str]] = ("planish", {})
    with (
        tempfile.TemporaryDirectory(prefix="planish-tune-") as scratch,
        workers({"untuned": engine, "tuned": engine}) as started,
    ):
        feeds = Path(scratch, "inputs.npz")
        save_arrays(feeds, model_inputs(graph, 0))
        for label, place in (("untuned", plain), ("tuned", best)):
            model = str(place.resolve())
            started[label].ask(do="start", model=model, inputs=str(feeds), threads=threads)
        rounds = take_turns(started, _ROUNDS, _TURN_SECONDS, progress)
    timings = summarise(rounds, "tuned")
    untuned = timings["untuned"]
    return Race(timings["tuned"].median, untuned.median, untuned.speed, foreign_load(rounds))


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
