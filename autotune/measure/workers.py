"""Long-lived worker processes: one job each at a time, its time and memory limited.

A job that crashes, hangs or eats memory costs its worker, which is replaced, and nothing else.
Workers end with the thread that started them (see serve.py), so use a Workers from one thread.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, Literal

from planish.ir.errors import TuningError

#: Seconds between two looks at time and memory; a worker's answer is noticed at once.
_LOOK_SECONDS = 0.05
#: Seconds in which a worker has to start and to import what it needs (TVM: one second, unloaded).
_START_SECONDS = 120.0
#: Seconds between the end of a worker's connection and its own.
_END_SECONDS = 5.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Job:
    """A call of a function that workers can import; `seconds` and `memory` (bytes) are its limits.

    The memory is what the worker may have in RAM, its libraries included.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: its value, or a message and, if it raised, its error's class names.

    "killed": by a SIGKILL that was not ours, which says little of the job itself.
    """

    kind: Literal["returned", "raised", "crash", "killed", "timeout", "out_of_memory"]
    value: Any = None
    message: str = ""
    error: tuple[str, ...] = ()


def signal_name(number: int) -> str:
    """SIGSEGV for 11; real-time signals have no names."""
    return Signals(number).name if number in set(Signals) else f"signal {number}"


class _Worker:
    """One process and the connection to it."""

    def __init__(self, number: int, functions: Sequence[Callable[..., Any]], folder: Path) -> None:
        self.job: Job | None = None
        self.deadline = 0.0
        self._log = folder / f"worker-{os.getpid()}-{number}.log"
        ours, theirs = socket.socketpair()
        module = f"{__package__}.serve"
        command = [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())]
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for us; we then end it and what it started
                # numpy's own threads would be in the way.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        self.connection = Connection(ours.detach())
        self.pid = self._process.pid
        self.connection.send(sys.path)
        self._warm_up(functions)

    def _warm_up(self, functions: Sequence[Callable[..., Any]]) -> None:
        """Have it import the functions' modules now, on nobody's time."""
        self.connection.send((len, (tuple(functions),)))
        if not self.connection.poll(_START_SECONDS):
            self.kill()
            raise TuningError(f"a worker did not start within {_START_SECONDS:.0f} s")
        try:
            kind, *rest = self.connection.recv()
        except (EOFError, ConnectionError):
            raise TuningError(f"a worker did not start: {self.epitaph()}") from None
        if kind == "raised":
            self.kill()
            raise TuningError(f"a worker cannot import its functions: {rest[1]}")

    def begin(self, job: Job) -> None:
        """Send it a job; if it has just ended, `outcome` will tell."""
        self.job, self.deadline = job, time.monotonic() + job.seconds
        with suppress(ConnectionError):
            self.connection.send((job.function, job.arguments))

    def outcome(self) -> Outcome | None:
        """How its job ended; None if it has not."""
        assert self.job is not None
        if self.connection.poll():
            try:
                kind, *rest = self.connection.recv()
            except (EOFError, ConnectionError):
                message = self.epitaph()
                killed = self._process.returncode == -SIGKILL
                return Outcome("killed" if killed else "crash", message=message)
            except Exception as error:  # what it sent cannot be unpickled
                self.kill()
                return Outcome("crash", message=f"unreadable answer: {error}")
            if kind == "raised":
                return Outcome("raised", message=rest[1], error=tuple(rest[0]))
            return Outcome("returned", rest[0])
        if time.monotonic() > self.deadline:
            self.kill()
            return Outcome("timeout", message=f"no end within {self.job.seconds:g} s")
        if self._resident() > self.job.memory:
            self.kill()
            limit = self.job.memory >> 20
            return Outcome("out_of_memory", message=f"it took more than {limit} MiB")
        return None

    def _resident(self) -> int:
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE
        except (OSError, IndexError):  # it has just ended: the connection will tell
            return 0

    def epitaph(self) -> str:
        """How a process that has closed its connection ended, with the last line that it wrote."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self.kill()
        status = self._process.returncode
        if status < 0:
            how = f"killed by {signal_name(-status)}"
        else:
            how = f"ended with status {status}"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{how}: {lines[-1].strip()}" if lines else how

    @property
    def ended(self) -> bool:
        """True if the process, which has no job, is gone or about to be."""
        return self._process.poll() is not None or self.connection.poll()

    def kill(self) -> None:
        """End it and all that it started; leaves nothing for the system to keep."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, SIGKILL)
        self._process.wait()
        self.connection.close()


class Workers:
    """So many workers; a context manager that ends them."""

    def __init__(self, count: int, functions: Sequence[Callable[..., Any]], folder: Path) -> None:
        self.count = count
        self._functions, self._folder = tuple(functions), folder
        self._workers: list[_Worker] = []
        self._started = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, whatever they are at."""
        while self._workers:
            self._workers.pop().kill()

    @property
    def pids(self) -> list[int]:
        """The processes that there are at present."""
        return [worker.pid for worker in self._workers]

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Outcome]]:
        """Runs the jobs, and gives each one's number and outcome as it ends.

        Left early, by an error, Ctrl-C or the caller, it ends the workers that are at work.
        """
        waiting = deque(enumerate(jobs))
        numbers: dict[_Worker, int] = {}
        try:
            while waiting or numbers:
                for worker in self._idle(numbers, len(waiting)):
                    number, job = waiting.popleft()
                    numbers[worker] = number
                    worker.begin(job)
                wait([worker.connection for worker in numbers], _LOOK_SECONDS)
                for worker in list(numbers):
                    outcome = worker.outcome()
                    if outcome is not None:
                        worker.job = None
                        if outcome.kind not in ("returned", "raised"):
                            self._workers.remove(worker)
                        yield numbers.pop(worker), outcome
        finally:
            for worker in numbers:
                self._workers.remove(worker)
                worker.kill()

    def _idle(self, busy: dict[_Worker, int], wanted: int) -> list[_Worker]:
        """Workers for so many jobs, as far as there may be any; starts those that are missing."""
        for worker in [w for w in self._workers if w not in busy and w.ended]:
            self._workers.remove(worker)
            worker.kill()
        idle = [worker for worker in self._workers if worker not in busy]
        while len(idle) < wanted and len(self._workers) < self.count:
            self._started += 1
            self._workers.append(_Worker(self._started, self._functions, self._folder))
            idle.append(self._workers[-1])
        return idle[:wanted]
