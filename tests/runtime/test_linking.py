"""Linking: one library from plan and objects, the same bytes anywhere, and errors that help."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_model import HOST, compile_kernels, toy_plan

from planish.ir.errors import TargetError
from planish.targets import linking
from planish.targets.linking import Toolchain, find_toolchain, link_library
from planish.targets.model_source import RUNTIME, c_string, render_header, render_source
from planish.targets.plan import EXPORTS, Arg, Call, Group, TensorSpec, check_plan, symbol_prefix
from planish.targets.runtime.cpu_features import known_features, required_features

AARCH64 = "aarch64-linux-gnu"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


def test_same_input_gives_same_bytes_in_another_folder(tmp_path: Path) -> None:
    libraries = []
    for name in ("a", "other place"):
        folder = tmp_path / name
        objects = [compile_kernels(folder / "objects")]
        library, header = link_library(toy_plan(), objects, folder, triple=HOST)
        libraries.append((library.read_bytes(), header.read_bytes()))
    assert libraries[0] == libraries[1]
    assert str(tmp_path).encode() not in libraries[0][0]
    assert str(RUNTIME).encode() not in libraries[0][0]


def test_library_exports_the_interface_only_and_needs_libc_only(tmp_path: Path) -> None:
    objects = [compile_kernels(tmp_path)]
    library, _ = link_library(toy_plan(), objects, tmp_path, triple=HOST)
    assert library.stat().st_size < 100_000
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    )
    exported = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert exported == {f"toy_{export}" for export in EXPORTS}
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    names = set(re.findall(r"Shared library: \[([^]]*)\]", needed.stdout))
    # ld-linux is libc's own loader: thread-local variables need it, and libc needs it anyway.
    names = {name for name in names if not name.startswith("ld-linux")}
    assert names <= {"libc.so.6", "libm.so.6", "libpthread.so.0"}


@pytest.mark.parametrize("compiler", ["gcc", "clang", "aarch64-linux-gnu-gcc"])
def test_runtime_and_model_compile_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    architecture = "aarch64" if "aarch64" in compiler else "x86_64"
    features = ("neon",) if architecture == "aarch64" else ("avx2",)
    plan = toy_plan(features=features)
    (tmp_path / "toy.h").write_text(render_header(plan))
    (tmp_path / "model.c").write_text(render_source(plan, architecture))
    sources = [*sorted(RUNTIME.glob("*.c")), tmp_path / "model.c"]
    flags = ["-std=c11", "-O2", "-fsyntax-only", *WARNINGS, "-Wshadow"]
    command = [compiler, *flags, f"-I{tmp_path}", f"-I{RUNTIME}", *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("compiler", "standard"), [("gcc", "c99"), ("g++", "c++11"), ("clang", "c99")]
)
def test_header_is_plain_c_and_cpp(compiler: str, standard: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    plan = toy_plan("NAMES_NAME")
    tricky = TensorSpec('*/ #error "\\\n', "bool", (0, 2))
    plan = dataclasses.replace(plan, inputs=(*plan.inputs, tricky))
    language = "c++" if "++" in compiler else "c"
    done = subprocess.run(
        [compiler, f"-std={standard}", *WARNINGS, "-fsyntax-only", "-x", language, "-"],
        input=render_header(plan) + "int f(void) { return NAMES_NAME_OK + NAMES_NAME_FLOAT32; }\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_any_name_survives_as_a_c_string() -> None:
    assert c_string('a"\\?\n1') == '"a\\042\\134\\077\\0121"'
    assert c_string("é") == '"\\303\\251"'


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("det-v4.1", "det_v4_1"),
        ("50 resnet", "model_50_resnet"),
        ("int", "model_int"),
        ("integer", "integer"),
        ("日本", "model"),
        ("__x__", "x"),
        ("planish", "model_planish"),
    ],
)
def test_symbol_prefix(name: str, prefix: str) -> None:
    assert symbol_prefix(name) == prefix
    check_plan(toy_plan(prefix))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a b"}, "'a b' cannot prefix a C interface"),
        ({"arena_bytes": -1}, "negative arena or weights size"),
        ({"inputs": (TensorSpec("x", "float8", ()),)}, "input 'x' of model 'toy' has dtype float8"),
        ({"inputs": (TensorSpec("x", "bool", (-1,)),)}, "every dimension must be fixed"),
        ({"outputs": (TensorSpec("x", "bool", ()),) * 2}, "two outputs of one name"),
        ({"groups": (), "calls": (Call("no-name", (), "k"),)}, "no name in C; rename the kernel"),
        (
            {"groups": (), "calls": (Call("toy_run", (), "k"),)},
            "taken by the runtime; rename the kernel",
        ),
        (
            {"groups": (), "calls": (Call("f", (Arg("input", 2),), "k"),)},
            "argument at input 2; the last is 1",
        ),
        ({"groups": (), "calls": (Call("f", (Arg("arena", -64),), "k"),)}, "argument at arena -64"),
        (
            {"groups": (), "calls": (Call("f", (Arg("weights", 4),), "k"),)},
            "weights 4, not a multiple of 64",
        ),
        (
            {"groups": (), "calls": (Call("f", (), "a"), Call("f", (Arg("input", 0),), "b"))},
            "'f' is called with 0 arguments and, by 'b', with 1",
        ),
        ({"groups": (Group((1, 2)),)}, "a group of calls at [1, 2]; expected at least two lanes"),
        ({"groups": (Group((1, 2, 2)),)}, "a group of calls at [1, 2, 2]"),
        ({"groups": (Group((0, 1, 3)), Group((2, 3, 4)))}, "a group of calls at [2, 3, 4]"),
        ({"groups": (Group((3, 4, 6)),)}, "a group that ends at call 6 of 5"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(TargetError, match=re.escape(message)):
        check_plan(dataclasses.replace(toy_plan(), **change))  # type: ignore[arg-type]


def test_a_missing_kernel_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"could not link model 'toy'.*toy_double"):
        link_library(toy_plan(), [], tmp_path, triple=HOST)


def test_a_compiler_that_does_not_run_is_named(tmp_path: Path) -> None:
    toolchain = Toolchain(("/nonexistent/cc",), HOST.split("-")[0])
    with pytest.raises(TargetError, match="the C compiler for model 'toy' could not be run"):
        link_library(toy_plan(), [], tmp_path, triple=HOST, toolchain=toolchain)


def test_toolchain_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("gcc", "riscv64-linux-gnu-gcc"):
        (tools / tool).write_text("#!/bin/sh\n")
        (tools / tool).chmod(0o755)
    environ = {"PATH": str(tools)}
    assert find_toolchain(HOST, environ).command == (str(tools / "gcc"),)
    assert find_toolchain(HOST, {**environ, "CC": "ccache cc"}).command == ("ccache", "cc")
    riscv = find_toolchain("riscv64-unknown-linux-gnu", {**environ, "CC": "cc"})
    assert riscv.command == (str(tools / "riscv64-linux-gnu-gcc"),)
    monkeypatch.setattr(linking.importlib.util, "find_spec", lambda name: object())
    zig = find_toolchain("s390x-linux-musl", environ)
    assert zig.command == (sys.executable, "-m", "ziglang", "cc", "-target", "s390x-linux-musl")
    monkeypatch.setattr(linking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match=r"apt install gcc-(x86-64|aarch64)") as caught:
        find_toolchain(AARCH64 if "x86" in HOST else "x86_64-linux-gnu", environ)
    assert "pip install ziglang" in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
def test_zig_links_for_another_cpu(tmp_path: Path) -> None:
    zig = Toolchain((sys.executable, "-m", "ziglang", "cc", "-target", AARCH64), "aarch64")
    source = Path(__file__).parent / "kernels.c"
    kernels = tmp_path / "kernels.o"
    subprocess.run([*zig.command, "-fPIC", "-O1", "-c", source, "-o", kernels], check=True)
    library, _ = link_library(toy_plan(), [kernels], tmp_path, triple=AARCH64, toolchain=zig)
    content = library.read_bytes()
    assert content[:4] == b"\x7fELF"
    assert content[18] == 183  # EM_AARCH64
    assert str(tmp_path).encode() not in content


def test_features_are_known_or_refused() -> None:
    names = [f.name for f in required_features("x86_64", ["+fma", "64bit", "-amx-int8", "avx2"])]
    assert names == ["avx2", "fma"]
    with pytest.raises(TargetError, match="cannot check the CPU for feature 'warp-drive'"):
        required_features("aarch64", ["warp-drive"])
    assert {"avx512f", "amx-tile", "64bit"} <= known_features("x86_64")
    assert {"neon", "i8mm"} <= known_features("aarch64")
