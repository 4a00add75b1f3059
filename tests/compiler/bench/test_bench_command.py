"""`planish bench`: what it prints, its errors and exit codes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import planish
from planish.bench.contest import Contest
from planish.bench.peaks import Bandwidth, Level, Peaks
from planish.cli import benchmarking
from planish.cli.app import app
from tests.compiler.small_models import perceptron

QUICK = ("--seconds", 0.01, "--rounds", 2, "--threads", 1)


@pytest.fixture(autouse=True)
def _peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks that need no measuring: 100 GFLOPS, 25 GB/s."""
    levels = Level("L1", 1 << 20, False), Level("DRAM", None, True)
    peaks = Peaks({1: 100e9}, tuple(Bandwidth(level, 1, 4096, 25e9) for level in levels))
    monkeypatch.setattr(benchmarking, "measure_peaks", lambda threads, progress: peaks)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small perceptron with an open batch."""
    return perceptron(tmp_path_factory.mktemp("model") / "small.onnx", batch="n")


@pytest.fixture(scope="module")
def artefact(model: Path) -> Path:
    """The perceptron, compiled."""
    planish.compile(model, model.parent / "out", dims={"n": 3}, verify=False)
    return model.parent / "out"


def run(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `planish bench`."""
    result = CliRunner().invoke(app, ["bench", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


def test_the_machine_alone() -> None:
    code, out, _ = run("--threads", 1)
    assert code == 0
    assert "float32 multiply-add" in out
    assert "100 GFLOPS" in out
    assert "Kernels" not in out


def test_an_artefact_against_its_roofline(artefact: Path) -> None:
    code, out, _ = run(artefact, *QUICK)
    assert code == 0
    assert "of roofline" in out
    assert "first, bias, activation" in out  # ONNX nodes
    code, out, _ = run(artefact, *QUICK, "--json", "--top", 1)
    assert code == 0
    record = json.loads(out)
    (kernel,) = record["kernels"]
    moved, work = kernel["bytes"] / 25e9, kernel["flops"] / 100e9
    assert kernel["roofline"] == pytest.approx(max(moved, work))
    assert kernel["achieved"] == pytest.approx(kernel["roofline"] / kernel["seconds"])
    assert 0 < kernel["share"] <= 1
    assert record["seconds"] >= kernel["seconds"]
    assert record["peaks"]["bandwidths"][0] == {
        "level": "L1", "threads": 1, "bytes": 4096, "rate": 25e9
    }  # fmt: skip


def test_against_a_peer(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(5).standard_normal((4, 12)).astype("f4"))
    # The batch is that of the inputs.
    flags = ("--against", "onnxruntime", "--inputs", tmp_path / "in.npz", "--precision-check")
    code, out, _ = run(model, *QUICK, *flags, "--json")
    assert code == 0
    record = json.loads(out)
    assert set(record["engines"]) == {"planish", "onnxruntime"}
    assert record["engines"]["onnxruntime"]["speed"] > 0
    assert record["out_of_tolerance"] == {}
    assert 0 < record["errors"]["planish"]["largest"] < 1e-5


def test_outputs_that_differ_are_exit_code_1(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="the peer of this test")
    compete = benchmarking.compete

    def flipped(*args: Any) -> Contest:
        found = compete(*args)
        wrong = {name: -array for name, array in found.outputs["planish"].items()}
        return dataclasses.replace(found, outputs={**found.outputs, "planish": wrong})

    monkeypatch.setattr(benchmarking, "compete", flipped)
    flags = ("--against", "onnxruntime", "--precision-check")
    code, out, err = run(model, "--dim", "n=2", *QUICK, *flags)
    assert code == 1
    assert "outputs agree" in out
    assert " NO" in out
    assert "rms error" in out
    assert "out of tolerance of onnxruntime: output 'y': " in err


def test_precision_alone_needs_no_peer(model: Path) -> None:
    code, out, _ = run(model, "--shape", "x=2,12", *QUICK, "--precision-check", "--json")
    assert code == 0
    record = json.loads(out)
    assert list(record["engines"]) == ["planish"]
    assert 0 < record["errors"]["planish"]["rms"] < 1e-5


def test_mistakes_are_exit_code_2(model: Path, artefact: Path, tmp_path: Path) -> None:
    code, _, err = run(artefact, "--against", "onnxruntime", "--dim", "n=1")
    assert code == 2
    assert "--against and --dim are of an ONNX model" in err
    code, _, err = run("--precision-check")
    assert code == 2
    assert "--precision-check is of an ONNX model: give the .onnx file\n" in err
    code, _, err = run(model, "--against", "tvm")
    assert code == 2
    assert "against 'tvm'; known are onnxruntime, openvino" in err
    np.savez(tmp_path / "in.npz", z=np.ones(3, "f4"))
    code, _, err = run(artefact, "--inputs", tmp_path / "in.npz")
    assert code == 2
    assert "lacks ['x'] and has ['z']" in err
    code, _, err = run(tmp_path / "none.onnx")
    assert code == 2
    assert "none.onnx" in err


def test_a_loaded_machine_is_told(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = benchmarking.time_kernels
    monkeypatch.setattr(benchmarking, "time_kernels", lambda *args: (spent(*args)[0], 3.0))
    code, _, err = run(artefact, *QUICK)
    assert code == 0
    assert "other processes used 3.0 CPUs" in err
