"""How many threads an artefact is made for: chosen, told, and noted where it is too few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import planish
from planish.artefact.format import read_manifest
from planish.ir.errors import PlanishNote

_USES_THREADS = """
import os, sys
import numpy as np
import planish
model = planish.load(sys.argv[1], threads=2)
before = len(os.listdir("/proc/self/task"))
model.run({t.name: np.zeros(t.shape, t.dtype) for t in model.inputs})
print(len(os.listdir("/proc/self/task")) - before)
"""


def _compile(output: Path) -> subprocess.CompletedProcess[str]:
    """Compile a product of matrices where one CPU is allowed."""
    sides = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [256, 256]) for name in names]
        for names in ("ab", "c")
    ]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", *sides)
    model = output.with_suffix(".onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), model)
    command = [sys.executable, "-m", "planish", "compile", str(model), "-o", str(output)]
    command += ["--no-verify", "--no-log", "--json"]
    one = {min(os.sched_getaffinity(0))}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, one),
    )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_built_where_one_cpu_is_allowed(tmp_path: Path) -> None:
    done = _compile(tmp_path / "one")
    assert "made for one thread and never uses another; threads=N (--threads N)" in done.stderr
    assert json.loads(done.stdout)["threads"] == 1
    assert read_manifest(tmp_path / "one").threads == 1
    with pytest.warns(PlanishNote, match="was compiled for 1 thread, 2 are asked for"):
        planish.load(tmp_path / "one", threads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PlanishNote)
        two = tmp_path / "two"
        planish.compile(tmp_path / "one.onnx", two, threads=2, verify=False, log=False)
        planish.load(tmp_path / "two", threads=2)
        planish.load(tmp_path / "one")
    command = [sys.executable, "-W", "ignore", "-c", _USES_THREADS]
    started = [
        subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True).stdout
        for name in ("one", "two")
    ]
    assert started == ["0\n", "1\n"]
