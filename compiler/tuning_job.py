"""What a tuning is about: the model, the hardware, the log, and until when."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.record import Header
from planish.autotune.log.store import LogSource
from planish.autotune.log.writing import LogWriter
from planish.autotune.search.budget import Deadline
from planish.ir.graph import Graph
from planish.ir.target import Target


@dataclass(frozen=True, slots=True)
class Job:
    """What is tuned, for what, and where it is logged: `path`, of the user's store if `stored`.

    `deadline` is that of the whole command.
    """

    graph: Graph
    target: Target
    hardware: Fingerprint
    path: Path
    stored: bool
    seed: int
    deadline: Deadline = field(default_factory=Deadline)

    def open_writer(self) -> LogWriter:
        """Opens the log to append to it; TuningError if it cannot be written."""
        return LogWriter(self.path, Header.of(self.hardware))

    @property
    def sources(self) -> LogSource:
        """The logs to read."""
        return True if self.stored else [self.path] if self.path.exists() else False
