"""planish.load: right results, clear errors, and no code run that was not checked."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import build_toy, check, expected, sample

from planish.artefact import library as library_module
from planish.artefact.format import MANIFEST, read_manifest, render
from planish.artefact.loading import load
from planish.ir.errors import ArtefactError, PlanishError, TensorError


def sign(folder: Path, **changes: Any) -> None:
    """Change the manifest as whoever writes one could."""
    content = json.loads((folder / MANIFEST).read_text())
    content.pop("digest")
    (folder / MANIFEST).write_bytes(render({**content, **changes}))


@pytest.mark.parametrize("threads", [None, 1, 2, 4, 16])
def test_run(toy: Path, threads: int | None) -> None:
    with load(toy, threads=threads) as model:
        assert model.threads == threads or threads is None
        for seed in range(20):
            check(model, seed)


def test_description(toy: Path) -> None:
    model = load(str(toy))
    assert (model.name, model.inputs[1].name, model.inputs[1].shape) == ("toy", "k/é", ())
    assert [t.dtype for t in model.outputs] == ["float32", "int64"]
    assert model.kernels[2].onnx_nodes == ("/double/Add",)
    assert model.manifest.verify == {"max_abs_error": 1e-7}
    inputs = "x: float32[10, 100], k/é: int32[]"
    assert repr(model) == f"<planish.Model toy({inputs}) -> (y:0: float32[10, 100], n: int64[])>"
    model.close()
    assert repr(model).endswith("n: int64[]) (closed)>")


def test_outputs_are_new_and_aligned_or_the_given_ones(toy: Path) -> None:
    model = load(toy)
    first, second = model.run(sample(1)), model.run(sample(2))
    np.testing.assert_array_equal(first["y:0"], expected(sample(1)["x"], 5)["y:0"])
    assert not np.shares_memory(first["y:0"], second["y:0"])
    assert all(array.ctypes.data % 64 == 0 for array in second.values())
    third = model.run(sample(3), out={"n": first["n"]})
    assert third["n"] is first["n"]
    assert third["n"] == 7 * 309 + 5


class Foreign:
    """A tensor of another framework."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class OnGpu(Foreign):
    def __dlpack__(self, **arguments: Any) -> Any:
        raise BufferError("tensor is on cuda:0")


def test_kinds_of_input(toy: Path) -> None:
    model = load(toy)
    x, k = sample()["x"], np.int32(5)
    readonly = x.copy()
    readonly.flags.writeable = False
    wide = np.zeros((10, 200), np.float32)
    wide[:, ::2] = x
    subclass = x.view(np.matrix)
    for given in (x, readonly, np.asfortranarray(x), wide[:, ::2], Foreign(x), subclass):
        result = model.run({"x": given, "k/é": k})
        np.testing.assert_array_equal(result["y:0"], expected(x, 5)["y:0"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": None},
            "input 'x' is a NoneType, expected a numpy array or a DLPack tensor of float",
        ),
        ({"x": [[1.0]]}, "input 'x' is a list"),
        (
            {"x": np.zeros((10, 100))},
            "'x': expected float32 [10, 100], got float64 [10, 100]; conv",
        ),
        ({"x": np.zeros((10, 100), ">f4")}, "expected float32 [10, 100], got >f4 [10, 100]"),
        (
            {"x": np.zeros((100, 10), "f4")},
            "'x': expected float32 [10, 100], got float32 [100, 10]",
        ),
        ({"k/é": np.zeros(1, "i4")}, "input 'k/é': expected int32 [], got int32 [1]"),
        ({"z": 0}, "the inputs given to model 'toy': has ['z']; expected ['x', 'k/é']"),
        ({"x": OnGpu(np.zeros(1))}, "cannot be read through DLPack (tensor is on cuda:0)"),
    ],
)
def test_wrong_input(toy: Path, change: dict[str, Any], message: str) -> None:
    model = load(toy)
    with pytest.raises(TensorError, match=re.escape(message)) as caught:
        model.run({**sample(), **change})
    assert isinstance(caught.value, PlanishError)
    assert isinstance(caught.value, ValueError)
    check(model)


def test_missing_input_and_wrong_output(toy: Path) -> None:
    model = load(toy)
    with pytest.raises(TensorError, match=r"toy': lacks \['x'\] and has \['X'\]; expected"):
        model.run({"X": 0, "k/é": sample()["k/é"]})
    with pytest.raises(TensorError, match="takes a mapping of input names to arrays, got a list"):
        model.run([sample()["x"]])  # type: ignore[arg-type]
    with pytest.raises(TensorError, match=r"outputs given to model 'toy': has \['y'\]"):
        model.run(sample(), out={"y": np.zeros(1)})
    with pytest.raises(TensorError, match="output 'n' is a list, expected a numpy array or"):
        model.run(sample(), out={"n": []})  # type: ignore[dict-item]
    with pytest.raises(TensorError, match=r"output 'n': expected int64 \[\], got float64 \[\]"):
        model.run(sample(), out={"n": np.array(0.0)})
    fixed = np.zeros((10, 100), np.float32)
    fixed.flags.writeable = False
    with pytest.raises(TensorError, match="must be a writeable, C-contiguous array"):
        model.run(sample(), out={"y:0": fixed})


def test_a_kernel_that_fails(toy: Path) -> None:
    model = load(toy, threads=2)
    message = r"model 'toy' failed: kernel 'check' \(number 1 of 5\) failed with status 42"
    with pytest.raises(ArtefactError, match=message):
        model.run(sample(k=-1))
    with pytest.raises(ArtefactError, match=message):
        model.profile(sample(k=-1))
    check(model)


def test_profile(toy: Path) -> None:
    profile = load(toy).profile(sample())
    assert [name for name, _ in profile] == ["aligned", "check", "double", "double_add", "count"]
    assert all(0 <= seconds < 10 for _, seconds in profile)


def test_close(toy: Path) -> None:
    model = load(toy)
    other = model.clone(threads=1)
    model.close()
    model.close()
    with pytest.raises(ArtefactError, match="model 'toy' is closed; load it again"):
        model.run(sample())
    with pytest.raises(ArtefactError, match="closed"):
        model.clone()
    check(other)


@pytest.mark.parametrize("threads", [0, -1, 1025, "2", True, 1.0])
def test_wrong_threads(toy: Path, threads: Any) -> None:
    with pytest.raises(ArtefactError, match=r"expected a number from 1 to 1024, or None"):
        load(toy, threads=threads)


def test_threads_of_one_run(toy: Path) -> None:
    model = load(toy, threads=3)
    wanted = expected(sample()["x"], 5)
    for threads in (1, 3, None, 2, 1):
        outputs = model.run(sample(), threads=threads)
        assert all(np.array_equal(outputs[name], wanted[name]) for name in wanted)
    for wrong in (0, 4, "2", True, 1.0):
        with pytest.raises(ArtefactError, match="expected a number from 1 to 3, which model 'toy'"):
            model.run(sample(), threads=wrong)  # type: ignore[arg-type]


def test_loading_needs_numpy_only(toy: Path) -> None:
    program = (
        "import sys; from planish.artefact.loading import load; import numpy\n"
        f"load({str(toy)!r}).close()\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'tvm', 'tvm_ffi', 'onnx', "
        "'xgboost', 'networkx', 'llvmlite', 'ml_dtypes', 'typer', 'rich', 'scipy'}),"
        "sorted(m for m in sys.modules if m.startswith('planish.targets')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] []\n", "")


@pytest.mark.parametrize("place", [0, 100, -1])
@pytest.mark.parametrize("file", ["libtoy.so", "toy.h"])
def test_a_changed_byte_is_refused(own_toy: Path, file: str, place: int) -> None:
    content = bytearray((own_toy / file).read_bytes())
    content[place] ^= 1
    (own_toy / file).write_bytes(content)
    with pytest.raises(ArtefactError, match=rf"{file}' was changed after it was written"):
        load(own_toy)


def test_every_changed_byte_of_the_manifest_is_refused(own_toy: Path) -> None:
    original = (own_toy / MANIFEST).read_bytes()
    for place in range(len(original)):
        content = bytearray(original)
        content[place] ^= 1
        (own_toy / MANIFEST).write_bytes(content)
        with pytest.raises(ArtefactError, match=r"changed after|is damaged|artefact format"):
            read_manifest(own_toy)
    for content in (original[:-2], original + b" ", b"", b"[]", b"\xff", b"[" * 100_000):
        (own_toy / MANIFEST).write_bytes(content)
        with pytest.raises(ArtefactError, match=r"changed after|is damaged"):
            load(own_toy)


def test_changed_weights_are_seen_by_check(own_toy: Path) -> None:
    load(own_toy, check=True).close()
    weights = own_toy / "weights.bin"
    content = bytearray(weights.read_bytes())
    content[200] ^= 1
    weights.write_bytes(content)
    load(own_toy).close()
    with pytest.raises(
        ArtefactError, match=r"weights.bin' was changed .*; copy the artefact again"
    ):
        load(own_toy, check=True)
    weights.write_bytes(content[:-1])
    with pytest.raises(ArtefactError, match=r"weights.bin' has 4223 bytes, expected 4224; copy"):
        load(own_toy)


@pytest.mark.parametrize("file", ["libtoy.so", "toy.h", "weights.bin"])
def test_a_missing_file_is_named(own_toy: Path, file: str) -> None:
    (own_toy / file).unlink()
    with pytest.raises(ArtefactError, match=rf"cannot read '.*{file}': No such file"):
        load(own_toy)


def test_what_is_no_artefact(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"has no manifest.json, so it is not an artefact"):
        load(tmp_path)
    with pytest.raises(ArtefactError, match=r"there is no artefact '.*none'; compile one with"):
        load(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="file' is a file; an artefact is a folder"):
        load(tmp_path / "file")


def test_another_cpu_is_refused_before_its_code_is_loaded(
    own_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the library was loaded")

    monkeypatch.setattr(library_module, "Library", never)
    arch = platform.machine()
    sign(own_toy, cpu={"architecture": "vax", "features": {}})
    with pytest.raises(ArtefactError, match=rf"is for vax, this machine is {arch}; compile"):
        load(own_toy)
    sign(own_toy, cpu={"architecture": arch, "features": {"warp-drive": "warp_drive"}})
    with pytest.raises(
        ArtefactError, match="lacks: warp-drive; compile the model for this machine"
    ):
        load(own_toy)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 features")
def test_the_library_checks_the_cpu_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is not there to read, the library's own check speaks."""
    flags = Path("/proc/cpuinfo").read_text().split()
    missing = [f for f in ("avx512vp2intersect", "amx-fp16") if f.replace("-", "_") not in flags]
    if not missing or "popcnt" not in flags:
        pytest.skip("this machine has all the features that were tried")
    features = ("popcnt", *missing)
    folder = build_toy(tmp_path / "artefact", tmp_path / "work", features=features)
    assert read_manifest(folder).features["popcnt"] == "popcnt"
    with pytest.raises(ArtefactError, match="needs CPU features that this machine lacks: "):
        load(folder)
    monkeypatch.setattr(library_module, "_cpu_flags", frozenset)
    named = ", ".join(sorted(missing))
    with pytest.raises(ArtefactError, match=f"this CPU lacks {named}, which model 'toy' needs"):
        load(folder)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names x86 features")
def test_both_checks_of_the_cpu_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Linux lists, cpuid has: else the table has a wrong bit."""
    from planish.targets.runtime.cpu_features import known_features, required_features

    table = required_features("x86_64", sorted(known_features("x86_64")))
    flags = library_module._cpu_flags()
    present = [feature.name for feature in table if feature.cpuinfo in flags]
    absent = [feature.name for feature in table if feature.cpuinfo not in flags]
    folder = build_toy(tmp_path / "present", tmp_path / "work", features=present)
    check(load(folder))
    monkeypatch.setattr(library_module, "_cpu_flags", frozenset)
    folder = build_toy(tmp_path / "absent", tmp_path / "work", features=absent)
    with pytest.raises(ArtefactError, match="this CPU lacks ") as caught:
        load(folder)
    told = re.findall(r"[\w.-]+", str(caught.value).split("lacks ")[1].split(", which")[0])
    assert set(told[:-1]) <= set(absent)
    assert told[0] == absent[0]
