"""Kernels that write their result over an input: where that is legal, and that it is right."""

from __future__ import annotations

import ctypes
import dataclasses
import subprocess
from pathlib import Path

import numpy as np

from planish.autotune.default_schedules import assign_default_schedules
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.types import DType, tensor
from planish.passes.fuse import fuse
from planish.targets.codegen import build_object
from planish.targets.in_place import overwritable
from planish.targets.linking import find_toolchain
from planish.targets.lowering import lower_kernel
from planish.targets.memory import plan_memory
from tests.targets.compiled import HOST, check_against_reference, random_inputs

_RNG = np.random.default_rng(11)


def _input(*shape: int, dtype: str = "float32") -> Input:
    return Input(tensor(dtype, shape), f"x{'_'.join(map(str, shape))}{dtype}")


def _weight(*shape: int) -> Value:
    return constant((_RNG.standard_normal(shape) / 8).astype("float32"))


def _kernel(*inputs: Input, result: Value) -> Node:
    """The one kernel of a graph that computes `result`."""
    graph = assign_default_schedules(fuse(Graph(inputs, (result,)), HOST), HOST)
    (kernel,) = graph.nodes
    return kernel


def _overwritable(*inputs: Input, result: Value) -> list[str]:
    kernel = _kernel(*inputs, result=result)
    return [kernel.inputs[number].name for number in overwritable(kernel)]


def test_what_is_read_where_it_is_written() -> None:
    a, b = _input(4, 6), Input(tensor("float32", (4, 6)), "b")
    row, m = _input(6), _input(4, 4)
    assert _overwritable(a, b, result=emit("add", a, b)) == [a.name, "b"]
    assert _overwritable(a, row, result=emit("add", a, row)) == [a.name]
    assert _overwritable(a, result=emit("mul", a, emit("tanh", a))) == [a.name]
    product = emit("matmul", m, a)
    assert _overwritable(m, a, b, result=emit("relu", emit("add", product, b))) == ["b"]
    normal = emit("softmax", a, axis=1)
    assert _overwritable(a, b, result=emit("add", normal, b)) == ["b"]


def test_what_is_needed_for_other_elements_too() -> None:
    a, square = _input(4, 6), _input(4, 4)
    turned = emit("transpose", square, perm=(1, 0))
    assert _overwritable(square, result=emit("add", square, turned)) == []
    assert _overwritable(a, result=emit("softmax", a, axis=1)) == []
    normal = emit("softmax", a, axis=1)
    assert _overwritable(a, result=emit("add", normal, a)) == []
    assert _overwritable(square, result=emit("matmul", square, square)) == []
    first = _input(1, 6)
    assert _overwritable(a, first, result=emit("add", first, a)) == [a.name]


def test_what_has_other_elements() -> None:
    a = _input(4, 6)
    assert _overwritable(a, result=emit("cast", emit("neg", a), to=DType.INT32)) == []
    padding = {"before": (1, 0), "after": (0, 2), "mode": "constant", "value": 0.0}
    assert _overwritable(a, result=emit("pad", emit("neg", a), **padding)) == []


def _chain(rows: int) -> Graph:
    """softmax, then a product whose residual it is; its value dies there, as the next one's."""
    x = _input(rows, 16)
    value: Value = emit("softmax", x, axis=1)
    for _ in range(3):
        product = emit("matmul", emit("softmax", value, axis=0), _weight(16, 16))
        value = emit("relu", emit("add", product, value))
    return Graph((x,), (emit("softmax", value, axis=0),))


def _is_whole(graph: Graph) -> bool:
    """True if the tiles of the graph's products divide its rows; else the last is moved back."""
    schedules = [node.attrs["schedule"] for node in graph.nodes]
    tile = int(next(s for s in schedules if s.space == "matmul").choice("m"))
    return graph.inputs[0].type.static_shape[0] % tile == 0


def test_the_residual_of_a_product_is_overwritten(tmp_path: Path) -> None:
    graph = next(g for g in map(_scheduled, map(_chain, range(8, 40))) if _is_whole(g))
    plan = plan_memory(graph)
    assert list(plan.in_place) == [n for n in graph.nodes if n.attrs["schedule"].space == "matmul"]
    for node, number in plan.in_place.items():
        assert plan.place(node.output) == plan.place(node.inputs[number])
    assert plan.arena_bytes == plan.lower_bound == 2 * graph.inputs[0].type.nbytes
    check_against_reference(graph, random_inputs(graph, _RNG), tmp_path)


def test_tiles_that_overlap_are_not_computed_in_place(tmp_path: Path) -> None:
    graph = next(g for g in map(_scheduled, map(_chain, range(8, 80))) if not _is_whole(g))
    plan = plan_memory(graph)
    assert plan.in_place == {}
    assert plan.arena_bytes == 3 * graph.inputs[0].type.nbytes
    check_against_reference(graph, random_inputs(graph, _RNG), tmp_path)


def test_both_tensors_are_reached_through_the_result(tmp_path: Path) -> None:
    """The parameter of an overwritten input may be any pointer: no alias can mislead LLVM."""
    target = dataclasses.replace(HOST, cores=1)  # calls nothing of the runtime
    a, b, residual = _input(4, 24), _input(24, 32), _input(4, 32)
    result = emit("relu", emit("add", emit("matmul", a, b), residual))
    (kernel,) = assign_default_schedules(
        fuse(Graph((a, b, residual), (result,)), target), target
    ).nodes
    number = list(kernel.inputs).index(residual)
    lowered = dataclasses.replace(lower_kernel(kernel), overwrites=number)
    (tmp_path / "kernel.o").write_bytes(build_object({"k": lowered}, target).code)
    compiler = find_toolchain(target.triple).command
    library = tmp_path / "kernel.so"
    subprocess.run([*compiler, "-shared", tmp_path / "kernel.o", "-o", library], check=True)
    arrays = random_inputs(Graph((a, b, residual), (result,)), _RNG)
    given = [_aligned(arrays[value.name]) for value in (*kernel.inputs, residual)]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in given]
    pointers[number] = ctypes.c_void_p(None)
    assert ctypes.CDLL(str(library)).k(*pointers) == 0
    expected = np.maximum(arrays[a.name] @ arrays[b.name] + arrays[residual.name], 0)
    np.testing.assert_allclose(given[-1], expected, rtol=1e-5, atol=1e-5)


def _aligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _scheduled(graph: Graph) -> Graph:
    return assign_default_schedules(fuse(graph, HOST), HOST)
