"""Problems: inputs that make sense, references without NaN, kernels that travel as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from planish.autotune.measure import Problem, make_problem
from planish.autotune.measure.builder import HARNESS_SOURCES
from planish.autotune.measure.layout import problem_data
from planish.autotune.measure.problem import Role, kernel_text, split_outputs
from planish.ir.builder import emit
from planish.ir.digest import digest
from planish.ir.errors import TargetError, TuningError
from planish.ir.extension import CustomOp, extended
from planish.ir.graph import Attrs, Graph, Input, Node, Value, constant
from planish.ir.op import OpDef, OpKind
from planish.ir.parse import parse
from planish.ir.types import TensorType, tensor
from planish.measuring import BACKEND
from planish.passes.fuse import fuse
from planish.targets.hardware import find_target
from planish.targets.linking import find_toolchain
from planish.targets.trials.kernel import build_kernel
from planish.targets.trials.linking import build_harness
from tests.measure.kernels_in_c import HOST, multiplication

RNG = np.random.default_rng(2)


def _kernel(value: Value, *inputs: Input) -> Node:
    (kernel,) = fuse(Graph(inputs, (value,)), HOST).nodes
    return kernel


def _unary(*ops: str) -> Node:
    value: Value = (x := Input(tensor("float32", (40,)), "x"))
    for op in ops:
        value = emit(op, value)
    return _kernel(value, x)


@pytest.mark.parametrize("op", ["sqrt", "log", "asin", "atanh", "acosh"])
def test_inputs_are_in_the_domain_of_the_kernel(op: str) -> None:
    problem = make_problem(_unary(op), BACKEND)
    assert np.isfinite(problem.expected[0]).all()
    assert np.unique(problem.expected[0]).size == 40


def test_kernel_that_is_nan_everywhere_is_refused() -> None:
    with pytest.raises(TuningError, match="computes NaN of all random inputs tried"):
        make_problem(_unary("abs", "neg", "sqrt"), BACKEND)


def test_kernel_with_a_custom_op_is_refused() -> None:
    triple = OpDef("triple", "3 x", OpKind.ELEMENTWISE, (1, 1), _same, _tripled)
    with extended([CustomOp(triple)]):
        kernel = _unary("triple")
        with pytest.raises(TuningError, match="holds the custom op 'triple', which the workers"):
            make_problem(kernel, BACKEND)


def _same(types: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
    return [types[0]]


def _tripled(arrays: Sequence[np.ndarray], attrs: Attrs) -> tuple[np.ndarray, ...]:
    return (arrays[0] * np.float32(3),)


def test_indices_stay_in_range_whatever_the_inputs_are_called() -> None:
    table = constant(RNG.standard_normal((9, 64)).astype("float32"))
    x, other = Input(tensor("int64", (50,)), ""), Input(tensor("float32", (50, 64)), "")
    value = emit("add", emit("gather", table, x, axis=0), other)
    problem = make_problem(_kernel(value, x, other), BACKEND)
    arrays = {array.dtype.kind: array for role, array in problem.inputs if role is Role.INPUT}
    assert set(arrays["i"]) <= set(range(9))
    assert len(set(arrays["i"])) > 5
    assert arrays["f"].std() > 0.5


def test_the_same_seed_gives_the_same_problem() -> None:
    first, same, other = (make_problem(_unary("exp"), BACKEND, seed=seed) for seed in (1, 1, 2))
    assert problem_data(first) == problem_data(same) != problem_data(other)


def test_roles_and_expected_values() -> None:
    problem = make_problem(multiplication(), BACKEND)
    (x_role, x), (w_role, w) = problem.inputs
    assert (x_role, w_role) == (Role.INPUT, Role.WEIGHTS)
    np.testing.assert_array_equal(problem.expected[0], x * w)


def test_outputs_are_read_back_at_their_places() -> None:
    floats = RNG.standard_normal((3, 5)).astype("float32")
    problem = Problem("here", (), (floats, RNG.integers(-9, 9, 7, "int8"), floats[0]))
    padded = b"".join(a.tobytes() + bytes(-a.nbytes % 64) for a in problem.expected)
    for actual, expected in zip(split_outputs(problem, padded), problem.expected):
        np.testing.assert_array_equal(actual, expected)


def test_kernel_travels_as_text() -> None:
    kernel = multiplication()
    (arrived,) = parse(kernel_text(kernel)).nodes
    assert digest(arrived.regions[0]) == digest(kernel.regions[0])
    assert arrived.attrs["schedule"] == kernel.attrs["schedule"]


def test_trials_are_built_for_other_machines(tmp_path: Path) -> None:
    target = find_target("cortex-a76")
    try:
        find_toolchain(target.triple)
    except TargetError:
        pytest.skip("no C compiler for aarch64")
    harness, kernel = tmp_path / "harness.so", tmp_path / "kernel.so"
    build_harness(HARNESS_SOURCES, target, harness)
    build_kernel(kernel_text(multiplication()), target, kernel)
    for path in (harness, kernel):
        assert path.read_bytes()[:4] == b"\x7fELF"
        assert int.from_bytes(path.read_bytes()[18:20], "little") == 183  # EM_AARCH64
