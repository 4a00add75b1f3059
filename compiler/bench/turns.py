"""Engines timed in turn, each in a process of its own that is stopped while another is timed.

Idle thread pools spin, and would halve the speed of whoever is being timed; and on a machine that
others use too, only figures of one turn (A B C) can be compared.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.ir.errors import PlanishError

Record = dict[str, Any]
Progress = Callable[[str, int, int], None]

#: CPUs that other processes may use during a turn: what a shell and its terminal need.
TOLERATED = 0.1

#: What planish can be compared with, and the package that brings it.
PEERS = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


class EngineFailed(PlanishError):
    """An engine refused a model; the message is its own."""


def check_peers(names: Sequence[str]) -> None:
    """PlanishError unless all are known and installed; imports none of them."""
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise PlanishError(
            f"planish cannot be timed against {', '.join(map(repr, unknown))}; "
            f"known are {', '.join(PEERS)}"
        )
    missing = [PEERS[name] for name in names if importlib.util.find_spec(PEERS[name]) is None]
    if missing:
        raise PlanishError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            f"`pip install {' '.join(missing)}`, or `pip install 'planish[bench]'` for all peers"
        )


class Worker:
    """An engine's process, stopped except while it answers."""

    def __init__(self, engine: str, environ: Mapping[str, str] | None = None) -> None:
        """Starts worker.py; `environ` is added to the environment (PYTHONPATH: another planish)."""
        script = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
            start_new_session=True,  # signals reach what an engine may have started, too
        )
        self.ask(do="ready")

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(self, **command: Any) -> Record:
        """The worker's answer; EngineFailed with its words if it failed."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        self._signal(signal.SIGCONT)
        with suppress(BrokenPipeError):  # it has died: there is no answer to read either
            print(json.dumps(command), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise EngineFailed(f"the worker died with exit code {process.wait()}")
        self._signal(signal.SIGSTOP)
        answer: Record = json.loads(line)
        if "error" in answer:
            raise EngineFailed(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the worker."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        """Signals the worker and what its engine has started; nothing if it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@contextmanager
def workers(engines: Mapping[str, tuple[str, Mapping[str, str]]]) -> Iterator[dict[str, Worker]]:
    """Fresh workers by label, each of (engine, what to add to its environment)."""
    with ExitStack() as stack:
        started = {}
        for label, (engine, environ) in engines.items():
            started[label] = worker = Worker(engine, environ)
            stack.callback(worker.close)
        yield started


def take_turns(
    started: Mapping[str, Worker],
    rounds: int,
    seconds: float,
    progress: Progress | None = None,
    enough: Callable[[int], bool] | None = None,
) -> list[dict[str, Record]]:
    """What each worker measured in each round, A B C A B C …; they have been started on a model.

    `enough`, asked with the number of rounds so far, may end it early.
    """
    found: list[dict[str, Record]] = []
    for taken in range(rounds):
        if enough is not None and enough(taken):
            break
        found.append({})
        for label, worker in started.items():
            if progress is not None:
                done = (len(found) - 1) * len(started) + len(found[-1])
                progress("take turns", done, rounds * len(started))
            found[-1][label] = worker.ask(do="time", seconds=seconds)
    return found


@dataclass(frozen=True, slots=True)
class Timing:
    """An engine's latency over the rounds, in seconds.

    `median` is of the rounds' medians, `spread` their range in units of it. `speed` is the median
    of the rounds' quotients of this engine's latency by planish's: above 1, planish is faster.
    """

    median: float
    spread: float
    speed: float


def summarise(rounds: Sequence[Mapping[str, Record]], ours: str = "planish") -> dict[str, Timing]:
    """Each engine's timing over the rounds; quotients are taken within a round only."""
    found = {}
    for label in rounds[0]:
        medians = [entry[label]["median"] for entry in rounds]
        middle = statistics.median(medians)
        speed = statistics.median(
            entry[label]["median"] / entry[ours]["median"] for entry in rounds
        )
        found[label] = Timing(middle, (max(medians) - min(medians)) / middle, speed)
    return found


def foreign_load(rounds: Sequence[Mapping[str, Record]]) -> float:
    """The most CPUs that other processes used during a turn."""
    return max(float(record["others"]) for entry in rounds for record in entry.values())


def warn_of_load(others: float) -> str:
    """A sentence where other processes used more CPUs than TOLERATED, else nothing."""
    if others <= TOLERATED:
        return ""
    return (
        f"other processes used {others:.1f} CPUs meanwhile; "
        "the times say little: run it again on an idle machine"
    )
