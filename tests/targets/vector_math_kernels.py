"""The elementary functions as compiled kernels, their exact values, and the measure of errors."""

from __future__ import annotations

import ctypes
import math
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tvm import te, tirx
from tvm.s_tir import Schedule

from planish.ir.errors import TargetError
from planish.ir.ops.activation import GELU_CUBIC, GELU_SLOPE
from planish.ir.target import Target
from planish.targets.codegen import build_object
from planish.targets.expressions import vector_math
from planish.targets.hardware import TARGETS, detect_host
from planish.targets.linking import find_toolchain
from planish.targets.lowering import LoweredKernel

LENGTH = 1 << 12
LANES = 16
HOST = detect_host()
#: One target for each way of computing: without fused multiply-add, and with each vector width.
LEVELS = [t for t in TARGETS if t.name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "cortex-a72")]
#: Where Debian's cross compilers have the C library of the other architecture.
SYSROOT = "/usr/aarch64-linux-gnu"


#: Units of the last place of float32, as the docstrings promise.
ULP = {
    "acos": 2.0,
    "acosh": 3.0,
    "asin": 3.0,
    "asinh": 3.0,
    "atan": 2.0,
    "atanh": 3.0,
    "cos": 2.0,
    "cosh": 2.0,
    "erf": 3.0,
    "exp": 1.1,
    "expm1": 2.0,
    "gelu": 6.0,
    "gelu_tanh": 4.0,
    "log": 1.0,
    "log1p": 2.0,
    "mish": 5.0,
    "power": 0.6,
    "sigmoid": 3.0,
    "silu": 4.0,
    "sin": 2.0,
    "sinh": 3.0,
    "softplus": 3.0,
    "tan": 5.0,
    "tanh": 3.0,
}
#: Functions that keep to the same bound in float64; the others call libm there.
IN_FLOAT64 = (
    *("acosh", "asinh", "atanh", "cosh", "exp", "expm1", "log", "log1p", "mish"),
    *("sigmoid", "silu", "sinh", "softplus", "tanh"),
)


def nonpositive_bound(x: np.ndarray, target: Target) -> np.ndarray:
    """ULP that exp_nonpositive(x) may be off."""
    fused = target.arch == "aarch64" or "fma" in target.features
    return 2.0 + np.abs(x) / 16 if fused else 3.0 + np.abs(x)


def _of_each(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    """numpy has no erf."""
    return lambda x: np.frompyfunc(function, 1, 1)(x).astype(np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * _sigmoid(2 * GELU_SLOPE * (x + GELU_CUBIC * x**3)))


def _mish(x: np.ndarray) -> np.ndarray:
    e = np.exp(np.minimum(x, 40))
    return np.asarray(x * (e * (e + 2) / (e * (e + 2) + 2)))


#: In forms that lose nothing where results are small, for float64 and longdouble.
EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "cos": np.cos,
    "cosh": np.cosh,
    "erf": _of_each(math.erf),
    "exp": np.exp,
    "expm1": np.expm1,
    "gelu": lambda x: x * 0.5 * _of_each(math.erfc)(x * -math.sqrt(0.5)),
    "gelu_tanh": _gelu_tanh,
    "log": np.log,
    "log1p": np.log1p,
    "mish": _mish,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "sin": np.sin,
    "sinh": np.sinh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "tan": np.tan,
    "tanh": np.tanh,
}


def mapped(element: Callable, dtype: str = "float32", operands: int = 1, unrolled: int = 1) -> (
    tirx.PrimFunc
):  # fmt: skip
    """out[i] = element(in0[i], …) over LENGTH elements, in vectors of LANES."""
    sources = [te.placeholder((LENGTH,), dtype, f"in{k}") for k in range(operands)]
    out = te.compute((LENGTH,), lambda i: element(*(source(i) for source in sources)), "out")
    schedule = Schedule(te.create_prim_func([*sources, out]))
    (loop,) = schedule.get_loops(schedule.get_sblock("out"))
    _, middle, inner = schedule.split(loop, [None, unrolled, LANES])
    schedule.unroll(middle)
    schedule.vectorize(inner)
    return schedule.mod["main"]


def functions(dtype: str = "float32") -> dict[str, tirx.PrimFunc]:
    """A kernel for each function."""
    made = {name: mapped(getattr(vector_math, name), dtype) for name in EXACT}
    others = {"exp_nonpositive": mapped(vector_math.exp_nonpositive, dtype)}
    return made | others | {"power": mapped(vector_math.power, dtype, operands=2)}


def compile_object(made: Mapping[str, tirx.PrimFunc], target: Target, folder: Path) -> Path:
    """The object file with `vec_NAME` for each of the functions."""
    lowered = {f"vec_{name}": LoweredKernel(f) for name, f in made.items()}
    path = folder / "vec.o"
    path.write_bytes(build_object(lowered, target).code)
    return path


def link(made: Mapping[str, tirx.PrimFunc], target: Target, folder: Path, *libraries: str) -> Path:
    """A library linked with nothing but `libraries`: an undefined symbol fails."""
    library = folder / "libvec.so"
    compiler = find_toolchain(target.triple).command
    flags = ["-shared", "-nostdlib", "-Wl,--no-undefined"]
    object_file = compile_object(made, target, folder)
    subprocess.run([*compiler, *flags, "-o", library, object_file, *libraries], check=True)
    return library


class Loaded:
    """Kernels in this process."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def call(self, name: str, *arguments: np.ndarray) -> np.ndarray:
        """The function over any number of elements; kernels take LENGTH, aligned to 64 bytes."""
        count = len(arguments[0])
        rows = [_padded(x) for x in (*arguments, np.zeros_like(arguments[0]))]
        kernel = self._library[f"vec_{name}"]
        for at in range(0, len(rows[0]), LENGTH):
            assert kernel(*(ctypes.c_void_p(row[at:].ctypes.data) for row in rows)) == 0
        return rows[-1][:count]


class Emulated:
    """Kernels of float32 in a program of another architecture, run by qemu."""

    def __init__(self, object_file: Path, names: Sequence[str], target: Target) -> None:
        self._names, self._folder = list(names), object_file.parent
        source, self._program = self._folder / "main.c", self._folder / "main"
        source.write_text(_main(self._names))
        compiler = find_toolchain(target.triple).command
        command = [*compiler, "-O1", "-o", self._program, source, object_file]
        subprocess.run(command, check=True)

    def call(self, name: str, *arguments: np.ndarray) -> np.ndarray:
        """The function over any number of elements."""
        rows = [_padded(x) for x in arguments]
        source, result = self._folder / "in", self._folder / "out"
        source.write_bytes(b"".join(row.tobytes() for row in rows))
        which = [str(self._names.index(name)), str(len(rows)), str(len(rows[0]))]
        emulator = ["qemu-aarch64-static", "-L", SYSROOT]
        subprocess.run([*emulator, self._program, *which, source, result], check=True)
        return np.fromfile(result, np.float32)[: len(arguments[0])]


def runner(target: Target, folder: Path) -> Loaded | Emulated:
    """The kernels of `target` where this machine can run them; else the test is skipped."""
    made = functions()
    if target.arch == platform.machine():
        if not set(target.features) <= set(HOST.features):
            pytest.skip(f"this CPU is no {target.name}")
        return Loaded(link(made, target, folder))
    if target.arch != "aarch64" or shutil.which("qemu-aarch64-static") is None:
        pytest.skip(f"no emulator of {target.arch}")
    try:
        find_toolchain(target.triple)
    except TargetError as error:
        pytest.skip(str(error))
    return Emulated(compile_object(made, target, folder), list(made), target)


def ulps(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distances in units of the last place; infinity where an infinity or NaN is not met.

    Units are of the type of `actual`, and `exact` is of a wider one.
    """
    info = np.finfo(actual.dtype)
    with np.errstate(over="ignore"):
        rounded = exact.astype(actual.dtype)
    finite = np.isfinite(rounded)
    _, exponent = np.frexp(np.where(finite, exact, 1.0))
    unit = np.ldexp(exact.dtype.type(1), np.maximum(exponent - 1, info.minexp) - info.nmant)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    comparable = finite & np.isfinite(actual)
    distance = np.abs(np.where(comparable, actual, 0.0) - np.where(comparable, exact, 0.0)) / unit
    return np.where(comparable, distance, np.where(same, 0.0, np.inf)).astype(np.float64)


def _padded(x: np.ndarray) -> np.ndarray:
    """`x` at the start of a multiple of LENGTH elements, aligned to 64 bytes."""
    length = -(-len(x) // LENGTH) * LENGTH
    memory = np.zeros(length * x.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    row = memory[start : start + length * x.itemsize].view(x.dtype)
    row[: len(x)] = x
    return row


def _main(names: Sequence[str]) -> str:
    """A program: main WHICH OPERANDS COUNT IN OUT applies a kernel to COUNT floats of each."""
    unary = [name for name in names if name != "power"]
    declared = "\n".join(f"int vec_{name}(void *, void *);" for name in unary)
    table = ", ".join(f"(void *)vec_{name}" for name in names)
    return f"""
#include <stdio.h>
#include <stdlib.h>
{declared}
int vec_power(void *, void *, void *);
static void *const kernels[] = {{{table}}};
int main(int argc, char **argv) {{
    if (argc != 6) return 2;
    int operands = atoi(argv[2]);
    long count = atol(argv[3]);
    float *in = aligned_alloc(64, operands * count * sizeof(float));
    float *out = aligned_alloc(64, count * sizeof(float));
    FILE *file = fopen(argv[4], "rb");
    if (!file || fread(in, sizeof(float), operands * count, file) != operands * count) return 3;
    void *kernel = kernels[atoi(argv[1])];
    for (long at = 0; at < count; at += {LENGTH}) {{
        if (operands == 1) ((int (*)(void *, void *))kernel)(in + at, out + at);
        else ((int (*)(void *, void *, void *))kernel)(in + at, in + count + at, out + at);
    }}
    file = fopen(argv[5], "wb");
    return !file || fwrite(out, sizeof(float), count, file) != count || fclose(file);
}}
"""
