"""A tuned artefact against the untuned one: what is faster alone may be slower in a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from planish.artefact.format import Manifest, read_manifest
from planish.autotune.apply_log import KernelOutcome
from planish.autotune.log.race import Race
from planish.autotune.log.record import present
from planish.autotune.measure.intervals import median_interval
from planish.autotune.search.budget import Deadline
from planish.bench.contest import save_arrays
from planish.bench.turns import Record, Worker, foreign_load, summarise, take_turns, workers
from planish.driver import Progress
from planish.ir.graph import Graph
from planish.ir.scratch import scratch_folder
from planish.verify import model_inputs

#: Turns of each artefact before it is asked whether they will do, of a race at most, and seconds
#: of a turn: a host may give the machine half its speed for a few of them.
_ROUNDS, _MOST_ROUNDS, _TURN_SECONDS = 9, 45, 0.3
#: Turns of each that a race has however little time there is.
_FEWEST_ROUNDS = 3
#: Runs in a turn at least, with those that do not count: see bench/worker.py.
_RUNS = 7
#: Seconds to start a worker of each artefact.
_STARTING = 4.0
#: Half the width of the 95 % interval of the speed with which a race is over, decided or not.
_PRECISION = 0.01
#: Share of the model's time that kernels must lose for leaving their tasks untuned to be tried.
_NOTICEABLE = 0.003


def _turns_seconds(rounds: int, latency: float) -> float:
    return _STARTING + 2 * rounds * max(_TURN_SECONDS, _RUNS * latency)


def shortest_race_seconds(latency: float) -> float:
    """What a race takes at least, by the seconds that a run of the model takes."""
    return _turns_seconds(min(_FEWEST_ROUNDS, _ROUNDS), latency)


def race_seconds(latency: float) -> float:
    """What a race takes that is decided soon."""
    return _turns_seconds(_ROUNDS, latency)


def losing_seconds(latency: float) -> float:
    """What `losing_tasks` takes."""
    return _turns_seconds(_ROUNDS, latency)


def race_artefacts(
    graph: Graph,
    plain: Path,
    best: Path,
    points: str,
    threads: int,
    progress: Progress,
    deadline: Deadline,
) -> tuple[Race, float]:
    """Times two artefacts of `graph` in turn, each in a process of its own, until it is decided.

    It is when the speed is surely above or below 1, or known to 1 %, or the turns or the time until
    `deadline` are used up; _FEWEST_ROUNDS are held in any case.
    `points` is the digest of what `best` has of a log. Gives also how many CPUs other processes
    used meanwhile.
    """
    rounds: list[dict[str, Record]] = []
    with _started(graph, plain, best, threads) as started:
        while not rounds or (
            len(rounds) < _MOST_ROUNDS and not _is_decided(rounds) and deadline.allows(0)
        ):
            rounds += take_turns(
                started, _ROUNDS, _TURN_SECONDS, progress, _enough(deadline, len(rounds))
            )
    timings = summarise(rounds, "tuned")
    tuned, untuned = timings["tuned"].median, timings["untuned"].median
    race = Race(points, threads, tuned, untuned, timings["untuned"].speed, present())
    return race, foreign_load(rounds)


def _enough(deadline: Deadline, before: int) -> Callable[[int], bool]:
    """Whether turns end early, by how many there were beside those before."""
    return lambda taken: before + taken >= _FEWEST_ROUNDS and not deadline.allows(0)


def _is_decided(rounds: Sequence[Mapping[str, Record]]) -> bool:
    if not rounds:
        return False
    known = median_interval(
        [turn["untuned"]["median"] / turn["tuned"]["median"] for turn in rounds]
    )
    return known.half_width <= _PRECISION or known.low > 1 or known.high < 1


def losing_tasks(
    graph: Graph,
    plain: Path,
    best: Path,
    outcomes: Sequence[KernelOutcome],
    threads: int,
    progress: Progress,
) -> tuple[str, ...]:
    """The tasks whose kernels take longer in `best`, with their points, than in `plain`.

    The artefacts' kernels are timed in turn, where the model has them: their inputs lie where other
    kernels left them. Empty if all that could be saved would not be noticed.
    """
    places = {"untuned": plain, "tuned": best}
    keys = {label: kernel_keys(read_manifest(place)) for label, place in places.items()}
    times: dict[str, list[Mapping[Key, float]]] = {label: [] for label in places}
    with _started(graph, plain, best, threads) as started:
        for turn in range(_ROUNDS):
            progress("time kernels in turn", turn, _ROUNDS)
            for label, worker in started.items():
                medians = worker.ask(do="kernels", seconds=_TURN_SECONDS)["medians"]
                times[label].append(dict(zip(keys[label], medians, strict=True)))
    return _losing(outcomes, times["untuned"], times["tuned"])


#: A kernel's name, its ONNX nodes, and which one of those it is that have both.
Key = tuple[str, tuple[str, ...], int]


def kernel_keys(manifest: Manifest) -> list[Key]:
    """What the kernels of an artefact are known by, in the order of the calls."""
    return _numbered((kernel.name, kernel.onnx_nodes) for kernel in manifest.kernels)


def _numbered(kernels: Iterable[tuple[str, tuple[str, ...]]]) -> list[Key]:
    seen: Counter[tuple[str, tuple[str, ...]]] = Counter()
    keys = []
    for kernel in kernels:
        keys.append((*kernel, seen[kernel]))
        seen[kernel] += 1
    return keys


def _losing(
    outcomes: Sequence[KernelOutcome],
    untuned: Sequence[Mapping[Key, float]],
    tuned: Sequence[Mapping[Key, float]],
) -> tuple[str, ...]:
    """Of seconds by kernel, a mapping for each round."""
    lost: dict[str, float] = {}
    names = _numbered((outcome.kernel, outcome.onnx_nodes) for outcome in outcomes)
    for outcome, key in zip(outcomes, names):
        # A kernel whose output is a view in the plan is not called.
        if outcome.point is not None and key in untuned[0] and key in tuned[0]:
            longer = np.median([mine[key] - theirs[key] for mine, theirs in zip(tuned, untuned)])
            lost[outcome.task] = lost.get(outcome.task, 0.0) + float(longer)
    losing = {task: seconds for task, seconds in lost.items() if seconds > 0}
    whole = np.median([sum(turn.values()) for turn in untuned])
    return tuple(sorted(losing)) if sum(losing.values()) >= _NOTICEABLE * whole else ()


@contextmanager
def _started(graph: Graph, plain: Path, best: Path, threads: int) -> Iterator[dict[str, Worker]]:
    """Both artefacts loaded, `untuned` and `tuned`, on the same random inputs."""
    engine: tuple[str, dict[str, str]] = ("planish", {})
    with (
        scratch_folder() as scratch,
        workers({"untuned": engine, "tuned": engine}) as started,
    ):
        feeds = Path(scratch, "inputs.npz")
        save_arrays(feeds, model_inputs(graph, 0))
        for label, place in (("untuned", plain), ("tuned", best)):
            model = str(place.resolve())
            started[label].ask(do="start", model=model, inputs=str(feeds), threads=threads)
        yield started
