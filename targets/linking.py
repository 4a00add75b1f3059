"""Linking an artefact's library: the C compiler to use, and its one call for all that is in it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.ir.errors import TargetError
from planish.targets.glibc import FLOOR, stubs
from planish.targets.model_source import RUNTIME, render_header, render_source, version_script
from planish.targets.plan import ModelPlan

_TIMEOUT_SECONDS = 600
#: What the lines of a compiler have that say why it failed.
_TELLING = ("error:", "undefined", "failed:", "No space")
# No -march: the runtime must reach its check of the CPU on every CPU. Sections: the linker drops
# what a model does not use.
COMPILING = (
    "-std=c11",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-asynchronous-unwind-tables",
    "-Wall",
    "-Wextra",
)
# No build id: same input, same bytes. -Bsymbolic and the version script keep each
# kernel and hook the library's own, whatever else is in the process.
LINKING = (
    "-shared",
    "-Wl,-z,defs",
    "-Wl,-z,noexecstack",
    "-Wl,--gc-sections",
    "-Wl,--build-id=none",
    "-Wl,--as-needed",
    "-Wl,-Bsymbolic",
    "-Wl,--version-script=exports.map",
)
_APT_PACKAGES = {
    "x86_64": "gcc-x86-64-linux-gnu",
    "aarch64": "gcc-aarch64-linux-gnu",
    "riscv64": "gcc-riscv64-linux-gnu",
}


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A C compiler that links for one architecture, as the beginning of its command line."""

    command: tuple[str, ...]
    architecture: str
    """As `uname -m` spells it: x86_64, aarch64, ..."""


def architecture_of(triple: str) -> str:
    """Give the architecture of an LLVM triple as `uname -m` spells it: arm64-… -> aarch64."""
    first = triple.split("-")[0].lower()
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(first, first)


def find_toolchain(triple: str, environ: Mapping[str, str] | None = None) -> Toolchain:
    """Find a C compiler for a triple such as x86_64-linux-gnu: the host's, a cross one, or zig.

    For the host's architecture $CC has precedence. Raises TargetError that says what to install.
    """
    environ = os.environ if environ is None else environ
    architecture = architecture_of(triple)
    path = environ.get("PATH")
    if architecture == architecture_of(platform.machine()):
        if environ.get("CC"):
            return Toolchain(tuple(shlex.split(environ["CC"])), architecture)
        candidates = ["cc", "gcc", "clang"]
    else:
        candidates = [f"{architecture}-{_system_of(triple)}-gcc"]
    for candidate in candidates:
        found = shutil.which(candidate, path=path)
        if found:
            return Toolchain((found,), architecture)
    if importlib.util.find_spec("ziglang") is not None:
        zig = (sys.executable, "-m", "ziglang", "cc", "-target")
        system = _zig_system(architecture, triple)
        return Toolchain((*zig, f"{architecture}-{system}"), architecture)
    package = _APT_PACKAGES.get(architecture)
    apt = f" (Debian, Ubuntu: apt install {package})" if package and len(candidates) == 1 else ""
    raise TargetError(
        f"no C compiler that links for {triple} was found: install {' or '.join(candidates)}{apt}, "
        "or `pip install ziglang`"
    )


def _system_of(triple: str) -> str:
    """Give system and ABI of a triple: aarch64-unknown-linux-musl -> linux-musl."""
    parts = triple.lower().split("-")
    abi = parts[-1] if parts[-1] not in (parts[0], "linux") else "gnu"
    return f"linux-{abi}"


def _zig_system(architecture: str, triple: str) -> str:
    """The same for zig, which has the symbols of every glibc at hand and takes its version."""
    system = _system_of(triple)
    old = system == "linux-gnu" and any(stubs(architecture))
    return f"{system}.{FLOOR[0]}.{FLOOR[1]}" if old else system


def library_name(name: str) -> str:
    """Give the file name of the library of a model of that name."""
    return f"lib{name}.so"


def link_library(
    plan: ModelPlan,
    objects: Sequence[Path],
    folder: Path,
    *,
    triple: str,
    toolchain: Toolchain | None = None,
    symbols: bool = False,
) -> tuple[Path, Path]:
    """Write lib<name>.so and <name>.h into a folder, from the plan and the kernels' object files.

    The same plan, objects and compiler give the same bytes, wherever the files lie. With `symbols`
    the library keeps the names of its functions, for nm, perf and gdb. Gives the paths of library
    and header. Raises TargetError with the compiler's own words when it fails.
    """
    toolchain = toolchain or find_toolchain(triple)
    library = folder / library_name(plan.name)
    header = folder / f"{plan.name}.h"
    header.write_text(render_header(plan), encoding="ascii")
    with tempfile.TemporaryDirectory(prefix="planish-link-", dir=folder) as scratch:
        work = Path(scratch)
        shutil.copy(header, work)
        (work / "model.c").write_text(
            render_source(plan, toolchain.architecture), encoding="ascii", newline="\n"
        )
        (work / "exports.map").write_text(version_script(plan.name), encoding="ascii")
        command = _command(toolchain, plan.name, work, objects, library.resolve())
        command += [] if symbols else ["-s"]
        run_compiler([*command, *link_with_old_glibc(toolchain, work, plan.name)], work, plan.name)
    return library, header


def _command(
    toolchain: Toolchain, name: str, work: Path, objects: Sequence[Path], library: Path
) -> list[str]:
    runtime = _runtime_objects(toolchain, work, name)
    for file, content in runtime.items():
        (work / file).write_bytes(content)
    inputs = work / "objects.txt"  # a response file: there can be more kernels than arguments
    inputs.write_text("".join(f'"{_escape(path.resolve())}"\n' for path in objects), "utf-8")
    command = [*toolchain.command, *COMPILING, f"-ffile-prefix-map={work}=.", f"-I{RUNTIME}"]
    command += [
        "-I.",
        "model.c",
        *runtime,
        *LINKING,
        f"-Wl,-soname,{library_name(name)}",
        "@objects.txt",
    ]
    return [*command, "-o", str(library)]


#: The runtime's object files that a toolchain has made, by name: they are the same for every model.
_RUNTIMES: dict[Toolchain, dict[str, bytes]] = {}


def _runtime_objects(toolchain: Toolchain, work: Path, name: str) -> dict[str, bytes]:
    if toolchain not in _RUNTIMES:
        folder = work / "runtime"
        folder.mkdir()
        command = [*toolchain.command, *COMPILING, f"-ffile-prefix-map={RUNTIME}=.", "-c"]
        sources = sorted(RUNTIME.glob("*.c"))
        run_compiler([*command, *map(str, sources)], folder, name)
        objects = [f"{source.stem}.o" for source in sources]
        _RUNTIMES[toolchain] = {file: (folder / file).read_bytes() for file in objects}
    return _RUNTIMES[toolchain]


#: The stubs that a toolchain has made, by file name: they are the same every time.
_STUBS: dict[Toolchain, dict[str, bytes]] = {}


def link_with_old_glibc(toolchain: Toolchain, work: Path, name: str) -> list[str]:
    """The end of a linker's command line, run in the folder `work`: system libraries, old versions.

    The stubs of glibc.py lie in `work`, where they hide the system's own. Toolchains of another C
    library than glibc link as they are. Raises TargetError, which names the model.
    """
    if toolchain not in _STUBS:
        _STUBS[toolchain] = _make_stubs(toolchain, work, name)
    folder = work / "glibc"
    folder.mkdir()
    for name, content in _STUBS[toolchain].items():
        (folder / name).write_bytes(content)
    hiding = ["-Lglibc", "-static-libgcc"] if _STUBS[toolchain] else []
    loaders = [f"glibc/{name}" for name in _STUBS[toolchain] if name.startswith("ld-")]
    return [*hiding, "-lm", "-lpthread", *loaders]


def _make_stubs(toolchain: Toolchain, work: Path, name: str) -> dict[str, bytes]:
    (work / "system.c").write_text("#include <stdlib.h>\n", encoding="ascii")
    command = [*toolchain.command, "-E", "-dM", "system.c"]
    if "#define __GLIBC__ " not in run_compiler(command, work, name):
        return {}
    made = {}
    for stub in stubs(toolchain.architecture):
        (work / "stub.s").write_text(stub.assembly, encoding="ascii")
        (work / "stub.map").write_text(stub.version_script, encoding="ascii")
        command = [*toolchain.command, "-shared", "-nostdlib", "stub.s", "-o", "stub.so"]
        command += ["-Wl,--version-script=stub.map", "-Wl,--build-id=none"]
        run_compiler([*command, f"-Wl,-soname,{stub.soname}"], work, name)
        made[stub.file] = (work / "stub.so").read_bytes()
    return made


def _escape(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def run_compiler(command: Sequence[str], work: Path, name: str) -> str:
    """Run a compiler in a folder and give what it printed.

    TargetError with its own words, naming the model, if it fails.
    """
    environ = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=work,
            env=environ,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(f"the C compiler for model '{name}' could not be run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        told = [line for line in lines if any(w in line for w in _TELLING)] or lines
        raise TargetError(
            f"{command[0]} could not link model '{name}' (exit {done.returncode}): "
            + "; ".join(told[:5])
        )
    return done.stdout
