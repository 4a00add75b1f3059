"""Appending trials to a log, one at a time, from as many processes as there are."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from planish.autotune.log.files import append, locked
from planish.autotune.log.race import Race
from planish.autotune.log.record import Header, Trial
from planish.ir.errors import TuningError

#: Seconds after which the next trial is also forced to disk.
SYNC_SECONDS = 5.0


class LogWriter:
    """Appends trials and races that were made under one header.

    A line is in the file when `append` returns, and outlives the process; a power cut loses at
    most the lines of the last SYNC_SECONDS. The header goes before the first line, and again
    wherever another file has come in its place. Writers in several threads and processes may have
    one log. TuningError if the file cannot be written, at once and not only with the first trial.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header) -> None:
        self.path, self.header = Path(path), header
        # The file that has the header, kept open: else a new one could come by its inode.
        self._introduced: int | None = None
        self._synced = time.monotonic()
        self._thread = threading.Lock()
        with locked(self.path):
            pass

    def append(self, entry: Trial | Race) -> None:
        """Writes a line; TuningError if the header lacks a trial's space, or the disk is full."""
        if isinstance(entry, Trial) and self.header.version_of(entry.space) is None:
            raise TuningError(
                f"a trial in space '{entry.space}' cannot be logged under header {self.header.id}, "
                f"whose spaces are {', '.join(name for name, _ in self.header.spaces)}"
            )
        with self._thread, locked(self.path) as file:
            known = self._introduced is not None and os.path.samestat(
                os.fstat(self._introduced), os.fstat(file)
            )
            opening = b"" if known else self.header.to_line()
            append(file, opening + entry.to_line(self.header.id))
            if not known:
                self._forget()
                # Not a duplicate, which would share the lock and keep it.
                self._introduced = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(file)
                self._synced = time.monotonic()

    def close(self) -> None:
        """Forces what was written to disk; a trial that comes later has the header before it."""
        if self._introduced is not None:
            with locked(self.path) as file:
                os.fsync(file)
            self._forget()

    def _forget(self) -> None:
        if self._introduced is not None:
            os.close(self._introduced)
        self._introduced = None

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
