"""planish against other engines on one model: latencies in turn, outputs, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from planish.bench.turns import (
    EngineFailed,
    Progress,
    Timing,
    Worker,
    foreign_load,
    summarise,
    take_turns,
    workers,
)
from planish.tolerances import Difference, compare

OURS = "planish"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Contest:
    """What came of it, by engine.

    `outputs` are of one run. `refused` are peers that did not take the model, and why. `others` is
    the most CPUs that other processes used during a turn.
    """

    timings: Mapping[str, Timing]
    outputs: Mapping[str, Arrays]
    refused: Mapping[str, str]
    others: float

    def differences(self, peer: str) -> dict[str, Difference]:
        """planish's outputs against a peer's."""
        ours, theirs = self.outputs[OURS], self.outputs[peer]
        return {name: compare(ours[name], theirs[name]) for name in ours}


@dataclass(frozen=True, slots=True)
class Course:
    """How engines are timed: threads of each, rounds of turns, seconds of a turn."""

    threads: int
    rounds: int
    seconds: float
    progress: Progress | None = field(default=None, compare=False)


def compete(
    model: Path, artefact: Path, inputs: Arrays, peers: Sequence[str], course: Course, scratch: Path
) -> Contest:
    """Runs the artefact and, in the peers, the ONNX model it came from, on the same inputs.

    `scratch` is a folder for files between the processes. EngineFailed if planish itself fails.
    """
    feeds = scratch / "inputs.npz"
    save_arrays(feeds, inputs)
    refused: dict[str, str] = {}
    engines: dict[str, tuple[str, dict[str, str]]] = {name: (name, {}) for name in (OURS, *peers)}
    with workers(engines) as started:
        racing: dict[str, Worker] = {}
        for name, worker in started.items():
            path = artefact if name == OURS else model
            try:
                worker.ask(do="start", model=str(path), inputs=str(feeds), threads=course.threads)
            except EngineFailed as error:
                if name == OURS:
                    raise
                refused[name] = " ".join(str(error).split())
            else:
                racing[name] = worker
        rounds = take_turns(racing, course.rounds, course.seconds, course.progress)
        outputs = {name: _outputs(worker, scratch) for name, worker in racing.items()}
    return Contest(summarise(rounds), outputs, refused, foreign_load(rounds))


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Writes an .npz file under exactly the given name."""
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _outputs(worker: Worker, scratch: Path) -> dict[str, np.ndarray]:
    path = scratch / "outputs.npz"
    worker.ask(do="save", path=str(path))
    with np.load(path) as arrays:
        return dict(arrays)
