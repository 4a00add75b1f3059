"""Compiled kernels against the reference, each on the reference's own inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planish.child import Crashed, run_in_child
from planish.driver import compile_graph
from planish.ir.graph import Constant, Graph, Input, Node, Value, with_inputs
from planish.ir.reference import run_node
from planish.ir.scratch import scratch_folder
from planish.ir.target import Target
from planish.targets.lowering import lower_kernel
from planish.verification.judge import Judge
from planish.verification.references import NumpyReference


@dataclass(frozen=True, slots=True)
class BadCode:
    """What is wrong: `stage` is "lowering", "code generation" or "code"; None names no kernel."""

    stage: str
    kernel: Node | None
    message: str


def check_lowering(graph: Graph) -> BadCode | None:
    """The first kernel that cannot be lowered."""
    for node in graph.nodes:
        if node.op == "kernel":
            try:
                lower_kernel(node)
            except Exception as error:
                return BadCode("lowering", node, f"{type(error).__name__}: {error}")
    return None


def check_code(graph: Graph, target: Target, inputs: Mapping[str, np.ndarray]) -> BadCode | None:
    """What is wrong with the code of a whole graph of kernels; names no kernel."""
    return _compiled(graph, target, [inputs[value.name] for value in graph.inputs])


def check_kernels(graph: Graph, target: Target, inputs: Mapping[str, np.ndarray]) -> BadCode | None:
    """The first kernel that on its own cannot be compiled, crashes, or is out of tolerance.

    All are compiled into one artefact, each reading what the reference computed; if that fails as
    a whole, the first half that does is searched.
    """
    known = _all_values(graph, inputs)
    kernels = [node for node in graph.nodes if node.op == "kernel"]
    while kernels:
        found = _compare_alone(kernels, target, known)
        if found is None or found.kernel is not None:
            return found
        if len(kernels) == 1:
            return BadCode(found.stage, kernels[0], found.message)
        half = kernels[: len(kernels) // 2]
        kernels = half if _compare_alone(half, target, known) else kernels[len(half) :]
    return None


def _compare_alone(
    kernels: Sequence[Node], target: Target, known: Mapping[Value, np.ndarray]
) -> BadCode | None:
    """The kernels side by side in one artefact; names the kernel if the outputs tell it."""
    sources: list[Value] = []
    parameters: list[Input] = []
    outputs: list[Value] = []
    owners: list[Node] = []
    for node in kernels:
        read: list[Value] = []
        for value in node.inputs:
            if isinstance(value, Constant):
                read.append(value)
                continue
            read.append(Input(value.type, f"i{len(sources)}"))
            parameters.append(read[-1])  # type: ignore[arg-type]
            sources.append(value)
        alone = with_inputs(node, read)
        outputs += alone.outputs
        owners += [node] * len(alone.outputs)
    names = tuple(f"o{i}" for i in range(len(outputs)))
    graph = Graph(tuple(parameters), tuple(outputs), names)
    arrays = [known[value] for value in sources]
    return _compiled(graph, target, arrays, owners)


def _compiled(
    graph: Graph,
    target: Target,
    arrays: Sequence[np.ndarray],
    owners: Sequence[Node] = (),
) -> BadCode | None:
    """Compiles, runs and compares; `owners` is the kernel that each output is of."""
    with scratch_folder() as scratch:
        folder = Path(scratch, "artefact")
        try:
            compile_graph(graph, folder, target, "bisected")
        except Exception as error:
            return BadCode("code generation", None, f"{type(error).__name__}: {error}")
        try:
            actual = run_in_child(folder, arrays)
        except Crashed as error:
            return BadCode("code", None, str(error))
    inputs = {value.name: array for value, array in zip(graph.inputs, arrays)}
    reference = NumpyReference(graph)
    judge = Judge(reference, inputs, reference.outputs(inputs))
    found = judge.differences(dict(zip(graph.output_names, actual)))
    for index, name in enumerate(graph.output_names):
        difference = found[name]
        if not difference.ok:
            owner = owners[index] if owners else None
            where = "" if owners else f"output '{name}': "
            return BadCode("code", owner, where + difference.reason)
    return None


def _all_values(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[Value, np.ndarray]:
    """Every value of the graph but constants, by the reference."""
    known: dict[Value, np.ndarray] = {value: inputs[value.name] for value in graph.inputs}
    for node in graph.nodes:
        arrays = [v.data if isinstance(v, Constant) else known[v] for v in node.inputs]
        known.update(zip(node.outputs, run_node(node, arrays)))
    return known
