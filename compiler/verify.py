"""Verification: an artefact against another implementation of the model, on random inputs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from planish.bench.precision import exact_outputs
from planish.inputs import index_bounds, random_inputs
from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Graph
from planish.ir.reference import evaluate
from planish.ir.types import DType
from planish.tolerances import Difference, compare
from planish.verdict import OutputCheck, Verification

if TYPE_CHECKING:
    from planish.ir.onnx.model import Located, Source

Arrays = Mapping[str, np.ndarray]

_PEER = "onnxruntime"

#: A reference that is off by more than this part of the largest value is no measure of anything.
_WORST_REFERENCE = 0.01


def verify(
    run: Callable[[dict[str, np.ndarray]], Arrays],
    graph: Graph,
    source: Source | Located,
    *,
    seed: int = 0,
) -> Verification:
    """Runs the artefact (`run`) and a reference on the same random inputs, and compares.

    `graph` is the model as imported, before any pass. The reference is onnxruntime on `source` with
    its optimisations off where it is installed and takes the model, else the numpy reference of the
    ops; the result names it.
    """
    inputs = model_inputs(graph, seed)
    name, expected = _reference(graph, source, inputs)
    actual = run(inputs)
    mode = precision_mode(graph)
    checks = {key: _check(key, actual[key], expected[key], mode) for key in graph.output_names}
    differing = [key for key, check in checks.items() if not check.ok]
    if differing and name.startswith(_PEER):
        nearer = _against_exact(graph, inputs, actual, expected, mode)
        if all(nearer.get(key, checks[key]).ok for key in differing):
            name = f"{name} and, where that is inexact itself, the reference in float64"
            checks.update((key, nearer[key]) for key in differing)
    return Verification(name, mode, seed, tuple(checks.values()))


def model_inputs(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Random inputs for a graph of static shapes."""
    specs = [(v.name, v.type.dtype.value, v.type.static_shape) for v in graph.inputs]
    return random_inputs(specs, index_bounds(graph), seed)


def precision_mode(graph: Graph) -> str:
    """Which row of the tolerance table a model falls under: quantized if it rounds to 8 bits."""
    narrow = (DType.INT8, DType.UINT8)
    for node in graph.nodes:
        if node.op == "cast" and node.attrs["to"] in narrow and node.inputs[0].type.dtype.is_float:
            return "quantized"
    return "strict"


def _check(name: str, actual: np.ndarray, expected: np.ndarray, mode: str) -> OutputCheck:
    return _output_check(name, compare(actual, expected, mode))


def _output_check(name: str, found: Difference) -> OutputCheck:
    figures = _rounded(found.max_abs), _rounded(found.max_rel), _rounded(found.cosine)
    return OutputCheck(name, found.ok, *figures, found.reason)


def _against_exact(
    graph: Graph, inputs: Arrays, actual: Arrays, expected: Arrays, mode: str
) -> dict[str, OutputCheck]:
    """Checks against the result in float64, for outputs whose reference has an error worth it.

    Its error is the floor, doubled. Outputs that the reference itself has all wrong are left out,
    and all of them where the model cannot be computed in float64.
    """
    try:
        exact = exact_outputs(graph, inputs)
    except UnsupportedModel:
        return {}
    checks = {}
    for name, value in exact.items():
        reference = expected[name]
        if reference.dtype.kind != "f" or not np.isfinite(value).all():
            continue
        own = float(np.abs(reference.astype(np.float64) - value).max(initial=0.0))
        if own <= _WORST_REFERENCE * float(np.abs(value).max(initial=0.0)):
            found = compare(actual[name], value.astype(reference.dtype), mode, floor=2 * own)
            checks[name] = _output_check(name, found)
    return checks


def _rounded(figure: float) -> float:
    """Three digits: enough for people, and as many as two machines agree on."""
    return float(f"{figure:.3g}")


def _reference(graph: Graph, source: Source | Located, inputs: Arrays) -> tuple[str, Arrays]:
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        try:
            return f"{_PEER} {onnxruntime.__version__}", _onnxruntime(source, inputs)
        except Exception as error:  # the bindings raise bare Exception subclasses of their own
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"numpy reference (onnxruntime refused: {told})", evaluate(graph, inputs)
    return "numpy reference", evaluate(graph, inputs)


def _onnxruntime(source: Source | Located, inputs: Arrays) -> Arrays:
    import onnxruntime

    from planish.ir.onnx.model import Located

    options = onnxruntime.SessionOptions()
    if isinstance(source, Located):
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.fspath(source.folder)
        )
        source = source.model
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(source, bytes):
        model: bytes | str = source
    elif isinstance(source, str | os.PathLike):
        model = os.fspath(source)
    else:
        model = source.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    feeds = {name: array for name, array in inputs.items() if name in wanted}
    return dict(zip(names, session.run(names, feeds)))
