"""Measuring through TVM's RPC: a tracker and two servers on loopback, one lost in the middle."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from planish.autotune.measure import Candidate, Incumbent, Measurer, Status
from planish.autotune.measure.measurer import MakeRunner
from planish.autotune.measure.runner import ProcessRunner, Trial
from planish.autotune.measure.verdict import Verdict, make_judge
from planish.ir.errors import TargetError, TuningError
from planish.measuring import remote_runner
from planish.targets.trials.remote import Address, count_devices
from tests.measure.conftest import OPTIONS
from tests.measure.kernels_in_c import C_BACKEND, HOST, in_c, multiplication, problem_of

for package in ("cloudpickle", "psutil", "tornado"):
    pytest.importorskip(package, reason="TVM's RPC needs it")

KERNEL = multiplication()
KEY = "loopback"


class Farm:
    """A tracker and its servers, each with all that it starts in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.tracker: Address = ("127.0.0.1", _free_port())
        self.servers: list[subprocess.Popen[bytes]] = []
        self._start("rpc_tracker", self.tracker[1], "--silent")
        self._wait(self._answers)  # a server that is too early tries again after five seconds

    def add_server(self) -> None:
        """One more device of the key; returns at once."""
        place = f"{self.tracker[0]}:{self.tracker[1]}"
        options = ("--tracker", place, "--key", KEY, "--custom-addr", "127.0.0.1")
        self.servers.append(self._start("rpc_server", _free_port(), *options))

    def wait_for(self, count: int) -> None:
        """Returns when the tracker knows so many devices."""
        self._wait(lambda: count_devices(self.tracker, KEY) == count)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(self.tracker).close()
            return True
        return False

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()[-3000:]
            time.sleep(0.05)

    def kill(self, server: subprocess.Popen[bytes]) -> None:
        """A server and its sessions, as if the device lost power."""
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    def kill_at_work(self, server: subprocess.Popen[bytes]) -> None:
        """Kills a server while a kernel runs there: below it the listener, session and trial."""
        import psutil

        process = psutil.Process(server.pid)
        self._wait(lambda: len(process.children(recursive=True)) >= 3)
        self.kill(server)

    def close(self) -> None:
        """Ends everything."""
        self._stack.close()

    def _start(self, module: str, port: int, *options: str) -> subprocess.Popen[bytes]:
        place = ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
        command = [sys.executable, "-m", f"tvm.exec.{module}", *place, *options]
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._stack.callback(self.kill, process)
        return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A tracker and two servers."""
    started = Farm(tmp_path_factory.mktemp("farm"))
    try:
        started.add_server()
        started.add_server()
        started.wait_for(2)
        yield started
    finally:
        started.close()


def test_devices_work_side_by_side_and_one_is_lost(farm: Farm, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, timeout=1.5)
    make = remote_runner(farm.tracker, KEY)
    problem = problem_of(KERNEL, model_weights=1 << 20)
    with Measurer(
        C_BACKEND, HOST, options, make_runner=make, builders=1, base=tmp_path
    ) as measurer:
        names = ("right", "segv", "hang", "nan", "rotates", "slow")
        candidates = [Candidate("default", KERNEL), *(in_c(KERNEL, name) for name in names)]
        incumbent = Incumbent(in_c(KERNEL, "right"), 1.0)
        found = {r.candidate: r for r in measurer.measure(problem, candidates, incumbent)}
        failed = {"segv": Status.CRASH, "hang": Status.TIMEOUT, "nan": Status.WRONG}
        for name, result in found.items():
            timed = (Status.OK, Status.NOISY)  # this machine may be busy
            assert result.status in ((failed[name],) if name in failed else timed), result
        assert found["segv"].message == "running it: killed by SIGSEGV"
        assert found["slow"].hopeless
        assert len(measurer.runner.workers.pids) == 2  # type: ignore[attr-defined]

        lost = _count_lost(measurer.runner)
        many = [dataclasses.replace(in_c(KERNEL, "hang"), id=f"hang {n}") for n in range(2)]
        many += [dataclasses.replace(in_c(KERNEL, "slow"), id=f"slow {n}") for n in range(4)]
        doom = threading.Thread(target=farm.kill_at_work, args=(farm.servers[0],))
        doom.start()
        survivors = {r.candidate: r for r in measurer.measure(problem, many)}
        doom.join()
        assert len(survivors) == len(many)
        for name, result in survivors.items():
            assert (result.timing is None) == name.startswith("hang"), result
            assert (result.status is Status.TIMEOUT) == name.startswith("hang"), result
        assert len(lost) == 1
        assert lost[0].startswith("the device was lost: ")
    farm.wait_for(1)


def _count_lost(runner: object) -> list[str]:
    """Grows by the message of each trial that is lost with its device."""
    assert isinstance(runner, ProcessRunner)
    messages: list[str] = []
    outcomes = runner._outcomes

    def recorded(trials: Sequence[Trial]) -> Iterator[tuple[Trial, Verdict]]:
        for trial, verdict in outcomes(trials):
            if verdict.lost:
                messages.append(verdict.result.message)
            yield trial, verdict

    runner._outcomes = recorded  # type: ignore[method-assign]
    return messages


def _make(make: MakeRunner) -> None:
    make(Path("harness.so"), HOST, OPTIONS, make_judge(C_BACKEND, OPTIONS))


def test_tracker_without_devices(farm: Farm) -> None:
    with pytest.raises(
        TuningError, match=r"has no device 'nobody': start one there with `python -m tvm.exec"
    ):
        _make(remote_runner(farm.tracker, "nobody"))


def test_no_tracker() -> None:
    with pytest.raises(TargetError, match=r"no RPC tracker answers at 127.0.0.1:"):
        _make(remote_runner(("127.0.0.1", _free_port()), KEY))
