"""The code of the elementary functions: one loop, in vectors, without calls."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

from planish.ir.errors import TargetError
from planish.ir.target import Target
from planish.targets.hardware import TARGETS
from planish.targets.linking import find_toolchain
from tests.targets.vector_math_kernels import LEVELS, compile_object, functions, link

#: A register of the full width, a jump, and arithmetic on one number, in each assembly language.
FULL = {"x86-64-v2": r"%xmm", "x86-64-v3": r"%ymm", "x86-64-v4": r"%zmm", "cortex-a72": r"v\d+\.4s"}
SCALAR = {
    "x86_64": r"v?(add|sub|mul|div|sqrt|min|max|round|ucomi|fn?m(add|sub)\d+|cvt\w*)s[sd]2?\w*",
    "aarch64": r"f\w+\s+[sd]\d+, .*|[su]cvtf\s+[sd]\d+.*",
}
JUMP = {"x86_64": r"j\w+", "aarch64": r"(b|b\.\w+|cbn?z|tbn?z)"}
CALL = {"x86_64": r"call\w*", "aarch64": r"blr?"}
DISASSEMBLER = {"x86_64": "objdump", "aarch64": "aarch64-linux-gnu-objdump"}


@pytest.fixture(scope="module", params=LEVELS, ids=lambda target: target.name)
def listing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Target, str]:
    """The disassembled kernels of a target."""
    target: Target = request.param
    tool = shutil.which(DISASSEMBLER[target.arch])
    if tool is None:
        pytest.skip(f"needs {DISASSEMBLER[target.arch]}")
    path = compile_object(functions(), target, tmp_path_factory.mktemp("vec"))
    command = [tool, "-d", "--no-show-raw-insn", path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return target, done.stdout


@pytest.mark.parametrize("name", functions())
def test_one_loop_of_vectors(name: str, listing: tuple[Target, str]) -> None:
    target, text = listing
    lines = takewhile(str.strip, text.split(f"<vec_{name}>:\n")[1].splitlines())
    body = [line.split(":", 1)[1].strip() for line in lines]
    assert not _starting(CALL[target.arch], body), f"{target.name}: {name} calls"
    assert len(_starting(JUMP[target.arch], body)) == 1, f"{target.name}: {name} is one loop"
    assert not _starting(SCALAR[target.arch], body), f"{target.name}: {name} has scalar steps"
    assert sum(re.search(FULL[target.name], line) is not None for line in body) > 20


def test_the_patterns_find_what_they_look_for() -> None:
    x86 = ["call 0 <expf>", "jne 4c", "vmulss %xmm0,%xmm1,%xmm2", "vfmadd213sd %xmm0,%xmm1,%xmm2"]
    arm = ["bl 0 <expf>", "b.ne 4c", "fmul s0, s1, s2", "scvtf d0, x1"]
    vectors = ["vmulps %zmm0,%zmm1,%zmm2", "fmul v0.4s, v1.4s, v2.4s", "vcvtps2pd %ymm0,%zmm0"]
    for arch, lines in (("x86_64", x86), ("aarch64", arm)):
        assert _starting(CALL[arch], lines) == lines[:1]
        assert _starting(JUMP[arch], lines) == lines[1:2]
        assert _starting(SCALAR[arch], lines) == lines[2:]
        assert not any(_starting(kind[arch], vectors) for kind in (CALL, JUMP, SCALAR))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_target_needs_a_math_library(target: Target, tmp_path: Path) -> None:
    try:
        find_toolchain(target.triple)
    except TargetError as error:
        pytest.skip(str(error))
    made = {name: kernel for name, kernel in functions().items() if name in ("exp", "power", "sin")}
    library = link(made, target, tmp_path)  # fails on an undefined symbol
    assert all(f"vec_{name}".encode() in library.read_bytes() for name in made)


def _starting(pattern: str, instructions: list[str]) -> list[str]:
    return [line for line in instructions if re.match(rf"({pattern})(\s|$)", line)]
