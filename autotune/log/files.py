"""Log files: locking them, appending whole lines, and taking them apart."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from planish.autotune.log.race import Race, RaceRecord, parse_race
from planish.autotune.log.record import Header, KernelText, Record, Trial, parse_line
from planish.ir.errors import TuningError, note
from planish.ir.file_locks import take_lock
from planish.ir.scratch import scratch_folder


@dataclass(frozen=True, slots=True)
class LogFile:
    """What is in one file; lines are verbatim, without their newline, in the file's order.

    `torn` are lines that begin as ours and end too early (a writer was killed, or the disk was
    full), `foreign` those of others or of a newer format, `orphans` trials and races whose header
    is nowhere in the file or stands there twice with different contents. A trial that stands there
    twice is one record.
    """

    path: Path
    headers: tuple[Header, ...]
    kernels: tuple[KernelText, ...]
    records: tuple[Record, ...]
    races: tuple[RaceRecord, ...]
    torn: tuple[bytes, ...]
    foreign: tuple[bytes, ...]
    orphans: tuple[bytes, ...]
    lines: tuple[bytes, ...]


def read_file(path: str | os.PathLike[str]) -> LogFile:
    """Takes a log apart; TuningError only if there is none or it cannot be read."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            # Shared, so that no writer is in the middle of a line. Without locks a line that is
            # being written is a torn one, which readers pass over.
            take_lock(file.fileno(), shared=True)
            content = file.read()
    except OSError as error:
        raise TuningError(f"tuning log '{path}' cannot be read: {error.strerror}") from None
    return take_apart(path, content)


def take_apart(path: Path, content: bytes) -> LogFile:
    """The lines of a log's content, by what they are; blank ones are none."""
    lines = tuple(line for line in content.split(b"\n") if line.strip())
    headers: dict[str, Header] = {}
    kernels: list[KernelText] = []
    disputed: set[str] = set()
    measured: dict[bytes, tuple[str, Trial | Race]] = {}
    torn: list[bytes] = []
    foreign: list[bytes] = []
    for line in lines:
        try:
            parsed = parse_line(line) or parse_race(line)
        except ValueError:
            (torn if line.startswith(b"{") else foreign).append(line)
            continue
        if parsed is None:
            foreign.append(line)
        elif isinstance(parsed, KernelText):
            kernels.append(parsed)
        elif not isinstance(parsed, Header):
            measured[line] = parsed
        elif headers.setdefault(parsed.id, parsed) != parsed:
            disputed.add(parsed.id)
    known = {id: header for id, header in headers.items() if id not in disputed}
    owned = {line: known.get(id) for line, (id, _) in measured.items()}
    records: list[Record] = []
    races: list[RaceRecord] = []
    for line, (_, entry) in measured.items():
        header = owned[line]
        if header is None:
            continue
        if isinstance(entry, Trial):
            records.append(Record(entry, header, line))
        else:
            races.append(RaceRecord(entry, header, line))
    return LogFile(
        path,
        headers=tuple(headers.values()),
        kernels=tuple(kernels),
        records=tuple(records),
        races=tuple(races),
        torn=tuple(torn),
        foreign=tuple(foreign),
        orphans=tuple(line for line, header in owned.items() if not header),
        lines=lines,
    )


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor to append to the file at `path`, made if it is not there, under its lock.

    The lock is flock's: it goes with the process that holds it, killed or not. Raises TuningError
    for what the system refuses, in the block too.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _current(path)
        try:
            yield file
        finally:
            os.close(file)
    except OSError as error:
        raise TuningError(
            f"tuning log '{path}' cannot be written: {error.strerror}; what is in it is safe, "
            "and the next writer goes on after it"
        ) from error


def _current(path: Path) -> int:
    """An exclusive lock on the file that has the name `path` now."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not take_lock(file):
                note(
                    f"the file system of '{path}' has no locks: let only one process at a time "
                    "write to it, or choose another with --log or PLANISH_LOG"
                )
            # While this one waited, a pruning may have put another file in its place.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def append(file: int, lines: bytes) -> None:
    """Appends whole lines in one write, on a line of their own even after a torn one.

    OSError if not all of it could be written; at most the last line is then torn.
    """
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    while lines:
        # The system may take a part (disk full, file size limit): the next call says why.
        lines = lines[os.write(file, lines) :]


def content_of(file: int) -> bytes:
    """All that is in an open file."""
    with open(os.dup(file), "rb") as reader:
        reader.seek(0)
        return reader.read()


def replace(path: Path, lines: Iterable[bytes]) -> None:
    """Puts a file of these lines in the place of `path`, whole or not at all, on disk."""
    place = path.resolve()  # what a link leads to, not the link
    with scratch_folder(place.parent) as folder:
        scratch = folder / place.name
        with scratch.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(place.stat().st_mode if place.exists() else 0o644)
        scratch.replace(place)
