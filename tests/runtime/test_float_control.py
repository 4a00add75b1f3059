"""Subnormal numbers are zeros to kernels, or kept; the caller computes on as it did before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from toy_model import HOST, WEIGHTS, build_toy

from planish.targets.linking import find_toolchain
from planish.targets.model_source import RUNTIME

SOURCE = Path(__file__).parent / "float_control_test.c"
AARCH64 = "aarch64-linux-gnu"


def check(folder: Path, keep: bool, triple: str, *emulator: str) -> None:
    zeros = np.zeros_like(WEIGHTS)
    toy = build_toy(
        folder / "toy", folder / "work", triple=triple, keep_subnormals=keep, weights=zeros
    )
    program = folder / "program"
    command = [*find_toolchain(triple).command, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += [f"-I{RUNTIME}", f"-I{toy}", str(SOURCE), "-o", str(program), f"{toy}/libtoy.so"]
    subprocess.run([*command, f"-Wl,-rpath,{toy}"], check=True)
    command = [*emulator, str(program), str(toy / "weights.bin"), str(int(keep))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_computes_in_its_own_mode_and_leaves_the_callers(keep: bool, tmp_path: Path) -> None:
    check(tmp_path, keep, HOST)


@pytest.mark.parametrize("keep", [False, True])
def test_the_same_on_aarch64(keep: bool, tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None or shutil.which(f"{AARCH64}-gcc") is None:
        pytest.skip("qemu-aarch64 or a cross compiler is not installed")
    check(tmp_path, keep, AARCH64, emulator, "-L", "/usr/aarch64-linux-gnu")
