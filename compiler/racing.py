"""A tuned artefact against the untuned one: what is faster alone may be slower in a model."""

from __future__ import annotations

import tempfile
from pathlib import Path

from planish.autotune.log.race import Race
from planish.autotune.log.record import present
from planish.bench.contest import save_arrays
from planish.bench.turns import foreign_load, summarise, take_turns, workers
from planish.driver import Progress
from planish.ir.graph import Graph
from planish.verify import model_inputs

#: Turns of each artefact, and seconds of a turn.
_ROUNDS, _TURN_SECONDS = 9, 0.3


def race_artefacts(
    graph: Graph, plain: Path, best: Path, points: str, threads: int, progress: Progress
) -> tuple[Race, float]:
    """Times two artefacts of `graph` in turn, each in a process of its own.

    `points` is the digest of what `best` has of a log. Gives also how many CPUs other processes
    used meanwhile.
    """
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
    tuned, untuned = timings["tuned"].median, timings["untuned"].median
    race = Race(points, threads, tuned, untuned, timings["untuned"].speed, present())
    return race, foreign_load(rounds)
