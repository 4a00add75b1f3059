"""The benchmark measures, checks and reports, and stops the engine that is not timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from tests.compiler.small_models import perceptron

pytest.importorskip("onnxruntime", reason="the benchmark compares with onnxruntime")

SCRIPT = Path(__file__).parents[2] / "benchmarks/zoo.py"
QUICK = ["--rounds", "2", "--cold-rounds", "1", "--seconds", "0.02", "--threads", "1"]


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder of one model with its reference."""
    folder = tmp_path / "zoo/small"
    folder.mkdir(parents=True)
    model = perceptron(folder / "small.onnx", batch="n")
    x = np.random.default_rng(2).standard_normal((3, 12)).astype("f4")
    y = evaluate(import_model(model, dims={"n": 3}), {"x": x})["y"]
    np.savez(folder / "reference.npz", **{"in:x": x, "out:y": y})
    return folder.parent


def measure(zoo: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs the benchmark."""
    command = [sys.executable, str(SCRIPT), str(zoo), *QUICK, *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_table_and_json(zoo: Path) -> None:
    done = measure(zoo)
    assert done.returncode == 0, done.stderr
    heading, _, line = done.stdout.splitlines()
    assert [cell.strip() for cell in heading.split("|")][1] == "model"
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[1] == "small"
    assert "yes" in cells
    assert line.count("|") == heading.count("|")


def test_json_and_a_wrong_reference(zoo: Path) -> None:
    file = zoo / "small/reference.npz"
    with np.load(file) as arrays:
        wrong = {key: -arrays[key] if key.startswith("out:") else arrays[key] for key in arrays}
    np.savez(file, **wrong)
    done = measure(zoo, "--json", "--models", "small")
    assert done.returncode == 1
    record = json.loads(done.stdout)
    assert record["check"]["ok"] is False
    assert record["check"]["reasons"][0].startswith("y: ")
    for engine in ("planish", "onnxruntime"):
        assert 0 < record[engine]["latency"] < record[engine]["cold"]
        assert record[engine]["resident"] > 10e6
    assert record["latency_ratio"] > 0


def test_a_model_that_does_not_compile_is_a_line(zoo: Path) -> None:
    (zoo / "small/small.onnx").write_text("no model")
    done = measure(zoo)
    assert done.returncode == 1
    assert "is not" in done.stdout.splitlines()[-1]


def test_workers_are_stopped_between_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import zoo as benchmark

    engine = benchmark.Engine("onnxruntime")
    try:
        assert engine.ask(do="ready") == {}
        status = Path(f"/proc/{engine._process.pid}/status")
        for _ in range(1000):  # the signal is on its way
            if "T (stopped)" in status.read_text():
                break
        assert "T (stopped)" in status.read_text()
        with pytest.raises(benchmark.EngineFailed, match="nowhere"):
            engine.ask(do="start", model="nowhere.onnx", inputs="nowhere.npz", threads=1)
    finally:
        engine.close()
