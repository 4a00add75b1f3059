"""The C interface: the example gives the same bytes as Python, and misuse gives an error text."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from toy_model import HOST, build_toy, expected, sample

from planish.artefact.loading import load
from planish.targets.linking import find_toolchain

EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "run.c"
AARCH64_ROOT = Path("/usr/aarch64-linux-gnu")


def build_example(artefact: Path, program: Path, compiler: tuple[str, ...]) -> Path:
    command = [*compiler, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-DMODEL=toy"]
    command += ["-include", f"{artefact}/toy.h", str(EXAMPLE), "-o", str(program)]
    command += [f"{artefact}/libtoy.so", f"-Wl,-rpath,{artefact}"]
    subprocess.run(command, check=True)
    return program


def run_example(command: list[str], artefact: Path, work: Path) -> dict[str, np.ndarray]:
    inputs = sample()
    files = []
    for name, array in zip(("in0", "in1"), inputs.values()):
        array.tofile(work / name)
        files.append(str(work / name))
    files += [str(work / "out0"), str(work / "out1")]
    command = [*command, str(artefact / "weights.bin"), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    y = np.fromfile(work / "out0", np.float32).reshape(10, 100)
    return {"y:0": y, "n": np.fromfile(work / "out1", np.int64).reshape(())}


def test_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_example_gives_the_same_bytes_as_python(toy: Path, tmp_path: Path) -> None:
    program = build_example(toy, tmp_path / "run", find_toolchain(HOST).command)
    got = run_example([str(program)], toy, tmp_path)
    by_python = load(toy).run(sample())
    assert {k: v.tobytes() for k, v in got.items()} == {
        k: v.tobytes() for k, v in by_python.items()
    }
    wrong = [program, toy / "weights.bin", tmp_path / "none", tmp_path / "in1", "/dev/null", "/"]
    done = subprocess.run(wrong, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/none\n")


def test_aarch64_artefact_runs_under_qemu(tmp_path: Path) -> None:
    for tool in ("qemu-aarch64-static", "aarch64-linux-gnu-gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    features = ("neon", "dotprod")
    artefact = build_toy(
        tmp_path / "a", tmp_path / "w", triple="aarch64-linux-gnu", features=features
    )
    program = build_example(artefact, tmp_path / "run", ("aarch64-linux-gnu-gcc",))
    emulator = ["qemu-aarch64-static", "-L", str(AARCH64_ROOT)]
    got = run_example([*emulator, str(program)], artefact, tmp_path)
    for name, array in expected(sample()["x"], 5).items():
        np.testing.assert_array_equal(got[name], array)
    command = [*emulator, "-cpu", "cortex-a53", str(program), *[str(artefact / "weights.bin")] * 5]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this CPU lacks dotprod, which model 'toy' needs" in done.stderr


class Toy:
    """The library as a C program sees it."""

    def __init__(self, folder: Path) -> None:
        self.dll = ctypes.CDLL(str(folder / "libtoy.so"))
        self.dll.toy_error.restype = ctypes.c_char_p
        self.dll.toy_kernel_name.restype = ctypes.c_char_p
        self.dll.toy_input.restype = ctypes.c_void_p
        self.dll.toy_close.argtypes = [ctypes.c_void_p]
        self.dll.toy_context_destroy.argtypes = [ctypes.c_void_p]

    def error(self) -> str:
        return str(self.dll.toy_error().decode())


def test_misuse_gives_an_error_text(toy: Path, tmp_path: Path) -> None:
    c = Toy(toy)
    model, context = ctypes.c_void_p(), ctypes.c_void_p()
    assert c.dll.toy_open(b"/nonexistent", ctypes.byref(model)) == 1002
    assert c.error() == "cannot open the weights '/nonexistent': No such file or directory"
    assert model.value is None
    assert c.dll.toy_open(bytes(tmp_path), ctypes.byref(model)) == 1002
    short = tmp_path / "short"
    short.write_bytes(b"x")
    assert c.dll.toy_open(bytes(short), ctypes.byref(model)) == 1002
    assert "has 1 bytes, expected 4224" in c.error().replace("have", "has")
    assert c.dll.toy_open(None, ctypes.byref(model)) == 1001
    assert c.dll.toy_open(bytes(toy / "weights.bin"), None) == 1001
    assert c.dll.toy_open(bytes(toy / "weights.bin"), ctypes.byref(model)) == 0
    assert c.dll.toy_context_create(None, 0, ctypes.byref(context)) == 1001
    assert c.dll.toy_context_create(model, -1, ctypes.byref(context)) == 1001
    assert c.error() == "threads is -1, expected 0 (all usable CPUs) to 1024"
    assert c.dll.toy_context_create(model, 2, ctypes.byref(context)) == 0
    assert c.dll.toy_context_threads(context) == 2
    assert c.dll.toy_run(None, None, None) == 1001
    assert c.dll.toy_run(context, None, None) == 1001
    assert c.error() == "the pointer to input 'x' is NULL"
    assert c.dll.toy_run_threads(context, 3, None, None) == 1001
    assert c.error() == "threads is 3, expected 0 (all of the context's) to 2"
    c.dll.toy_context_destroy(context)
    c.dll.toy_close(model)
    c.dll.toy_context_destroy(None)
    c.dll.toy_close(None)


def test_descriptions(toy: Path) -> None:
    c = Toy(toy)
    assert (c.dll.toy_input_count(), c.dll.toy_output_count(), c.dll.toy_kernel_count()) == (
        2,
        2,
        5,
    )
    assert [c.dll.toy_kernel_name(i) for i in (0, 4, 5, -1)] == [b"aligned", b"count", None, None]
    assert c.dll.toy_input(2) is None
    assert c.dll.toy_input(-1) is None


@pytest.mark.parametrize("shift", [0, 4, 60])
def test_unaligned_buffers_are_staged(toy: Path, shift: int) -> None:
    """The toy's first kernel fails where a pointer that it gets is not aligned."""
    memory = {name: np.empty(a.nbytes + 128, np.uint8) for name, a in sample().items()}
    inputs = {}
    for name, array in sample().items():
        offset = -memory[name].ctypes.data % 64 + shift
        view = memory[name][offset : offset + array.nbytes].view(array.dtype)
        inputs[name] = view.reshape(array.shape)
        inputs[name][...] = array
    space = np.empty(4000 + 128, np.uint8)
    offset = -space.ctypes.data % 64 + shift
    out = space[offset : offset + 4000].view(np.float32).reshape(10, 100)
    result = load(toy, threads=2).run(inputs, out={"y:0": out})
    assert result["y:0"] is out
    for name, array in expected(sample()["x"], 5).items():
        np.testing.assert_array_equal(result[name], array)
