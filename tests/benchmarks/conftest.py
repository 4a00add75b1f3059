"""A folder of one small model, and the scripts of benchmarks/ as commands and as modules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from tests.compiler.small_models import perceptron

SCRIPTS = Path(__file__).parents[2] / "benchmarks"

Command = Callable[..., subprocess.CompletedProcess[str]]


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


@pytest.fixture
def script() -> Command:
    """Runs a script: `script("zoo.py", folder, "--json")`."""

    def run(name: str, *args: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPTS / name), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True)

    return run


@pytest.fixture
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import zoo` finds the script."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
