"""Verification: an artefact against other implementations of its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from planish.inputs import index_bounds, random_inputs
from planish.ir.graph import Graph
from planish.tolerances import Difference
from planish.verdict import OutputCheck, RunCheck, Verification, VerificationFailed
from planish.verification.judge import Judge
from planish.verification.references import Reference, References, Unusable
from planish.verification.special import AGREED, SpecialJudge, special_inputs

if TYPE_CHECKING:
    from planish.ir.onnx.model import Located, Source

Arrays = Mapping[str, np.ndarray]


def verify(
    run: Callable[[Arrays], Arrays],
    graph: Graph,
    source: Source | Located,
    *,
    seed: int = 0,
    inputs: Arrays | None = None,
    optimised: Graph | None = None,
) -> Verification:
    """Runs the artefact (`run`) and a reference on the same inputs, and compares.

    `graph` is the model as imported, before any pass. The reference is onnxruntime on `source` with
    its optimisations off where it is installed and takes the model, else the numpy reference of the
    ops; the result names it. The inputs are random; besides, they are `inputs`, if given, and
    random ones among which are special values. `optimised` is the graph of the artefact's kernels.
    """
    references = References(graph, source)
    ordinary = model_inputs(graph, seed)
    checks = [_check_run("random inputs", run, references, ordinary)]
    if inputs is not None:
        checks.append(_check_run("the given inputs", run, references, inputs))
    for name, special in special_inputs(graph, ordinary, seed):
        try:
            reference, expected = references.compute(special, outside=True)
        except Unusable:  # these values are none that the model takes
            continue
        judge = SpecialJudge(graph, optimised, reference, special, expected)
        checks.append(_run_check(name, reference, AGREED, judge.differences(run(special))))
    return Verification(seed, tuple(checks))


def is_right(outputs: Arrays, graph: Graph, source: Source | Located, inputs: Arrays) -> bool:
    """Whether outputs that were computed for `inputs` are within the bounds of verification."""
    reference, expected = References(graph, source).compute(inputs)
    return not Judge(reference, inputs, expected).wrong(outputs)


def model_inputs(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Random inputs for a graph of static shapes."""
    specs = [(v.name, v.type.dtype.value, v.type.static_shape) for v in graph.inputs]
    return random_inputs(specs, index_bounds(graph), seed)


def _check_run(
    name: str, run: Callable[[Arrays], Arrays], references: References, inputs: Arrays
) -> RunCheck:
    try:
        reference, expected = references.compute(inputs)
    except Unusable as error:
        raise VerificationFailed(f"no reference computes the model on {name}: {error}") from None
    judge = Judge(reference, inputs, expected)
    found = judge.differences(run(inputs), run)
    return _run_check(name, reference, judge.bound, found)


def _run_check(
    name: str, reference: Reference, bound: str, found: Mapping[str, Difference]
) -> RunCheck:
    checks = tuple(_output_check(output, difference) for output, difference in found.items())
    return RunCheck(name, reference.name, bound, checks)


def _output_check(name: str, found: Difference) -> OutputCheck:
    figures = _rounded(found.max_abs), _rounded(found.max_rel), _rounded(found.cosine)
    return OutputCheck(name, found.ok, *figures, found.reason)


def _rounded(figure: float) -> float:
    """Three digits: enough for people, and as many as two machines agree on."""
    return float(f"{figure:.3g}")
