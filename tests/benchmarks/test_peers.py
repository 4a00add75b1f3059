"""The table of planish against other engines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planish.bench.contest import Contest
from planish.bench.turns import Timing
from tests.benchmarks.conftest import Command


def test_rows_and_means(zoo: Path, script: Command) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    flags = ("--against", "onnxruntime", "--threads", "1", "--rounds", "2", "--seconds", "0.02")
    done = script("peers.py", zoo, *flags)
    assert done.returncode == 0, done.stderr
    heading, _, line, mean = done.stdout.splitlines()
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    found = dict(zip([cell.strip() for cell in heading.split("|")[1:-1]], cells, strict=True))
    assert (found["model"], found["threads"], found["within"]) == ("small", "1", "yes")
    assert float(found["planish ms"]) > 0
    assert float(found["of largest"]) < 1e-5
    assert mean.startswith(f"1 thread, 1 models: geometric mean {found['speed']}, least")


def test_a_model_that_does_not_compile_is_a_row(zoo: Path, script: Command) -> None:
    (zoo / "small/small.onnx").write_text("no model")
    done = script("peers.py", zoo, "--against", "", "--threads", "1", "--json")
    assert done.returncode == 1
    row, mean = map(json.loads, done.stdout.splitlines())
    assert row["threads"] == 1
    assert "small.onnx' is not" in row["failed"]
    assert mean["geometric_mean"] is None


def test_unknown_peers_are_a_message(zoo: Path, script: Command) -> None:
    done = script("peers.py", zoo, "--against", "tvm")
    assert done.returncode == 1
    assert done.stderr == (
        "planish cannot be timed against 'tvm'; known are onnxruntime, openvino\n"
    )


@pytest.mark.usefixtures("_importable")
def test_speed_is_against_the_better_peer_and_the_mean_is_geometric() -> None:
    import peers

    y = {"y": np.array([1.0, 2.0], "f4")}
    timings = {
        "planish": Timing(2e-3, 0.0, 1.0),
        "onnxruntime": Timing(8e-3, 0.0, 4.0),
        "openvino": Timing(1e-3, 0.0, 0.5),
    }
    row = peers.judge(Contest(timings, {"planish": y}, {}, 0.0), {"ok": True})
    assert row["speed"] == 0.5
    assert row["seconds"] == {"planish": 2e-3, "onnxruntime": 8e-3, "openvino": 1e-3}
    assert row["check"]["ok"]
    records = [
        {"model": "slow", "threads": 2, "speed": 0.5},
        {"model": "fast", "threads": 2, "speed": 8.0},
        {"model": "broken", "threads": 2, "failed": "no"},
        {"model": "fast", "threads": 1, "speed": 3.0},
    ]
    assert peers.summarise(records, 2) == {
        "threads": 2,
        "models": 2,
        "geometric_mean": pytest.approx(2.0),
        "least": 0.5,
        "slowest": "slow",
    }
