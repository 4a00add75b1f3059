"""Compiles a graph to an artefact and runs it, for tests that compare with the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from planish.artefact.loading import load
from planish.autotune.default_schedules import assign_default_schedules
from planish.ir.graph import Graph, Input, Value
from planish.ir.reference import evaluate
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.targets.hardware import detect_host
from planish.tolerances import compare

HOST = dataclasses.replace(detect_host(), cores=2)


def run_compiled(
    graph: Graph, inputs: Mapping[str, np.ndarray], folder: Path, target: Target = HOST
) -> dict[str, np.ndarray]:
    """The outputs of `graph` (plain or of kernels) compiled for `target`, run on two threads."""
    from planish.driver import compile_graph

    if all(node.op != "kernel" for node in graph.nodes):
        graph = fuse(graph, target)
    compile_graph(assign_default_schedules(graph, target), folder / "artefact", target, "case")
    with load(folder / "artefact", threads=2) as model:
        return model.run(inputs)


def check_against_reference(
    graph: Graph, inputs: Mapping[str, np.ndarray], folder: Path, target: Target = HOST
) -> None:
    """Every output of the compiled graph agrees with the numpy reference."""
    expected = evaluate(graph, inputs)
    actual = run_compiled(graph, inputs, folder, target)
    wrong: list[str] = []
    for name, value in expected.items():
        difference = compare(actual[name], value)
        if not difference.ok:
            wrong.append(f"{name}: {difference}")
    assert not wrong, "\n".join(wrong)


def random_inputs(graph: Graph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random arrays for the inputs: normal floats, small integers, coin flips."""
    return {value.name: random_array(value.type, rng) for value in graph.inputs}


def random_array(type_: object, rng: np.random.Generator) -> np.ndarray:
    """One random array of a TensorType."""
    shape: Sequence[int] = type_.static_shape  # type: ignore[attr-defined]
    dtype: np.dtype = type_.dtype.numpy  # type: ignore[attr-defined]
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    low = 0 if dtype.kind == "u" else -9
    return rng.integers(low, 10, shape).astype(dtype)


class Cases:
    """A graph with an input and an output for each case: compiled and linked once."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.outputs: dict[str, Value] = {}

    def input(self, *shape: int, dtype: str = "float32") -> Input:
        """A new input, named x0, x1, …"""
        value = Input(tensor(dtype, shape), f"x{len(self.inputs)}")
        self.inputs.append(value)
        return value

    def add(self, name: str, value: Value) -> None:
        """A new output."""
        assert name not in self.outputs
        self.outputs[name] = value

    def graph(self) -> Graph:
        """All cases as one graph."""
        return Graph(tuple(self.inputs), tuple(self.outputs.values()), tuple(self.outputs))

    def random_inputs(self) -> dict[str, np.ndarray]:
        """Arrays for all inputs, always the same."""
        return random_inputs(self.graph(), np.random.default_rng(3))

    def check(self, folder: Path, **given: np.ndarray) -> None:
        """Compare all outputs with the reference, on random inputs but for those given."""
        check_against_reference(self.graph(), self.random_inputs() | given, folder)
