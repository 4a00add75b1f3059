"""Runs built candidates: here, or on several devices at once, one at a time on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from planish.autotune.measure.layout import make_spec, read_report, report_bytes
from planish.autotune.measure.local import call_locally
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Built, Result, Status
from planish.autotune.measure.verdict import Judge, Verdict
from planish.autotune.measure.workers import Job, Workers
from planish.ir.target import Target

#: `call(*place, files, spec, data, report_bytes)` runs the harness somewhere; see local.py.
Call = Callable[..., bytes]

#: Seconds beyond a trial's own limit, for what surrounds it: connecting, uploading.
_GRACE_SECONDS = 30.0
#: Attempts at a trial that was lost with its device or its worker: the kernel itself runs in a
#: child of those, so that the next device most likely measures it.
_ATTEMPTS = 2
_WORKER_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate's library to run on a problem whose inputs lie in the file `data`.

    `incumbent` is the library to measure beside, `seconds` its known time.
    """

    problem: Problem
    data: Path
    built: Built
    incumbent: Path | None = None
    seconds: float = 0.0


class Runner(Protocol):
    """Where trials run."""

    def run(self, trials: Sequence[Trial]) -> Iterator[Result]:
        """One result for each trial, as they come."""
        ...

    def close(self) -> None:
        """Ends all processes."""
        ...


class ProcessRunner:
    """Calls the harness from worker processes, one for each device.

    `place` are the first arguments of `call`. `remote`: the files lie in the working folder of
    the device's session under their plain names, and not where they were built.
    """

    def __init__(
        self,
        call: Call,
        place: tuple[Any, ...],
        harness: Path,
        target: Target,
        options: Options,
        judge: Judge,
        *,
        devices: int = 1,
        remote: bool = False,
    ) -> None:
        self._call, self._place, self._harness = call, place, harness
        self._target, self._options, self._judge = target, options, judge
        self._remote = remote
        self.workers = Workers(devices, (call,), harness.parent)

    def close(self) -> None:
        """Ends the workers."""
        self.workers.close()

    def run(self, trials: Sequence[Trial]) -> Iterator[Result]:
        """Results as they come; repeats, while patience lasts, what a loaded machine disturbed."""
        left = self._options.patience
        pause = left / 64
        attempts = {trial.built.candidate: 0 for trial in trials}
        waiting = list(trials)
        while waiting:
            again: list[Trial] = []
            disturbed: list[Trial] = []
            for trial, verdict in self._outcomes(waiting):
                name = trial.built.candidate
                attempts[name] += 1
                if verdict.lost and attempts[name] < _ATTEMPTS:
                    again.append(trial)
                elif verdict.by_incumbent and trial.incumbent is not None:
                    again.append(replace(trial, incumbent=None))
                elif verdict.result.foreign_cpus > self._options.quiet and left > 0:
                    disturbed.append(trial)
                else:
                    yield verdict.result
            if disturbed:
                time.sleep(pause)
                left -= pause
                pause = min(left, 2 * pause)
            waiting = again + disturbed

    def _outcomes(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Verdict]]:
        jobs = []
        specs = []
        for trial in trials:
            files = {"harness.so": self._harness, "candidate.so": trial.built.library}
            if trial.incumbent is not None:
                files["incumbent.so"] = trial.incumbent
            paths = self._paths(files)
            spec = make_spec(trial.problem, self._target, self._options, *paths)
            specs.append(spec)
            arguments = (*self._place, files, bytes(spec), trial.data, report_bytes(spec))
            seconds = self._options.timeout + _GRACE_SECONDS
            jobs.append(Job(self._call, arguments, seconds, _WORKER_BYTES + int(spec.memory)))
        for number, outcome in self.workers.run(jobs):
            trial = trials[number]
            if outcome.kind == "returned":
                report = read_report(specs[number], outcome.value)
                yield (
                    trial,
                    self._judge(trial.problem, trial.built.candidate, trial.seconds, report),
                )
            else:
                message = (
                    f"the {'device' if self._remote else 'worker'} was lost: {outcome.message}"
                )
                lost = Result(trial.built.candidate, Status.CRASH, message)
                yield trial, Verdict(lost, lost=True)

    def _paths(self, files: Mapping[str, Path]) -> tuple[str, str]:
        """Of candidate and incumbent, as the harness sees them."""
        names = ("candidate.so", "incumbent.so")
        if self._remote:
            found = [f"./{name}" if name in files else "" for name in names]
        else:
            found = [str(files[name]) if name in files else "" for name in names]
        return found[0], found[1]


def local_runner(harness: Path, target: Target, options: Options, judge: Judge) -> ProcessRunner:
    """Measures on this machine."""
    return ProcessRunner(call_locally, (), harness, target, options, judge)
