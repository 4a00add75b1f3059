"""The table of what the optimiser does, onnxruntime's arena, and another checkout's latency."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.benchmarks.conftest import SCRIPTS, Command

ROOT = SCRIPTS.parent


def test_a_row(zoo: Path, script: Command) -> None:
    pytest.importorskip("onnxruntime", reason="the table has its columns")
    done = script("optimiser.py", zoo, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["model"] == "small"
    assert record["onnx_nodes"] == 4
    assert record["kernels"] <= record["imported"]
    assert record["moved_after"] < record["moved_before"]
    assert record["bound"] <= record["arena"]
    # The one activation that lives between kernels has 3 x 16 floats.
    assert 3 * 16 * 4 <= record["onnxruntime_arena"] <= 2048
    assert "speed" not in record


@pytest.mark.slow
def test_a_row_with_another_checkout(zoo: Path, script: Command) -> None:
    pytest.importorskip("onnxruntime", reason="the table has its columns")
    quick = ("--before", ROOT, "--threads", 1, "--rounds", 1, "--seconds", 0.01)
    done = script("optimiser.py", zoo, *quick)
    assert done.returncode == 0, done.stderr
    heading, _, line = (
        [cell.strip() for cell in text.split("|")] for text in done.stdout.splitlines()
    )
    row = dict(zip(heading, line, strict=True))
    assert row["model"] == "small"
    assert row["arena"].endswith(" MB")
    before, now = (float(row[key].removesuffix(" ms")) for key in ("latency before", "now"))
    assert before > 0
    assert now > 0
    assert float(row["speed"]) > 0


def test_before_must_be_a_checkout(zoo: Path, script: Command) -> None:
    done = script("optimiser.py", zoo, "--before", zoo)
    assert done.returncode == 2
    assert f"--before {zoo} is no checkout of planish" in done.stderr


@pytest.mark.usefixtures("_importable")
def test_another_checkout_is_what_is_imported(tmp_path: Path) -> None:
    from optimiser import package_tree

    checkout, tree = tmp_path / "checkout", tmp_path / "tree"
    for folder in ("compiler/artefact", "ir", "passes", "autotune", "targets"):
        (checkout / folder).mkdir(parents=True)
        (checkout / folder / "__init__.py").write_text(f"home = {folder!r}\n")
    (checkout / "compiler/__init__.py").write_text("")
    tree.mkdir()
    program = "import planish.artefact, planish.ir; print(planish.artefact.home, planish.ir.home)"
    environ = {**os.environ, **package_tree(checkout, tree)}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=True)
    assert done.stdout == "compiler/artefact ir\n"


@pytest.mark.usefixtures("_importable")
def test_arena_of_onnxruntime_holds_activations_only(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="its arena is measured")
    from onnxruntime_arena import arena_bytes

    # A running sum is not computed in place: two of the four are alive at a time.
    size = 1 << 16
    nodes = [
        helper.make_node("CumSum", [f"v{i}", "axis"], [f"v{i + 1}"], f"sum {i}") for i in range(4)
    ]
    table = np.random.default_rng(1).standard_normal(1 << 20).astype("f4")
    weights = [
        helper.make_tensor("axis", TensorProto.INT64, (), [0]),
        onnx.numpy_helper.from_array(table, "table"),
    ]
    nodes.append(helper.make_node("Gather", ["table", "ids"], ["w"], "look up"))
    graph = helper.make_graph(
        nodes,
        "chain",
        [
            helper.make_tensor_value_info("v0", TensorProto.FLOAT, (size,)),
            helper.make_tensor_value_info("ids", TensorProto.INT64, (2,)),
        ],
        [
            helper.make_tensor_value_info("v4", TensorProto.FLOAT, (size,)),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, (2,)),
        ],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "chain.onnx")
    v0 = np.random.default_rng(2).standard_normal(size).astype("f4")
    np.savez(tmp_path / "in.npz", v0=v0, ids=np.array([5, 9]))
    # v1, v2 and v3, of which two are alive at once; no input, output or weight.
    found = arena_bytes(tmp_path / "chain.onnx", tmp_path / "in.npz")
    assert 2 * 4 * size <= found < 3 * 4 * size
    with pytest.raises(RuntimeError, match="onnxruntime does not run"):
        arena_bytes(tmp_path / "none.onnx", tmp_path / "in.npz")
