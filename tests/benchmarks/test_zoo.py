"""The benchmark measures, checks and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import Command

pytest.importorskip("onnxruntime", reason="the benchmark compares with onnxruntime")

QUICK = ("--rounds", 2, "--cold-rounds", 1, "--seconds", 0.02, "--threads", 1)


def test_table_and_json(zoo: Path, script: Command) -> None:
    done = script("zoo.py", zoo, *QUICK)
    assert done.returncode == 0, done.stderr
    heading, _, line = done.stdout.splitlines()
    assert [cell.strip() for cell in heading.split("|")][1] == "model"
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[1] == "small"
    assert "yes" in cells
    assert line.count("|") == heading.count("|")


def test_json_and_a_wrong_reference(zoo: Path, script: Command) -> None:
    file = zoo / "small/reference.npz"
    with np.load(file) as arrays:
        wrong = {key: -arrays[key] if key.startswith("out:") else arrays[key] for key in arrays}
    np.savez(file, **wrong)
    done = script("zoo.py", zoo, *QUICK, "--json", "--models", "small")
    assert done.returncode == 1
    record = json.loads(done.stdout)
    assert record["check"]["ok"] is False
    assert record["check"]["reasons"][0].startswith("y: ")
    for engine in ("planish", "onnxruntime"):
        assert 0 < record[engine]["latency"] < record[engine]["cold"]
        assert record[engine]["resident"] > 10e6
    assert record["latency_ratio"] > 0


def test_a_model_that_does_not_compile_is_a_line(zoo: Path, script: Command) -> None:
    (zoo / "small/small.onnx").write_text("no model")
    done = script("zoo.py", zoo, *QUICK)
    assert done.returncode == 1
    assert "is not" in done.stdout.splitlines()[-1]
