"""What a log says of a kernel on some hardware: what is used, what is a seed, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Literal

from planish.autotune.log.files import LogFile, read_file
from planish.autotune.log.fingerprint import Fingerprint, Grade, difference, grade
from planish.autotune.log.race import Race, RaceRecord
from planish.autotune.log.record import VETOES, Failure, Header, Record, point_key, spell_point
from planish.autotune.spaces import Space

#: The grades of records that are applied, the better first.
Applied = Literal["exact", "class"]
_APPLIED: tuple[Applied, ...] = ("exact", "class")
_GRADES: tuple[Grade, ...] = (*_APPLIED, "seed")


@dataclass(frozen=True, slots=True)
class Found:
    """The record that a lookup ends at; its point is to be used, its grade told."""

    record: Record
    grade: Applied


@dataclass(frozen=True, slots=True)
class Seed:
    """A record whose point is worth a trial."""

    record: Record
    grade: Grade


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a lookup makes of one record, and why."""

    record: Record
    grade: Grade
    used: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Question:
    """What is looked up."""

    task: str
    space: Space
    hardware: Fingerprint
    threads: int

    def grade(self, record: Record) -> Grade:
        """How far the record can be trusted: its hardware's grade, or "seed" for other terms."""
        return "seed" if self.other_terms(record) else grade(record.header.hardware, self.hardware)

    def other_terms(self, record: Record) -> str:
        """What besides the hardware is not as asked; empty if nothing."""
        trial, space = record.trial, self.space
        if trial.space != space.name:
            return f"of space '{trial.space}', and the kernel's is '{space.name}'"
        if record.space_version != space.version:
            return (
                f"of version {record.space_version} of space '{space.name}', "
                f"which is at version {space.version}"
            )
        if trial.threads != self.threads:
            return f"measured with {trial.threads} threads, and {self.threads} are asked for"
        return ""


class TuningLog:
    """The records of some files, immutable, found by task.

    A record that is in several files counts once.
    """

    def __init__(self, files: Sequence[LogFile]) -> None:
        self.files = tuple(files)
        found = {(record.line, record.header): record for file in files for record in file.records}
        self.records = tuple(found.values())
        races = {(race.line, race.header): race for file in files for race in file.races}
        self.races = tuple(races.values())
        self._by_task: dict[str, list[Record]] = {}
        for record in self.records:
            self._by_task.setdefault(record.trial.task, []).append(record)

    @staticmethod
    def read(paths: Iterable[str | os.PathLike[str]]) -> TuningLog:
        """Reads files, whatever torn or foreign lines they hold; TuningError if one is missing."""
        return TuningLog([read_file(path) for path in dict.fromkeys(map(Path, paths))])

    def with_race(self, race: Race, header: Header) -> TuningLog:
        """This log, as if one more race had been held last."""
        held = RaceRecord(race, header, race.to_line(header.id))
        *others, last = self.files
        return TuningLog([*others, replace(last, races=(*last.races, held))])

    @property
    def tasks(self) -> tuple[str, ...]:
        """The digests of all tasks, in the order of their first records."""
        return tuple(self._by_task)

    def of_task(self, task: str) -> tuple[Record, ...]:
        """The records of a task, in the order of the files."""
        return tuple(self._by_task.get(task, ()))

    def best(self, task: str, space: Space, hardware: Fingerprint, threads: int) -> Found | None:
        """The fastest point for this kernel here that needs no trial; None if there is none.

        Records of the very hardware go before all others; else those of its class are used.
        A point measured several times counts by its median. One that was wrong or crashed on
        hardware of this class is never given, nor is one of another version of the space, of other
        hardware or for another number of threads.
        """
        question = _Question(task, space, hardware, threads)
        vetoed = self._vetoed(question)
        for wanted in _APPLIED:
            records = [
                record
                for record in self.of_task(task)
                if question.grade(record) == wanted and point_key(record.trial.point) not in vetoed
            ]
            ranked = rank_points(records)
            if ranked:
                return Found(ranked[0], wanted)
        return None

    def seeds(
        self, task: str, space: Space, hardware: Fingerprint, threads: int, most: int = 16
    ) -> tuple[Seed, ...]:
        """Points that are worth a trial, each once: those of nearer hardware first, then faster.

        Only of this space by name: the search asks the space itself whether a point of an older
        version still exists. Points that were wrong or crashed on this class are left out.
        """
        question = _Question(task, space, hardware, threads)
        vetoed = self._vetoed(question)
        by_grade: dict[Grade, list[Record]] = {near: [] for near in _GRADES}
        for record in self.of_task(task):
            if record.trial.space == space.name and point_key(record.trial.point) not in vetoed:
                by_grade[question.grade(record)].append(record)
        found: dict[str, Seed] = {}
        for near, records in by_grade.items():
            for record in rank_points(records):
                found.setdefault(point_key(record.trial.point), Seed(record, near))
        return tuple(found.values())[:most]

    def explain(
        self, task: str, space: Space, hardware: Fingerprint, threads: int
    ) -> tuple[Verdict, ...]:
        """What `best` makes of each record of the task, and why, in the order of the files."""
        question = _Question(task, space, hardware, threads)
        best, vetoed = self.best(task, space, hardware, threads), self._vetoed(question)
        return tuple(
            _verdict(record, question, best, vetoed.get(point_key(record.trial.point)))
            for record in self.of_task(task)
        )

    def race(self, points: str, hardware: Fingerprint, threads: int) -> Race | None:
        """The last race that these points (`points_digest`) were in on this hardware, else on its
        class; None if there was none."""
        held = [
            record
            for record in self.races
            if (record.race.points, record.race.threads) == (points, threads)
            and grade(record.header.hardware, hardware) != "seed"
        ]

        def trust(record: RaceRecord) -> tuple[bool, str, bytes]:
            exact = grade(record.header.hardware, hardware) == "exact"
            return exact, record.race.date, record.line

        return max(held, key=trust).race if held else None

    def _vetoed(self, question: _Question) -> Mapping[str, Failure]:
        """The points that failed dangerously on hardware of the class, with any threads."""
        return {
            point_key(record.trial.point): record.trial.result
            for record in self.of_task(question.task)
            if isinstance(record.trial.result, Failure)
            and record.trial.result.kind in VETOES
            and record.trial.space == question.space.name
            and record.space_version == question.space.version
            and grade(record.header.hardware, question.hardware) != "seed"
        }


def rank_points(records: Iterable[Record]) -> list[Record]:
    """One record for each point and hardware, the fastest first; failures are left out.

    It is the one whose time is the (lower) median of that point's times there: a point does not
    win by being measured often.
    """
    groups: dict[tuple[str, Fingerprint], list[tuple[float, bytes, Record]]] = {}
    for record in records:
        if record.trial.median is not None:
            key = point_key(record.trial.point), record.header.hardware
            group = groups.setdefault(key, [])
            group.append((record.trial.median, record.line, record))
    # The line decides between equal times, so that the order of the files does not.
    by_time = itemgetter(0, 1)
    typical = (sorted(group, key=by_time)[(len(group) - 1) // 2] for group in groups.values())
    return [record for _, _, record in sorted(typical, key=by_time)]


def _verdict(
    record: Record, question: _Question, best: Found | None, veto: Failure | None
) -> Verdict:
    grade_, result = question.grade(record), record.trial.result
    used = best is not None and grade_ == best.grade and record.line == best.record.line

    def because(reason: str) -> Verdict:
        return Verdict(record, grade_, used, reason)

    other = question.other_terms(record)
    if other:
        return because(f"a seed only: {other}")
    apart = difference(record.header.hardware, question.hardware)
    if grade_ == "seed":
        return because(f"a seed only: other hardware ({apart})")
    if isinstance(result, Failure):
        return because(f"not used: {result.kind} ({result.message})")
    if veto is not None:
        return because(f"not used: the same point was {veto.kind} ({veto.message})")
    assert best is not None, "a record without a fault, and yet no best one"
    if used and grade_ == "exact":
        return because("used: the fastest point measured on this very hardware")
    if used:
        told = f" ({apart})" if apart else ""
        return because(f"used: the fastest point measured on hardware of this class{told}")
    if grade_ != best.grade:
        return because("not used: of this class, and there is a record of this very hardware")
    if point_key(record.trial.point) == point_key(best.record.trial.point):
        return because("not used: another measurement of the point that is used")
    if (record.trial.median or 0.0) < (best.record.trial.median or 0.0):
        return because("not used: the point's other measurements were slower than the best's")
    return because(f"not used: slower than {spell_point(best.record.trial.point)}")
