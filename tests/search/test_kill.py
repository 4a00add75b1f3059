"""kill -9 of `planish tune` at a random moment loses at most the trial in flight."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from planish.autotune.log import TuningLog
from tests.compiler.small_models import perceptron

#: Enough that no run ends before it is killed.
PROGRAM = "from planish.cli import main; main()"
COMMAND = ("--trials", "10000", "--budget", "1h")


def start(model: Path, log: Path, seed: int) -> subprocess.Popen[str]:
    """`planish tune` in a process of its own; its batches come as lines on stderr."""
    output = model.with_name("out")
    options = ["-o", str(output), "--log", str(log), "--seed", str(seed), *COMMAND]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "tune", str(model), *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(model.parent)},
    )


def until_a_batch(told: IO[str]) -> str:
    """All lines up to the first that tells of trials: there may be notes before it."""
    lines = []
    for line in told:
        lines.append(line)
        if re.match(r"\d+ trials", line):
            break
    return "".join(lines)


def kill_one(model: Path, log: Path, seed: int) -> None:
    """Starts a tuner, kills it some time after its first batch, and looks at the log."""
    before = len(TuningLog.read([log]).records) if log.exists() else 0
    process = start(model, log, seed)
    assert process.stderr is not None
    chance = random.Random(seed)
    first = until_a_batch(process.stderr) if seed % 4 else ""
    time.sleep(chance.uniform(0, 2))
    assert process.poll() is None, first + process.stderr.read()
    process.send_signal(signal.SIGKILL)
    told = first + process.stderr.read()
    process.wait()
    announced = max([0, *map(int, re.findall(r"^(\d+) trials", told, re.M))])
    assert announced > 0 or not first, told
    if not log.exists():  # killed before there was anything to lose
        return
    (file,) = TuningLog.read([log]).files
    assert len(file.torn) == 0
    assert len(file.records) >= before + announced
    for text in file.lines:
        json.loads(text)
    measured = [(r.trial.task, r.trial.point) for r in file.records if r.trial.median is not None]
    assert len(set(measured)) == len(measured), "a point was measured again"
    assert not model.with_name("out").exists()


def test_kill(tmp_path: Path) -> None:
    kill_one(perceptron(tmp_path / "small.onnx"), tmp_path / "log", 1)


@pytest.mark.slow
def test_kill_at_twenty_random_moments(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx", batch=48)  # some hundreds of points
    for seed in range(20):
        kill_one(model, tmp_path / "log", seed)


@pytest.mark.slow
def test_interrupt_ends_in_an_artefact_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model, log = perceptron(tmp_path / "small.onnx"), tmp_path / "log"
    process = start(model, log, 0)
    assert process.stderr is not None
    first = until_a_batch(process.stderr)
    process.send_signal(signal.SIGINT)
    told = first + process.stderr.read()
    assert process.wait() == 0, told
    assert (tmp_path / "out/manifest.json").exists()
    assert TuningLog.read([log]).records
    left = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in left if "planish" in name or name.startswith(".out")]
