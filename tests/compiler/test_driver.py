"""A compilation puts a verified artefact in place, or leaves what was there."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import planish
from planish import driver
from planish.ir.reference import evaluate
from planish.targets.emit import Emitted
from planish.targets.hardware import find_target
from planish.verdict import VerificationFailed
from tests.compiler.small_models import embedding, perceptron


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small perceptron."""
    return perceptron(tmp_path / "small.onnx")


def spoil_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the code generator forget the weights."""
    true_emit = driver.emit

    def emit(*args: object, **kwargs: object) -> Emitted:
        emitted = true_emit(*args, **kwargs)
        weights = tuple((offset, np.zeros_like(array)) for offset, array in emitted.weights)
        return dataclasses.replace(emitted, weights=weights)

    monkeypatch.setattr(driver, "emit", emit)


def test_compiles_verifies_and_reports(model: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = planish.compile(
        model, tmp_path / "out", threads=1, progress=lambda *step: seen.append(step)
    )
    assert report.name == "small"
    assert report.verification is not None
    assert report.verification.ok
    assert list(report.seconds) == ["import", "optimise", "generate", "link", "verify", "write"]
    assert {step[0] for step in seen} > set(report.seconds)
    manifest = report.manifest
    assert manifest.verify["ok"] is True
    assert manifest.target["cores"] == 1
    named = {node for kernel in manifest.kernels for node in kernel.onnx_nodes}
    assert named >= {"first", "second"}
    graph = planish.import_model(model)
    x = np.random.default_rng(1).standard_normal((2, 12)).astype("f4")
    with planish.load(tmp_path / "out", check=True) as loaded:
        np.testing.assert_allclose(
            loaded.run({"x": x})["y"], evaluate(graph, {"x": x})["y"], rtol=1e-5, atol=1e-5
        )
    assert {entry.name for entry in tmp_path.iterdir()} == {"small.onnx", "out"}


def test_bytes_and_protos_compile_too(model: Path, tmp_path: Path) -> None:
    from_bytes = planish.compile(model.read_bytes(), tmp_path / "a", name="small")
    from_proto = planish.compile(onnx.load(model), tmp_path / "b")
    assert from_bytes.name == from_proto.name == "small"
    assert from_bytes.manifest.digest == from_proto.manifest.digest


def test_the_same_model_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    for name in ("a", "deeper/b"):
        planish.compile(model, tmp_path / name)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("a", "deeper/b")
    ]
    assert files[0] == files[1]


def test_dimensions_are_fixed_by_name_or_shape(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "open.onnx", batch="batch")
    by_dim = planish.compile(model, tmp_path / "a", dims={"batch": 3}, verify=False)
    by_shape = planish.compile(model, tmp_path / "b", shapes={"x": (3, 12)}, verify=False)
    assert by_dim.manifest.inputs[0].shape == by_shape.manifest.inputs[0].shape == (3, 12)
    assert by_dim.manifest.options["dims"] == {"batch": 3}
    assert by_dim.manifest.verify == {"skipped": "not asked for"}
    with pytest.raises(planish.UnsupportedModel, match="'batch'"):
        planish.compile(model, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_indices_are_in_range_and_their_bound_is_kept(tmp_path: Path) -> None:
    report = planish.compile(embedding(tmp_path / "rows.onnx"), tmp_path / "out")
    assert report.verification is not None
    assert report.verification.ok
    assert report.manifest.options["input_bounds"] == {"ids": 11}


def test_without_onnxruntime_the_numpy_reference_is_the_judge(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    report = planish.compile(model, tmp_path / "out")
    assert report.verification is not None
    assert report.verification.reference == "numpy reference"
    assert report.verification.ok


def test_a_wrong_artefact_is_kept_aside(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = planish.compile(model, tmp_path / "out")
    spoil_weights(monkeypatch)
    with pytest.raises(
        VerificationFailed, match=r"output 'y' of the artefact differs from .*: \d+"
    ):
        planish.compile(model, tmp_path / "out")
    rejected = json.loads((tmp_path / "out.rejected/manifest.json").read_text())
    assert rejected["verify"]["ok"] is False
    kept = json.loads((tmp_path / "out/manifest.json").read_text())
    assert kept["digest"] == good.manifest.digest
    assert {e.name for e in tmp_path.iterdir()} == {"small.onnx", "out", "out.rejected"}


def test_an_interrupted_compilation_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "verify_artefact", interrupted)
    with pytest.raises(KeyboardInterrupt):
        planish.compile(model, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.onnx"]


def test_a_folder_that_is_no_artefact_is_refused_at_once(model: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("text")
    seen: list[tuple[str, int, int]] = []
    with pytest.raises(planish.ArtefactError, match="is not an artefact"):
        planish.compile(model, tmp_path / "thesis", progress=lambda *step: seen.append(step))
    assert seen == []


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_named_targets_of_this_architecture_are_verified(
    model: Path, tmp_path: Path, target: str
) -> None:
    chosen, host = find_target(target), find_target("host")
    if host.arch != chosen.arch or not set(chosen.features) <= set(host.features):
        pytest.skip(f"this machine does not run code for {target}")
    report = planish.compile(model, tmp_path / "out", target=target)
    assert report.verification is not None
    assert report.verification.ok
    # A float32 model, which converts nothing from or to float16.
    assert set(report.manifest.features) == set(chosen.features) - {"f16c"}


def test_code_for_another_cpu_is_not_verified(model: Path, tmp_path: Path) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("needs aarch64-linux-gnu-gcc")
    other = "cortex-a72" if find_target("host").arch == "x86_64" else "x86-64-v3"
    report = planish.compile(model, tmp_path / "out", target=other)
    assert report.verification is None
    assert report.unverified == f"code for target '{other}' does not run on this machine"
    assert report.manifest.verify == {"skipped": report.unverified}
    assert report.manifest.architecture == "aarch64"
