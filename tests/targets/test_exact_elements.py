"""What IEEE 754 and two's complement decide, in kernels of random expressions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from planish.ir.builder import emit
from planish.ir.graph import Value, constant
from planish.ir.reference import evaluate
from planish.ir.types import DType
from tests.targets.compiled import Cases, run_compiled

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal")
INTEGER_OPS = ("add", "sub", "mul", "div", "mod", "maximum", "minimum", "bitwise_xor")
FLOAT_OPS = ("add", "sub", "mul", "div", "maximum", "minimum")


def special_floats(dtype: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """NaN, infinities, zeros of both signs, and powers of two, of which few ops round anything."""
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 4.0, -0.25]
    return rng.choice(np.array(special), count).astype(dtype)


def special_integers(dtype: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """The ends of the range, what lies around zero, and any others."""
    ends = np.iinfo(dtype)
    near = [ends.min, ends.min + 1, 0, 1, 2, 3, 7, ends.max - 1, ends.max, ends.max // 3]
    some = np.array([n % (ends.max + 1) for n in (-1, -2, -5)] if ends.min == 0 else [-1, -2, -5])
    drawn = rng.integers(ends.min, ends.max, 8, dtype, endpoint=True)
    pool = np.concatenate([np.array(near, dtype), some.astype(dtype), drawn])
    return rng.choice(pool, count)


def specials(dtype: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Values of a type at which arithmetic goes wrong first."""
    draw = special_floats if "float" in dtype else special_integers
    return draw(dtype, rng, count)


class Expressions:
    """Random expressions over inputs and literals of one type."""

    def __init__(self, dtype: str, rng: np.random.Generator, inputs: list[Value]) -> None:
        self.dtype, self.rng, self.inputs = dtype, rng, inputs
        self.is_float = "float" in dtype

    def pick(self, *options: str) -> str:
        return str(self.rng.choice(options))

    def number(self, depth: int) -> Value:
        """An expression of the type."""
        if depth == 0 or self.rng.random() < 0.1:
            if self.rng.random() < 0.3:
                return constant(specials(self.dtype, self.rng, 1).reshape(()))
            return self.inputs[self.rng.integers(len(self.inputs))]
        kind = self.rng.random()
        if kind < 0.12:
            return emit("where", self.truth(depth - 1), self.number(depth - 1), self.number(0))
        if kind < 0.2:
            signs = () if self.is_float else ("sign",)  # of -0 it is 0 to some, -0 to others
            return emit(self.pick("neg", "abs", *signs), self.number(depth - 1))
        if kind < 0.28:
            return emit("cast", self.truth(depth - 1), to=DType(self.dtype))
        op = self.pick(*(FLOAT_OPS if self.is_float else INTEGER_OPS))
        exact = depth - 1 if op != "div" or not self.is_float else 0  # a third would be rounded
        a = self.number(exact)
        b = a if self.rng.random() < 0.2 else self.number(exact)
        attrs = {"fmod": bool(self.rng.random() < 0.5)} if op == "mod" else {}
        value = emit(op, a, b, **attrs)
        if self.is_float and op in ("maximum", "minimum"):  # of 0 and -0 either one
            value = emit("add", value, constant(np.zeros((), self.dtype)))
        return value

    def truth(self, depth: int) -> Value:
        """An expression of type bool."""
        if depth > 0 and self.rng.random() < 0.4:
            op = self.pick("not", "or", "and", "xor")
            if op == "not":
                return emit("not", self.truth(depth - 1))
            return emit(op, self.truth(depth - 1), self.truth(depth - 1))
        a = self.number(max(depth - 1, 0))
        if self.rng.random() < 0.25:
            return emit("cast", a, to=DType.BOOL)
        b = a if self.rng.random() < 0.3 else self.number(max(depth - 1, 0))
        return emit(self.pick(*COMPARISONS), a, b)


def check_exactly(cases: Cases, folder: Path, given: dict[str, np.ndarray]) -> None:
    """Compare integers and bool, and of floats the values, where NaN is and the sign of zero."""
    graph = cases.graph()
    with np.errstate(all="ignore"):
        expected, actual = evaluate(graph, given), run_compiled(graph, given, folder)
    for name, value in expected.items():
        got = actual[name]
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(got, value, err_msg=name)
            continue
        np.testing.assert_array_equal(got, value, err_msg=name)
        zero = value == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(value[zero]), name)


def check_random(dtype: str, seed: int, count: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    cases = Cases()
    inputs: list[Value] = [cases.input(67, dtype=dtype) for _ in range(3)]
    made = Expressions(dtype, rng, inputs)
    for number in range(count):
        for value in (made.number(3), made.truth(3)):
            if value.type.rank and value not in inputs:
                cases.add(f"{value.type.dtype.value}{number}", value)
    check_exactly(cases, folder, {v.name: specials(dtype, rng, 67) for v in inputs})


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint32"])
def test_random_expressions(dtype: str, tmp_path: Path) -> None:
    check_random(dtype, 11, 8, tmp_path)


def test_powers_and_shifts_of_any_count(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    cases, given = Cases(), {}
    for dtype in ("int8", "int32", "int64", "uint8", "uint64"):
        x, y = (cases.input(133, dtype=dtype) for _ in range(2))
        for op in ("pow", "shift_left", "shift_right"):
            cases.add(f"{op}_{dtype}", emit(op, x, y))
        given |= {value.name: special_integers(dtype, rng, 133) for value in (x, y)}
    for dtype in FLOATS:
        x = cases.input(67, dtype=dtype)
        root = constant(np.array(0.5, dtype))
        cases.add(f"root_{dtype}", emit("pow", emit("abs", emit("mul", x, x)), root))
        cases.add(f"end_{dtype}", emit("pow", x, root))
        data = np.array([4.0, 0.0, np.inf, -np.inf, np.nan, -1.0], dtype)
        given[x.name] = rng.choice(data, 67)
    check_exactly(cases, tmp_path, given)


def test_long_chains_of_integers_compile_in_time(tmp_path: Path) -> None:
    """Each step reads the one before twice: what doubles with each would take years."""
    cases = Cases()
    for dtype in ("int32", "int64", "uint32"):
        code: Value = cases.input(33, dtype=dtype)
        for _ in range(12):
            mixed = emit(
                "bitwise_xor", code, emit("shift_right", code, constant(np.array(3, dtype)))
            )
            code = emit("mul", mixed, constant(np.array(1664525, dtype)))
        cases.add(f"hash_{dtype}", code)
    rng = np.random.default_rng(6)
    given = {v.name: special_integers(str(v.type.dtype.value), rng, 33) for v in cases.inputs}
    check_exactly(cases, tmp_path, given)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("seed", range(10))
def test_many_random_expressions(dtype: str, seed: int, tmp_path: Path) -> None:
    check_random(dtype, 1000 + seed, 25, tmp_path)
