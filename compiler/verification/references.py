"""What an artefact is compared with: other implementations of its model, and it perturbed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from planish.bench.precision import exact_outputs
from planish.ir.errors import InvalidGraph, UnsupportedModel
from planish.ir.graph import Graph
from planish.ir.onnx.model import Located, Source
from planish.ir.reference import evaluate
from planish.ir.subnormals import flush_subnormals
from planish.verification.perturbation import (
    flushed_graph,
    flushed_model,
    perturbed_graph,
    perturbed_inputs,
    perturbed_model,
)
from planish.verification.undefined import decided

Arrays = Mapping[str, np.ndarray]


class Unusable(Exception):
    """A reference that cannot compute the model, or not on these inputs."""


class Reference(Protocol):
    """Computes a model; raises Unusable where it cannot."""

    name: str

    def outputs(self, inputs: Arrays) -> Arrays:
        """The outputs by name."""

    def others(self, inputs: Arrays) -> list[Arrays]:
        """What further independent implementations compute."""

    def optimised(self, inputs: Arrays) -> Arrays:
        """The outputs by one of them; Unusable where there is none."""

    def exact(self, inputs: Arrays) -> Arrays | None:
        """The outputs computed in float64 and rounded; None where that cannot be."""

    def perturbed(self, inputs: Arrays, seed: int) -> Arrays:
        """The outputs where inputs and weights are off by what rounding may do."""

    def flushed(self, inputs: Arrays) -> Arrays:
        """The outputs where subnormal numbers in inputs and weights are zeros."""


class NumpyReference:
    """The ops' own definitions; `graph` is the model as imported."""

    def __init__(self, graph: Graph, why: str = "") -> None:
        self.name = f"numpy reference ({why})" if why else "numpy reference"
        self._graph = graph

    def outputs(self, inputs: Arrays) -> Arrays:
        return _evaluated(self._graph, inputs)

    def others(self, inputs: Arrays) -> list[Arrays]:
        return []

    def optimised(self, inputs: Arrays) -> Arrays:
        raise Unusable("the numpy reference has one form")

    def exact(self, inputs: Arrays) -> Arrays | None:
        return _exact(self._graph, inputs)

    def perturbed(self, inputs: Arrays, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        return _evaluated(perturbed_graph(self._graph, rng), perturbed_inputs(inputs, rng))

    def flushed(self, inputs: Arrays) -> Arrays:
        return _evaluated(flushed_graph(self._graph), _flushed(inputs))


class OnnxruntimeReference:
    """onnxruntime on the model as it is, with its optimisations off.

    Its optimised form computes in another order and, where a model is quantised, with other
    kernels. One that adds products of bytes in 16 bits, which overflow on processors without VNNI,
    is switched off there; the form without optimisations has no such switch.
    """

    def __init__(self, graph: Graph, source: Source | Located, version: str) -> None:
        self.name = f"onnxruntime {version}"
        self._graph = graph
        self._source = source
        self._sessions: dict[str, Any] = {}

    def outputs(self, inputs: Arrays) -> Arrays:
        return self._run("plain", lambda: self._session(optimised=False), inputs)

    def others(self, inputs: Arrays) -> list[Arrays]:
        try:
            return [self.optimised(inputs)]
        except Unusable:
            return []

    def optimised(self, inputs: Arrays) -> Arrays:
        return self._run("optimised", lambda: self._session(optimised=True), inputs)

    def exact(self, inputs: Arrays) -> Arrays | None:
        return _exact(self._graph, inputs)

    def perturbed(self, inputs: Arrays, seed: int) -> Arrays:
        rng = np.random.default_rng(seed)
        moved = perturbed_inputs(inputs, rng)
        try:
            return self._run(
                f"perturbed {seed}",
                lambda: _session(perturbed_model(self._source, rng), optimised=False),
                moved,
            )
        except Unusable:  # the weights decide a shape, or the model is too large to be copied
            return self.outputs(moved)

    def flushed(self, inputs: Arrays) -> Arrays:
        if flushed_graph(self._graph) is self._graph:
            return self.outputs(_flushed(inputs))
        return self._run(
            "flushed",
            lambda: _session(flushed_model(self._source), optimised=False),
            _flushed(inputs),
        )

    def _session(self, optimised: bool) -> Any:
        folder = self._source.folder if isinstance(self._source, Located) else None
        return _session(_model(self._source), optimised, folder)

    def _run(self, form: str, make: Callable[[], Any], inputs: Arrays) -> Arrays:
        try:
            if form not in self._sessions:
                self._sessions[form] = make()
            session = self._sessions[form]
            wanted = {value.name for value in session.get_inputs()}
            names = [value.name for value in session.get_outputs()]
            feeds = {name: array for name, array in inputs.items() if name in wanted}
            return dict(zip(names, session.run(names, feeds)))
        except Exception as error:  # the bindings raise bare Exception subclasses of their own
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise Unusable(told) from None


class ClampedReference(NumpyReference):
    """The ops' own definitions, with indices outside a tensor clamped into it, as in artefacts."""

    def outputs(self, inputs: Arrays) -> Arrays:
        found = decided(self._graph, inputs, 0)
        if found is None:
            raise Unusable("the ops' definitions do not take these inputs")
        return found


class References:
    """The references of one model; sessions are made once, whatever the number of inputs.

    `graph` is the model as imported; without `source` only the ops' own definitions are left.
    """

    def __init__(self, graph: Graph, source: Source | Located | None = None) -> None:
        self._graph = graph
        self._peer: OnnxruntimeReference | None = None
        if source is not None and importlib.util.find_spec("onnxruntime") is not None:
            import onnxruntime

            self._peer = OnnxruntimeReference(graph, source, onnxruntime.__version__)

    def compute(self, inputs: Arrays, *, outside: bool = False) -> tuple[Reference, Arrays]:
        """The first reference that takes the inputs, and its outputs; Unusable if none does.

        With `outside` indices may lie outside their tensors.
        """
        why = ""
        if self._peer is not None:
            try:
                return self._peer, self._peer.outputs(inputs)
            except Unusable as error:
                why = f"onnxruntime refused: {error}"
        own = NumpyReference(self._graph, why)
        try:
            return own, own.outputs(inputs)
        except Unusable:
            if not outside:
                raise
        clamped = ClampedReference(self._graph, "indices clamped into their tensors")
        return clamped, clamped.outputs(inputs)


def _flushed(inputs: Arrays) -> Arrays:
    return {name: flush_subnormals(array) for name, array in inputs.items()}


def _evaluated(graph: Graph, inputs: Arrays) -> Arrays:
    try:
        return evaluate(graph, inputs)
    except InvalidGraph as error:
        raise Unusable(str(error)) from None


def _exact(graph: Graph, inputs: Arrays) -> Arrays | None:
    """In float64, then in each output's type."""
    try:
        found = exact_outputs(graph, inputs)
    except (UnsupportedModel, InvalidGraph):
        return None
    types = {n: v.type.dtype.numpy for n, v in zip(graph.output_names, graph.outputs)}
    with np.errstate(all="ignore"):
        return {name: array.astype(types[name]) for name, array in found.items()}


def _model(source: Source | Located) -> bytes | str:
    if isinstance(source, Located):
        return _model(source.model)
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return source.SerializeToString()  # type: ignore[no-any-return]


def _session(model: bytes | str, optimised: bool, folder: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    )
    options.add_session_config_entry("session.x64quantprecision", "1")
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", os.fspath(folder)
        )
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
