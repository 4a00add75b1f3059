"""The first example of the README: trained by its script, compiled, and reading right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import planish

FOLDER = Path(__file__).parents[2] / "examples/digits"


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, FOLDER / script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_the_model_is_what_the_script_trains_and_reads_digits(tmp_path: Path) -> None:
    told = run("train.py", tmp_path / "again.onnx")
    found = re.search(r"reads (\d+) of 360 images right", told)
    assert found is not None
    assert 324 <= int(found[1]) < 360
    shipped, again = weights(FOLDER / "digits.onnx"), weights(tmp_path / "again.onnx")
    assert shipped.keys() == again.keys()
    for name, array in shipped.items():  # another BLAS rounds differently, which training amplifies
        np.testing.assert_allclose(again[name], array, atol=0.05)
    planish.compile(FOLDER / "digits.onnx", tmp_path / "out", dims={"batch": 1})
    lines = run("read.py", tmp_path / "out", 3).splitlines()
    assert len(lines) == 10
    assert re.fullmatch(r"(\s*\d \(\d+%\)){5}", lines[8])
    read = re.match(r"(\d+) of 360 ", lines[9])
    assert read is not None
    assert 324 <= int(read[1]) < 360
