"""Which artefact a tuning ships: untuned, tuned, or tuned but for the tasks that lose by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.autotune.log.race import Race
from planish.autotune.log.record import Header
from planish.autotune.log.store import LogSource, open_log
from planish.driver import CompileReport, Progress
from planish.racing import (
    losing_seconds,
    losing_tasks,
    race_artefacts,
    race_seconds,
    shortest_race_seconds,
)
from planish.tuning_job import Job

#: How much longer than the first compilation a later one may take: a cache, a busy machine.
_MARGIN = 1.2
#: Seconds for what is done besides: writing the artefact, the log, the report.
_BESIDES = 2.0
#: The part of the time left that a thorough decision may take from the measuring.
_SHARE = 1 / 3

Build = Callable[[Path, LogSource], CompileReport]


@dataclass(frozen=True, slots=True)
class Decision:
    """The artefact to ship, and the race that decided; None if there is one artefact only.

    `note` says what was left out because time ran out or somebody interrupted.
    """

    compiled: CompileReport
    tuned: bool = False
    race: Race | None = None
    others: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that a decision takes: `build` of a compilation, `latency` of the untuned model."""

    build: float
    latency: float

    @property
    def least(self) -> float:
        """To build the tuned artefact and race it for the fewest turns."""
        return _MARGIN * self.build + shortest_race_seconds(self.latency) + _BESIDES

    @property
    def second(self) -> float:
        """To find the tasks that lose, to build without them and to race again."""
        return (
            losing_seconds(self.latency)
            + _MARGIN * self.build
            + shortest_race_seconds(self.latency)
            + _BESIDES
        )

    def reserve(self, left: float) -> float:
        """What of `left` seconds is kept for the decision: all that it can use, if that is little
        of them, else the least."""
        whole = self.least - shortest_race_seconds(self.latency) + race_seconds(self.latency)
        whole += self.second
        return whole if whole <= _SHARE * left else self.least


def decide(
    job: Job,
    plain: CompileReport,
    build: Build,
    places: Sequence[Path],
    costs: Costs,
    progress: Progress,
) -> Decision:
    """Builds the model tuned, races it against `plain`, and logs what compilations are to do.

    Tasks that lose time in the model are then left untuned, if that makes it faster still and there
    is time to find out. KeyboardInterrupt ships what is surely right: `plain`.
    """
    try:
        return _decide(job, plain, build, places, costs, progress)
    except KeyboardInterrupt:
        return Decision(plain, note="interrupted before it was known whether tuned is faster")


def _decide(
    job: Job,
    plain: CompileReport,
    build: Build,
    places: Sequence[Path],
    costs: Costs,
    progress: Progress,
) -> Decision:
    best = build(places[0], job.sources)
    if plain.manifest.digest == best.manifest.digest:
        return Decision(best)
    race, others = _race(job, plain, best, progress)
    decision = Decision(best if race.speed >= 1 else plain, race.speed >= 1, race, others)
    races = [race]
    if not job.deadline.allows(costs.second):
        note = "the budget left no time to look for kernels that lose by their new schedules"
        decision = dataclasses.replace(decision, note=note)
    elif left := _left(job, plain, best, progress):
        known, losing = open_log(job.sources), dataclasses.replace(race, left=left)
        assert known is not None, "the points are from somewhere"
        mixed = build(places[1], known.with_race(losing, Header.of(job.hardware)))
        if mixed.manifest.digest not in (plain.manifest.digest, best.manifest.digest):
            again, more = _race(job, plain, mixed, progress)
            races = [race, again]
            if again.speed >= max(1.0, race.speed):
                races = [losing, again]
                decision = Decision(mixed, True, again, max(others, more))
    with job.open_writer() as writer:
        for held in races:  # compilations with this log then do as this one does
            writer.append(held)
    return decision


def _race(
    job: Job, plain: CompileReport, best: CompileReport, progress: Progress
) -> tuple[Race, float]:
    assert best.log is not None
    return race_artefacts(
        job.graph,
        plain.output,
        best.output,
        best.log.points,
        job.target.cores,
        progress,
        job.deadline,
    )


def _left(
    job: Job, plain: CompileReport, best: CompileReport, progress: Progress
) -> tuple[str, ...]:
    assert best.log is not None
    return losing_tasks(
        job.graph, plain.output, best.output, best.log.kernels, job.target.cores, progress
    )
