"""Candidates to libraries, in worker processes: what the code generator does there stays there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from planish.autotune.measure.backend import Backend
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import kernel_text
from planish.autotune.measure.results import Built, Candidate, Result, Status
from planish.autotune.measure.workers import Job, Outcome, Workers
from planish.ir.errors import TuningError
from planish.ir.target import Target

HARNESS_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("isolation.c", "timing.c", "usage.c", "weights.c")
)
_FAILED = {
    "raised": Status.BUILD_ERROR,
    "crash": Status.CRASH,
    "killed": Status.CRASH,
    "timeout": Status.TIMEOUT,
    "out_of_memory": Status.OUT_OF_MEMORY,
}


class Builder:
    """Builds for one target, side by side in `count` workers; libraries go to `folder`."""

    def __init__(
        self, backend: Backend, target: Target, options: Options, folder: Path, count: int = 2
    ) -> None:
        self._backend, self._target, self._options = backend, target, options
        self._folder = folder
        self._numbers = itertools.count()
        functions = (backend.build_kernel, backend.build_harness)
        self.workers = Workers(count, functions, folder)

    def close(self) -> None:
        """Ends the workers."""
        self.workers.close()

    def harness(self) -> Path:
        """Builds the harness; TuningError says why it cannot be."""
        path = self._folder / "harness.so"
        arguments = (HARNESS_SOURCES, self._target, path)
        ((_, outcome),) = self.workers.run([self._job(self._backend.build_harness, arguments)])
        if outcome.kind != "returned":
            raise TuningError(f"the measuring harness cannot be built: {outcome.message}")
        return path

    def build(self, candidates: Sequence[Candidate]) -> list[Built | Result]:
        """A library for each candidate, or the result that says why there is none."""
        paths = [self._folder / f"candidate-{next(self._numbers)}.so" for _ in candidates]
        jobs = [
            self._job(self._backend.build_kernel, (kernel_text(c.kernel), self._target, path))
            for c, path in zip(candidates, paths)
        ]
        outcomes = dict(self.workers.run(jobs))
        # A worker that somebody killed says nothing of its candidate: once more.
        killed = [number for number, outcome in outcomes.items() if outcome.kind == "killed"]
        for position, outcome in self.workers.run([jobs[number] for number in killed]):
            outcomes[killed[position]] = outcome
        return [
            _made(candidate.id, path, outcomes[number])
            for number, (candidate, path) in enumerate(zip(candidates, paths))
        ]

    def _job(self, function: object, arguments: tuple[object, ...]) -> Job:
        options = self._options
        return Job(function, arguments, options.build_timeout, options.build_memory)  # type: ignore[arg-type]


def _made(candidate: str, path: Path, outcome: Outcome) -> Built | Result:
    if outcome.kind == "returned":
        return Built(candidate, path)
    refused = outcome.kind == "raised" and "ScheduleError" in outcome.error
    status = Status.REFUSED if refused else _FAILED[outcome.kind]
    return Result(candidate, status, f"building it: {outcome.message}")
