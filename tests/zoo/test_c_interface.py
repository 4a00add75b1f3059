"""The C program of examples/c runs artefacts: here as Python does, and for aarch64 under qemu."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import planish
from planish.artefact.format import Manifest, read_manifest
from planish.tolerances import compare
from tests.zoo.models import zoo_model

pytestmark = pytest.mark.zoo
SOURCE = Path(__file__).parents[2] / "examples" / "c" / "run.c"
SYSROOT = Path("/usr/aarch64-linux-gnu")


def run_in_c(
    folder: Path, inputs: dict[str, np.ndarray], compiler: str, emulator: list[str]
) -> dict[str, np.ndarray]:
    """The outputs of an artefact through the C interface, built with header and library alone."""
    manifest = read_manifest(folder)
    program = folder.parent / "run"
    command = [compiler, "-O1", f"-DMODEL={manifest.name}", "-include", folder / manifest.header]
    command += [SOURCE, "-o", program, folder / manifest.library, f"-Wl,-rpath,{folder}"]
    subprocess.run(command, check=True)
    files = [folder.parent / f"input{i}.raw" for i in range(len(manifest.inputs))]
    results = [folder.parent / f"output{i}.raw" for i in range(len(manifest.outputs))]
    for tensor, file in zip(manifest.inputs, files):
        file.write_bytes(np.ascontiguousarray(inputs[tensor.name]).tobytes())
    done = subprocess.run(
        [*emulator, program, folder / "weights.bin", *files, *results], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return read_outputs(manifest, results)


def read_outputs(manifest: Manifest, files: list[Path]) -> dict[str, np.ndarray]:
    return {
        tensor.name: np.frombuffer(file.read_bytes(), tensor.dtype).reshape(tensor.shape)
        for tensor, file in zip(manifest.outputs, files)
    }


def test_c_program_gets_the_same_bytes_as_python(made: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    model = zoo_model("silero_vad_v6_static16k", made)
    planish.compile(model.path, tmp_path / "artefact", verify=False)
    with planish.load(tmp_path / "artefact") as loaded:
        expected = loaded.run(model.inputs)
    actual = run_in_c(tmp_path / "artefact", model.inputs, compiler, [])
    for name, array in expected.items():
        assert actual[name].tobytes() == array.tobytes()


def test_library_needs_the_c_library_only(made: Path, tmp_path: Path) -> None:
    tool = shutil.which("ldd") or pytest.skip("no ldd")
    model = zoo_model("silero_vad_v6_static16k", made)
    planish.compile(model.path, tmp_path / "artefact", verify=False)
    (library,) = (tmp_path / "artefact").glob("*.so")
    listed = subprocess.run([tool, library], check=True, capture_output=True, text=True).stdout
    needed = {Path(line.split()[0]).name.split(".")[0] for line in listed.splitlines()}
    assert needed <= {"linux-vdso", "libc", "libm", "libpthread", "ld-linux-x86-64"}


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1",
        "romanizer_encoder",
        pytest.param("minilm_l6_fp32", marks=pytest.mark.slow),
    ],
)
def test_cortex_a72_under_qemu(name: str, made: Path, tmp_path: Path) -> None:
    compiler = shutil.which("aarch64-linux-gnu-gcc") or pytest.skip(
        "no aarch64 cross compiler (Debian's gcc-aarch64-linux-gnu)"
    )
    qemu = shutil.which("qemu-aarch64-static") or pytest.skip(
        "no qemu-aarch64-static (Debian's qemu-user-static)"
    )
    if not SYSROOT.is_dir():
        pytest.skip(f"no aarch64 C library at {SYSROOT} (Debian's libc6-dev-arm64-cross)")
    model = zoo_model(name, made)
    shapes = {tensor: array.shape for tensor, array in model.inputs.items()}
    folder = tmp_path / "artefact"
    planish.compile(model.path, folder, target="cortex-a72", shapes=shapes, name=name)
    actual = run_in_c(folder, model.inputs, compiler, [qemu, "-L", str(SYSROOT)])
    for output, expected in model.outputs.items():
        difference = compare(actual[output], expected)
        assert difference.ok, f"{output}: {difference.reason}"
