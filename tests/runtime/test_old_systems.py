"""Libraries run on systems that are older than the one they were linked on."""

from __future__ import annotations

import platform
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_model import HOST, build_toy, compile_kernels, toy_plan

from planish.ir.errors import TargetError
from planish.targets.elf import needed_glibc, needed_versions
from planish.targets.glibc import FLOOR, stubs
from planish.targets.linking import Toolchain, find_toolchain, link_library
from planish.targets.plan import Arg, Call, ModelPlan, TensorSpec

TRIPLES = ("x86_64-linux-gnu", "aarch64-linux-gnu")
#: What kernels call: of some of them glibc has versions of 2.27, 2.29 and 2.38.
# fmt: off
UNARY = (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "cos", "cosh", "erf",
    "exp", "exp10", "exp2", "expm1", "fabs", "floor", "log", "log10", "log1p", "log2",
    "nearbyint", "rint", "round", "sin", "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc",
)
# fmt: on
BINARY = ("atan2", "copysign", "fmax", "fmin", "fmod", "hypot", "nextafter", "pow", "remainder")


def math_plan() -> ModelPlan:
    x, y = Arg("input", 0), Arg("output", 0)
    call = Call("toy_math", (x, y), "math")
    inputs, outputs = (TensorSpec("x", "float64", (2,)),), (TensorSpec("y", "float64", ()),)
    return ModelPlan("toy", inputs, outputs, (call,), arena_bytes=0, weights_bytes=0)


def link_math(folder: Path, names: list[str], triple: str) -> Path:
    """A library whose one kernel sums these functions of libm, in double and float."""
    folder.mkdir(parents=True)
    terms = [
        f"{name}{single}(x[0]{', x[1]' if name in BINARY else ''})"
        for name in names
        for single in ("", "f")
    ]
    declared = [
        f"{kind} {name}{single}({', '.join([kind] * (1 + (name in BINARY)))});"
        for name in names
        for kind, single in (("double", ""), ("float", "f"))
    ]
    source = "\n".join(declared) + (
        "\n#include <stdint.h>\n#include <string.h>\n"
        "int32_t toy_math(double *x, double *y);\n"
        "int32_t toy_math(double *x, double *y) {\n"
        f"    *y = {' + '.join(terms)};\n    return 0;\n}}\n"
    )
    (folder / "math.c").write_text(source)
    flags = ["-std=gnu11", "-O1", "-fPIC", "-fno-builtin", "-Wall", "-Werror", "-c"]
    command = [*find_toolchain(triple).command, *flags, "math.c", "-o", "math.o"]
    subprocess.run(command, cwd=folder, check=True)
    return link_library(math_plan(), [folder / "math.o"], folder, triple=triple)[0]


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("triple", TRIPLES)
def test_a_library_asks_for_no_glibc_above_the_floor(triple: str, tmp_path: Path) -> None:
    try:
        find_toolchain(triple)
    except TargetError:
        pytest.skip(f"nothing links for {triple}")
    draw = random.Random(0)
    for number in range(4):
        names = [
            *draw.sample(UNARY, 8),
            *draw.sample(BINARY, 3),
            "exp",
            "pow",
            "fmod",
            "log",
        ]
        library = link_math(tmp_path / str(number), sorted(set(names)), triple).read_bytes()
        assert {"libm.so.6", "libpthread.so.0", "libc.so.6"} <= set(needed_versions(library))
        assert (2, 2) < as_numbers(needed_glibc(library)) <= FLOOR


def test_old_functions_compute_what_they_should(tmp_path: Path) -> None:
    library = link_math(tmp_path / "m", ["pow", "exp", "log"], HOST)
    host = (
        "import ctypes, math, sys\n"
        "import numpy as np\n"
        "lib = ctypes.CDLL(sys.argv[1])\n"
        "x, y = np.array([1.5, 2.25]), np.zeros(())\n"
        "model, context = ctypes.c_void_p(), ctypes.c_void_p()\n"
        "assert lib.toy_open(None, ctypes.byref(model)) == 0\n"
        "assert lib.toy_context_create(model, 1, ctypes.byref(context)) == 0\n"
        "ins, outs = (ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_void_p * 1)(y.ctypes.data)\n"
        "assert lib.toy_run(context, ins, outs) == 0\n"
        "print(float(y), 2 * (1.5**2.25 + math.exp(1.5) + math.log(1.5)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", host, str(library)], capture_output=True, text=True, check=True
    )
    got, wanted = map(float, done.stdout.split())
    assert got == pytest.approx(wanted, rel=1e-6)


def test_what_is_read_is_what_readelf_reads(tmp_path: Path) -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    artefact = build_toy(tmp_path / "a", tmp_path / "w")
    library = artefact / "libtoy.so"
    shown = subprocess.run(["readelf", "-VW", library], capture_output=True, text=True, check=True)
    expected: dict[str, set[str]] = {}
    for line in shown.stdout.splitlines():
        if found := re.search(r"Version: \d+ +File: (\S+) +Cnt", line):
            names = expected.setdefault(found[1], set())
        elif found := re.search(r"Name: (\S+) +Flags: \S+ +Version: \d+$", line.strip()):
            names.add(found[1])
    read = needed_versions(library.read_bytes())
    assert {name: set(versions) for name, versions in read.items()} == expected
    for broken in (b"", b"\x7fELF", library.read_bytes()[:100], library.read_bytes()[:2000]):
        with pytest.raises(TargetError, match="did not write an ELF library"):
            needed_versions(broken)


def test_the_stubs_name_functions_that_this_system_has() -> None:
    """A version that glibc never had would link here and load nowhere."""
    if shutil.which("readelf") is None or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("no readelf, or no table for this machine")
    maps = Path("/proc/self/maps").read_text()
    found = re.search(r"/\S*/libc\.so\.6", maps)
    if found is None:
        pytest.skip("this system has another C library")
    folder = Path(found[0]).parent
    table = "".join(
        subprocess.run(
            ["readelf", "-W", "--dyn-syms", str(path)], capture_output=True, text=True
        ).stdout.replace("@@", "@")
        for path in sorted({*folder.glob("lib[cm].so.6"), *folder.glob("lib[pd]*.so.[02]")})
    )
    there = set(re.findall(r"\S+@GLIBC_\S+", table))
    for stub in stubs(platform.machine()):
        for version, names in stub.functions.items():
            missing = {f"{name}@{version}" for name in names} - there
            assert not missing or stub.soname.startswith("ld-"), (stub.soname, missing)
            assert as_numbers(version.removeprefix("GLIBC_")) <= FLOOR


def test_another_c_library_is_linked_as_it_is(tmp_path: Path) -> None:
    """A compiler whose headers are not glibc's gets no stubs of glibc."""
    wrapper = tmp_path / "cc"
    wrapper.write_text(
        '#!/bin/sh\ncase " $* " in *" -E "*) exec cc "$@" | grep -v __GLIBC__; exit;; esac\n'
        'exec cc "$@"\n'
    )
    wrapper.chmod(0o755)
    kernels = compile_kernels(tmp_path / "k")
    toolchain = Toolchain((str(wrapper),), platform.machine())
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder, tools in ((ours, None), (theirs, toolchain)):
        folder.mkdir()
        link_library(toy_plan(), [kernels], folder, triple=HOST, toolchain=tools)
    linked = [(folder / "libtoy.so").read_bytes() for folder in (ours, theirs)]
    assert as_numbers(needed_glibc(linked[0])) <= FLOOR
    assert as_numbers(needed_glibc(linked[0])) <= as_numbers(needed_glibc(linked[1]))
    assert linked[0] != linked[1]
