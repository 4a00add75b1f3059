"""The elementary functions against float64 over the whole of float32, in code without calls."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tvm import te, tirx
from tvm.s_tir import Schedule

from planish.ir.errors import TargetError
from planish.ir.target import Target
from planish.targets.codegen import build_object
from planish.targets.expressions import vector_math
from planish.targets.hardware import TARGETS, detect_host
from planish.targets.linking import find_toolchain
from planish.targets.lowering import LoweredKernel

LENGTH = 1 << 16
LANES = 16

# numpy has no erf.
REFERENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": lambda x: np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64),
}
#: As the docstrings promise.
ULP = {"exp": 1.1, "log": 1.0, "tanh": 3.0, "sigmoid": 3.0, "erf": 3.0}

TINY, MAX = 2.0**-149, float(np.finfo(np.float32).max)
EDGES = [0.0, 1.0, TINY, 2.0**-126, 2.0**-126 - TINY, MAX, math.inf, math.nan]
EXP_EDGES = [88.72283, 88.72284, 103.27892, 103.97207, 103.97208, 87.33654, 87.33655, 104.0, 89.0]
#: Also the borders of log's reduction and where tanh and erf are capped.
ALL_EDGES = [*EDGES, *EXP_EDGES, 2 / 3, 4 / 3, 9.010913, 10.0, 3.9192059, 4.0]

INF, NAN = math.inf, math.nan
#: Pairs of argument and result.
SPECIAL = {
    "exp": [(-INF, 0.0), (-0.0, 1.0), (0.0, 1.0), (INF, INF), (NAN, NAN)],
    "log": [(-INF, NAN), (-1.0, NAN), (-0.0, -INF), (0.0, -INF), (1.0, 0.0), (INF, INF)],
    "tanh": [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, 1.0), (NAN, NAN)],
    "sigmoid": [(-INF, 0.0), (-0.0, 0.5), (0.0, 0.5), (-104.0, 0.0), (INF, 1.0), (NAN, NAN)],
    "erf": [(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (-TINY, -TINY), (INF, 1.0), (NAN, NAN)],
}

HOST = detect_host()
#: This machine without fused multiply-add and wide vectors (as it is, where it is no x86).
NARROW = dataclasses.replace(
    HOST, features=tuple(f for f in HOST.features if not f.startswith(("avx", "fma", "f16c")))
)


def _mapped(element: Callable, dtype: str = "float32", unrolled: int = 1) -> tirx.PrimFunc:
    """out[i] = element(in[i]) over LENGTH elements, in vectors of LANES."""
    source = te.placeholder((LENGTH,), dtype, "in0")
    schedule = Schedule(
        te.create_prim_func([source, te.compute((LENGTH,), lambda i: element(source(i)), "out")])
    )
    (loop,) = schedule.get_loops(schedule.get_sblock("out"))
    _, middle, inner = schedule.split(loop, [None, unrolled, LANES])
    schedule.unroll(middle)
    schedule.vectorize(inner)
    return schedule.mod["main"]


def _functions(dtype: str = "float32") -> dict[str, tirx.PrimFunc]:
    return {f"vec_{name}": _mapped(getattr(vector_math, name), dtype) for name in REFERENCE}


def _link(
    functions: dict[str, tirx.PrimFunc], target: Target, folder: Path, *libraries: str
) -> Path:
    """A library linked with nothing but `libraries`: an undefined symbol fails."""
    object_file, library = folder / "vec.o", folder / "libvec.so"
    object_file.write_bytes(
        build_object({name: LoweredKernel(f) for name, f in functions.items()}, target)
    )
    compiler = find_toolchain(target.triple).command
    flags = ["-shared", "-nostdlib", "-Wl,--no-undefined"]
    subprocess.run([*compiler, *flags, "-o", library, object_file, *libraries], check=True)
    return library


def _aligned(length: int, dtype: np.dtype) -> np.ndarray:
    memory = np.zeros(length * dtype.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + length * dtype.itemsize].view(dtype)


def _call(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    """The function over any number of elements; kernels take LENGTH, aligned to 64 bytes."""
    blocks = -(-len(x) // LENGTH)
    source, result = (_aligned(blocks * LENGTH, x.dtype) for _ in range(2))
    source[: len(x)] = x
    for at in range(0, blocks * LENGTH, LENGTH):
        pointers = (ctypes.c_void_p(row[at:].ctypes.data) for row in (source, result))
        assert library[f"vec_{name}"](*pointers) == 0
    return result[: len(x)]


def _ulps(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distances in units of the last place; infinity where an infinity or NaN is not met."""
    rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    _, exponent = np.frexp(np.where(finite, exact, 1.0))
    unit = np.ldexp(1.0, np.maximum(exponent - 1, -126) - 23)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    comparable = finite & np.isfinite(actual)
    distance = np.abs(np.where(comparable, actual, 0.0) - np.where(comparable, exact, 0.0)) / unit
    return np.where(comparable, distance, np.where(same, 0.0, np.inf))


def _points() -> np.ndarray:
    """Millions of float32: every 1021st bit pattern, the busy range more densely, and edges."""
    patterns = np.arange(0, 1 << 32, 1021, dtype=np.uint64).astype(np.uint32).view(np.float32)
    dense = np.random.default_rng(7).uniform(-6, 6, 500_000).astype(np.float32)
    edges = np.array(ALL_EDGES, np.float32)
    return np.concatenate([patterns, dense, edges, -edges])


@pytest.fixture(scope="module", params=[HOST, NARROW], ids=["host", "narrow"])
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    return ctypes.CDLL(str(_link(_functions(), request.param, tmp_path_factory.mktemp("vec"))))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return _points()


@pytest.mark.parametrize("name", REFERENCE)
def test_the_stated_bound_holds_over_all_of_float32(
    name: str, library: ctypes.CDLL, points: np.ndarray
) -> None:
    with np.errstate(all="ignore"):
        errors = _ulps(_call(library, name, points), REFERENCE[name](points.astype(np.float64)))
    worst = int(errors.argmax())
    assert errors[worst] <= ULP[name], f"{name}({points[worst]!r}) is {errors[worst]:.3f} ULP off"


@pytest.mark.parametrize("name", REFERENCE)
def test_zeros_infinities_and_subnormals(name: str, library: ctypes.CDLL) -> None:
    arguments, expected = np.array(SPECIAL[name], np.float32).T
    actual = _call(library, name, arguments)
    np.testing.assert_array_equal(actual, expected)
    signed = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[signed]), np.signbit(expected[signed]))


def test_the_measure_of_errors_rejects_what_is_wrong() -> None:
    exact = np.array([1.0, 2.0**-149, np.inf, np.nan, 1.0])
    wrong = np.array([1 + 2.0**-22, 0.0, MAX, 1.0, np.nan], np.float32)
    np.testing.assert_array_equal(_ulps(wrong, exact), [2, 1, np.inf, np.inf, np.inf])
    np.testing.assert_array_equal(_ulps(exact.astype(np.float32), exact), np.zeros(5))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_target_needs_a_math_library(target: Target, tmp_path: Path) -> None:
    try:
        find_toolchain(target.triple)
    except TargetError as error:
        pytest.skip(str(error))
    library = _link(_functions(), target, tmp_path)  # fails on an undefined symbol
    assert all(f"vec_{name}".encode() in library.read_bytes() for name in REFERENCE)


def test_the_loops_keep_to_vector_registers(tmp_path: Path) -> None:
    tool = shutil.which("objdump")
    if tool is None or HOST.arch != "x86_64":
        pytest.skip("needs objdump and an x86-64")
    _link(_functions(), HOST, tmp_path)
    text = subprocess.run(
        [tool, "-d", "--no-show-raw-insn", tmp_path / "vec.o"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    wide = {64: "%zmm", 32: "%ymm", 16: "%xmm"}[HOST.vector_bytes]
    for name in REFERENCE:
        body = list(itertools.takewhile(str.strip, text.split(f"<vec_{name}>:\n")[1].splitlines()))
        assert sum(wide in line for line in body) > 20, name
        assert not [line for line in body if "call" in line], name
        assert sum(line.split()[1].startswith("j") for line in body) == 1, f"{name}: one loop"


def test_a_result_survives_unrolling_and_a_reader_of_its_own(tmp_path: Path) -> None:
    def gate(x: tirx.Var) -> tirx.Let:
        value = vector_math.tanh(x)
        held = tirx.Var("held", value.ty)
        return tirx.Let(held, value, held * vector_math.sigmoid(held) + held)

    library = ctypes.CDLL(str(_link({"vec_gate": _mapped(gate, unrolled=4)}, HOST, tmp_path)))
    x = np.random.default_rng(3).standard_normal(LENGTH).astype(np.float32)
    held = np.tanh(x.astype(np.float64))
    expected = held / (1 + np.exp(-held)) + held
    np.testing.assert_allclose(_call(library, "gate", x), expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "places"), [("float16", 1), ("float64", 4)])
@pytest.mark.parametrize("name", REFERENCE)
def test_other_widths(name: str, dtype: str, places: int, tmp_path: Path) -> None:
    function = _mapped(getattr(vector_math, name), dtype)
    library = ctypes.CDLL(str(_link({f"vec_{name}": function}, HOST, tmp_path, "-lm", "-lc")))
    x = np.geomspace(2.0**-14, 9, LENGTH).astype(dtype)
    exact = REFERENCE[name](x.astype(np.float64)).astype(dtype)
    np.testing.assert_array_max_ulp(_call(library, name, x), exact, places)
