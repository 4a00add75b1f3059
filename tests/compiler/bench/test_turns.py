"""Engines in turn: their processes, the order, and what is made of the times."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planish.bench.turns import (
    EngineFailed,
    Worker,
    check_peers,
    foreign_load,
    summarise,
    take_turns,
    warn_of_load,
    workers,
)
from planish.ir.errors import PlanishError


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped; a signal takes a moment to arrive."""
    for _ in range(200):
        if "T (stopped)" in Path(f"/proc/{pid}/status").read_text():
            return True
        time.sleep(0.01)
    return False


def test_workers_are_stopped_between_commands_and_errors_are_answers(tmp_path: Path) -> None:
    np.savez(tmp_path / "none.npz")
    with workers({"ours": ("planish", {})}) as started:
        worker = started["ours"]
        assert is_stopped(worker.pid)
        with pytest.raises(EngineFailed, match="ArtefactError: there is no artefact 'nowhere'"):
            worker.ask(do="start", model="nowhere", inputs=str(tmp_path / "none.npz"), threads=1)
        assert is_stopped(worker.pid)
        assert worker.ask(do="ready") == {}
    assert not Path(f"/proc/{worker.pid}").exists()


def test_what_an_engine_prints_does_not_come_between_the_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nos.system('echo said by the engine')\n")
    worker = Worker("onnxruntime", {"PYTHONPATH": str(tmp_path)})
    try:
        assert worker.ask(do="ready") == {}
    finally:
        worker.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert "said by the engine" in err


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(EngineFailed, match="the worker died with exit code 7"):
        Worker("onnxruntime", {"PYTHONPATH": str(tmp_path)})


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or waits for its parent to notice; a signal takes a moment."""
    for _ in range(200):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return True
        if "Z (zombie)" in status:
            return True
        time.sleep(0.01)
    return False


def test_what_an_engine_has_started_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "import pathlib, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
    )
    worker = Worker("onnxruntime", {"PYTHONPATH": str(tmp_path)})
    child = int((tmp_path / "pid").read_text())
    assert is_stopped(child)
    worker.close()
    assert has_ended(child)


def test_a_stopped_worker_ends_with_a_parent_that_is_killed() -> None:
    program = (
        "import os, signal\n"
        "from planish.bench.turns import Worker\n"
        "print(Worker('planish').pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert has_ended(int(done.stdout))


class Scripted:
    """A worker that tells who was asked."""

    def __init__(self, name: str, medians: list[float], asked: list[str]) -> None:
        self.name, self.medians, self.asked = name, medians, asked

    def ask(self, **command: Any) -> dict[str, float]:
        """The next of the medians."""
        assert command == {"do": "time", "seconds": 0.1}
        self.asked.append(self.name)
        return {"median": self.medians.pop(0), "others": 0.25 if self.name == "b" else 0.0}


def test_turns_alternate_and_quotients_stay_within_a_round() -> None:
    asked: list[str] = []
    told: list[tuple[int, int]] = []
    # The machine is twice as slow in the second round: only b itself is slower in the third.
    medians = {"planish": [1.0, 2.0, 1.0], "b": [3.0, 6.0, 4.0]}
    started: Any = {name: Scripted(name, spent, asked) for name, spent in medians.items()}
    rounds = take_turns(started, 3, 0.1, lambda _, done, total: told.append((done, total)))
    assert asked == ["planish", "b"] * 3
    assert told == [(i, 6) for i in range(6)]
    found = summarise(rounds)
    assert found["planish"].speed == 1
    assert found["planish"].median == 1
    assert found["planish"].spread == 1
    assert found["b"].speed == 3
    assert found["b"].median == 4
    assert found["b"].spread == pytest.approx(0.75)
    assert foreign_load(rounds) == 0.25


def test_a_loaded_machine_is_told() -> None:
    assert warn_of_load(0.05) == ""
    assert "other processes used 1.5 CPUs" in warn_of_load(1.5)


def test_peers_are_known_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlanishError, match="against 'tvm'; known are onnxruntime, openvino"):
        check_peers(["onnxruntime", "tvm"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlanishError, match="openvino is not installed; `pip install openvino`"):
        check_peers(["openvino"])
    with pytest.raises(PlanishError, match="are not installed; `pip install onnxruntime openvino`"):
        check_peers(["onnxruntime", "openvino"])
    check_peers([])
