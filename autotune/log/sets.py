"""Logs as sets of lines: merging, pruning, the best of them, and what two differ in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.autotune.log.files import (
    LogFile,
    append,
    content_of,
    locked,
    read_file,
    replace,
    take_apart,
)
from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.lookup import TuningLog, rank_points
from planish.autotune.log.race import RaceRecord
from planish.autotune.log.record import VETOES, Failure, Header, Record, point_key
from planish.autotune.spaces import SPACES
from planish.ir.errors import TuningError


@dataclass(frozen=True, slots=True)
class Terms:
    """What must agree for two times to be compared."""

    task: str
    space: str
    version: int | None
    threads: int
    hardware: Fingerprint


@dataclass(frozen=True, slots=True)
class Merged:
    """Lines that the output lacked, and that it had."""

    added: int
    present: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """Records kept, and dropped because of an old space, a failure, or faster points."""

    kept: int
    old: int
    failed: int
    dominated: int

    @property
    def dropped(self) -> int:
        """All that were dropped."""
        return self.old + self.failed + self.dominated


@dataclass(frozen=True, slots=True)
class Difference:
    """The best record of each side under the same terms; None where a side has none."""

    terms: Terms
    left: Record | None
    right: Record | None


def merge(sources: Iterable[Path], output: Path) -> Merged:
    """Appends to `output` every line of the sources that it lacks, verbatim, foreign and torn too.

    The set of lines depends neither on the order of the sources nor on how often it is done. Raises
    TuningError, with nothing written, if two headers have one id and different contents.
    """
    files = [read_file(source) for source in sources]
    with locked(output) as out:
        before = take_apart(output, content_of(out))
        _check_headers([before, *files])
        present = {*before.lines}
        lines = dict.fromkeys(line for file in files for line in file.lines)
        new = [line for line in lines if line not in present]
        if new:
            append(out, b"".join(line + b"\n" for line in new))
    return Merged(len(new), len(lines) - len(new))


def _check_headers(files: Iterable[LogFile]) -> None:
    seen: dict[str, tuple[Header, Path]] = {}
    for file in files:
        for header in file.headers:
            first, path = seen.setdefault(header.id, (header, file.path))
            if first.to_line() != header.to_line():
                raise TuningError(
                    f"header {header.id} is not the same in '{path}' and '{file.path}': one was "
                    "edited; give it, and the trials that refer to it, another id"
                )


def prune(path: Path, *, keep: int, dry_run: bool = False) -> Pruned:
    """Drops the records of a log that no lookup would miss, and tells how many.

    Under the same terms the `keep` fastest points stay with all their times. Points that were wrong
    or crashed stay, as warnings; other failures go, and so do the records of older versions of a
    space. Headers, records of spaces not known here, torn and foreign lines are not touched.
    """
    if dry_run:
        return _sift(read_file(path).records, keep)[1]
    read_file(path)  # a missing file is an error, and not to be made
    with locked(path) as out:
        file = take_apart(path, content_of(out))
        dropped, pruned = _sift(file.records, keep)
        if dropped:
            replace(path, (line for line in file.lines if line not in dropped))
    return pruned


def _sift(records: Sequence[Record], keep: int) -> tuple[set[bytes], Pruned]:
    """The lines to drop, and how many for which reason."""
    old = {record.line for record in records if is_old(record)}
    failed = {
        record.line
        for record in records
        if isinstance(record.trial.result, Failure) and record.trial.result.kind not in VETOES
    } - old
    vetoed = _vetoed(records)
    dominated: set[bytes] = set()
    for _, group in by_terms(r for r in records if r.line not in old):
        ranked = [
            point_key(r.trial.point) for r in rank_points(group) if _veto_key(r) not in vetoed
        ]
        best = {*ranked[:keep]}
        dominated |= {
            record.line
            for record in group
            if record.trial.median is not None and point_key(record.trial.point) not in best
        }
    lost = old | failed | dominated
    kept = sum(record.line not in lost for record in records)
    return lost, Pruned(kept, len(old), len(failed), len(dominated))


def is_old(record: Record) -> bool:
    """True for a record of a version of its space before the present one."""
    space = SPACES.get(record.trial.space)
    return space is not None and (record.space_version or 0) < space.version


def best_records(records: Iterable[Record]) -> list[Record]:
    """The record of the best point under each terms, as `TuningLog.best` would find it."""
    everything = list(records)
    vetoed = _vetoed(everything)
    found = []
    for _, group in by_terms(everything):
        ranked = [record for record in rank_points(group) if _veto_key(record) not in vetoed]
        found += ranked[:1]
    return found


def by_terms(records: Iterable[Record]) -> Iterator[tuple[Terms, list[Record]]]:
    """The records in groups whose times can be compared."""
    groups: dict[Terms, list[Record]] = {}
    for record in records:
        groups.setdefault(_terms(record), []).append(record)
    yield from groups.items()


def _terms(record: Record) -> Terms:
    trial = record.trial
    return Terms(
        trial.task, trial.space, record.space_version, trial.threads, record.header.hardware
    )


def export(log: TuningLog, output: Path) -> int:
    """Writes the best records, the races and their headers to a new file; gives the number of
    records.

    TuningError if the file exists: what is in it is not to be lost.
    """
    best = best_records(record for record in log.records if not is_old(record))
    if output.exists():
        raise TuningError(f"'{output}' exists; `planish log merge` adds to a file")
    exported: list[Record | RaceRecord] = [*best, *log.races]
    headers = {entry.header.id: entry.header.to_line() for entry in exported}
    lines = (entry.line + b"\n" for entry in exported)
    with locked(output) as out:
        append(out, b"".join([*headers.values(), *lines]))
    return len(best)


def differences(left: Iterable[Record], right: Iterable[Record]) -> list[Difference]:
    """Under all terms of either side, the best record of each, in the order of the first."""
    sides = [{_terms(record): record for record in best_records(side)} for side in (left, right)]
    return [
        Difference(terms, sides[0].get(terms), sides[1].get(terms))
        for terms in dict.fromkeys([*sides[0], *sides[1]])
    ]


_VetoKey = tuple[str, str, int | None, tuple[object, ...], str]


def _veto_key(record: Record) -> _VetoKey:
    trial = record.trial
    return (
        trial.task,
        trial.space,
        record.space_version,
        (type(record.header.hardware), *record.header.hardware.kind),
        point_key(trial.point),
    )


def _vetoed(records: Iterable[Record]) -> set[_VetoKey]:
    """The points that were wrong or crashed, with what a lookup matches them by."""
    return {
        _veto_key(record)
        for record in records
        if isinstance(record.trial.result, Failure) and record.trial.result.kind in VETOES
    }
