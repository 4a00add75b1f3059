"""InferenceSession: onnxruntime's interface over models that planish compiles as shapes appear."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from planish.artefact.loading import Model, load
from planish.ir.errors import PlanishError, TensorError
from planish.session.options import (
    PROVIDER,
    RunOptions,
    SessionOptions,
    provider_names,
    tell_ignored,
)
from planish.session.values import (
    IOBinding,
    ModelMetadata,
    NodeArg,
    OrtValue,
    dtype_of_type,
    type_of_dtype,
    unwrapped,
)

if TYPE_CHECKING:
    from planish.session.onnx_file import OnnxFile

Shapes: TypeAlias = tuple[tuple[int, ...], ...]


class InferenceSession:
    """onnxruntime's session: `InferenceSession("model.onnx").run(None, {"x": x})`.

    A model whose input shapes are all known is compiled at once. What it leaves open (a symbolic
    batch) is compiled when a run shows the shapes, once for each combination of them; the last
    eight stay compiled (see SessionOptions for more). The folder of an artefact is taken too, and
    loaded. Several threads may run one session.

    Raises InvalidModel, UnsupportedModel or VerificationFailed when it compiles, TensorError (a
    ValueError) for inputs of the wrong name, dtype, rank or shape.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        self._options = sess_options or SessionOptions()
        foreign = [name for name in provider_names(providers) if name != PROVIDER]
        tell_ignored(self._options, [*foreign, *others], stacklevel=2)
        self._lock, self._compiling = threading.Lock(), threading.Lock()
        self._compiled: OrderedDict[Shapes, Model] = OrderedDict()
        self._file: OnnxFile | None = None
        self._unranked: set[str] = set()
        model: Model | None = None
        if not isinstance(path_or_bytes, bytes) and Path(path_or_bytes).is_dir():
            model = load(path_or_bytes, threads=self._options.threads)
            self._inputs, self._outputs = _described(model)
            self._meta = ModelMetadata("planish", model.name)
        else:
            from planish.session.onnx_file import OnnxFile

            self._file = OnnxFile(path_or_bytes, self._options.dims)
            self._inputs, self._outputs = self._file.inputs, self._file.outputs
            self._meta, self._unranked = self._file.meta, self._file.unranked
            if self._file.is_static:
                model = self._file.compile({}, self._options)
                _, self._outputs = _described(model)
        if model is not None:
            self._keep(tuple(tensor.shape for tensor in model.inputs), model)

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """Give the outputs that are named (None: all) for inputs by name, as numpy arrays."""
        return self._run(output_names, input_feed, {})

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """Do the same with OrtValues."""
        return [OrtValue(array) for array in self._run(output_names, input_dict_ort_values, {})]

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], None],
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Run in a thread, and call `callback(results, user_data, error)`; "" is no error."""

        def work() -> None:
            try:
                results, error = self._run(output_names, input_feed, {}), ""
            except PlanishError as raised:
                results, error = [], str(raised)
            callback(results, user_data, error)

        threading.Thread(target=work).start()

    def io_binding(self) -> IOBinding:
        """Give an object that binds arrays to inputs and outputs."""
        return IOBinding(self)

    def run_with_iobinding(
        self, iobinding: IOBinding, run_options: RunOptions | None = None
    ) -> None:
        """Run with what is bound; results go to the bound outputs, or to new arrays."""
        places = {name: value.numpy() for name, value in iobinding.bound.items() if value}
        found = self._run(list(iobinding.bound), iobinding.inputs, places)
        iobinding.results = [
            value or OrtValue(array) for value, array in zip(iobinding.bound.values(), found)
        ]

    def get_inputs(self) -> list[NodeArg]:
        """Describe the inputs: `.name`, `.type` such as "tensor(float)", `.shape`."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """Describe the outputs."""
        return list(self._outputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Give an empty list: weights are compiled in."""
        return []

    def get_modelmeta(self) -> ModelMetadata:
        """Give what the model says of itself."""
        return self._meta

    def get_session_options(self) -> SessionOptions:
        """Give the options of this session."""
        return self._options

    def get_providers(self) -> list[str]:
        """Give the one provider there is."""
        return [PROVIDER]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Give its options: none."""
        return {PROVIDER: {}}

    def set_providers(
        self,
        providers: Sequence[Any] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Accepted, without effect: planish runs on the CPU."""
        foreign = [name for name in provider_names(providers) if name != PROVIDER]
        tell_ignored(SessionOptions(), foreign, stacklevel=2)

    def disable_fallback(self) -> None:
        """Accepted, without effect: there is no other provider."""

    def enable_fallback(self) -> None:
        """Accepted, without effect: there is no other provider."""

    def end_profiling(self) -> str:
        """Give "", for there is no file of a profile; `planish bench` profiles."""
        return ""

    def __repr__(self) -> str:
        inputs, outputs = _spell(self._inputs), _spell(self._outputs)
        return f"<planish.InferenceSession {self._meta.graph_name}({inputs}) -> ({outputs})>"

    def _run(
        self, names: Sequence[str] | None, feed: Mapping[str, Any], places: Mapping[str, Any]
    ) -> list[Any]:
        known = [output.name for output in self._outputs]
        wanted = list(names or known)
        for name in wanted:
            if name not in known:
                raise TensorError(f"invalid output name '{name}'; outputs are {', '.join(known)}")
        inputs = self._checked(feed)
        model = self._model(tuple(array.shape for array in inputs.values()))
        found = model.run(inputs, outputs=list(dict.fromkeys(wanted)), out=places)
        return [found[name] for name in wanted]

    def _checked(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Give the inputs as arrays in the model's order; raises TensorError where they are not."""
        names = [entry.name for entry in self._inputs]
        missing = [name for name in names if name not in feed]
        if missing:
            raise TensorError(
                f"required inputs ({missing}) are missing from input feed ({list(feed)})"
            )
        for name in feed:
            if name not in names:
                raise TensorError(f"invalid input name '{name}'; inputs are {', '.join(names)}")
        sizes: dict[str, int] = dict(self._options.dims)
        return {
            entry.name: _fitting(
                entry, unwrapped(feed[entry.name]), sizes, entry.name not in self._unranked
            )
            for entry in self._inputs
        }

    def _model(self, shapes: Shapes) -> Model:
        """Give the model for input shapes, compiling it where it is not among the last ones."""
        model = self._known(shapes)
        if model is not None:
            return model
        with self._compiling:  # one at a time; runs of known shapes go on meanwhile
            model = self._known(shapes)
            if model is None:
                assert self._file is not None, "an artefact's shapes are all fixed, and checked"
                names = [entry.name for entry in self._inputs]
                model = self._file.compile(dict(zip(names, shapes)), self._options)
                self._keep(shapes, model)
            return model

    def _known(self, shapes: Shapes) -> Model | None:
        with self._lock:
            if shapes in self._compiled:
                self._compiled.move_to_end(shapes)
            return self._compiled.get(shapes)

    def _keep(self, shapes: Shapes, model: Model) -> None:
        with self._lock:
            self._compiled[shapes] = model
            while len(self._compiled) > self._options.cached_shapes:
                self._compiled.popitem(last=False)


def _described(model: Model) -> tuple[list[NodeArg], list[NodeArg]]:
    """Give the inputs and the outputs of a compiled model."""

    def describe(tensors: Sequence[Any]) -> list[NodeArg]:
        return [NodeArg(t.name, type_of_dtype(t.dtype), list(t.shape)) for t in tensors]

    return describe(model.inputs), describe(model.outputs)


def _fitting(entry: NodeArg, value: Any, sizes: dict[str, int], ranked: bool) -> Any:
    """Give an input as an array that fits its description; `sizes` learns symbolic dimensions."""
    try:
        dtype = np.dtype(dtype_of_type(entry.type))
    except TypeError:
        raise TensorError(f"input '{entry.name}' is {entry.type}, which numpy lacks") from None
    if isinstance(value, list | tuple | bool | int | float):
        value = _converted(entry, value, dtype)
    elif not isinstance(value, np.ndarray | np.generic):
        value = _from_dlpack(entry, value)
    if value.dtype != dtype:
        raise TensorError(
            f"unexpected data type of input '{entry.name}': actual {type_of_dtype(value.dtype)}, "
            f"expected {entry.type}; convert it with .astype('{dtype}')"
        )
    if ranked and len(value.shape) != len(entry.shape):
        raise TensorError(
            f"invalid rank for input '{entry.name}': got {len(value.shape)} {list(value.shape)}, "
            f"expected {len(entry.shape)} {entry.shape}"
        )
    for axis, (dim, size) in enumerate(zip(entry.shape, value.shape)):
        expected = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
        if expected is not None and size != expected:
            raise TensorError(
                f"invalid dimensions for input '{entry.name}': axis {axis}"
                f"{f' ({dim})' if isinstance(dim, str) else ''} is {size}, expected {expected}"
            )
    return value


def _converted(entry: NodeArg, value: Any, dtype: Any) -> Any:
    try:
        return np.asarray(value, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise TensorError(f"input '{entry.name}' is no {entry.type}: {error}") from None


def _from_dlpack(entry: NodeArg, value: Any) -> Any:
    try:
        return np.from_dlpack(value)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TensorError(
            f"input '{entry.name}' is a {type(value).__qualname__}, expected a numpy array, a list "
            f"or a DLPack tensor in CPU memory ({error})"
        ) from None


def _spell(entries: Sequence[NodeArg]) -> str:
    return ", ".join(f"{entry.name}: {entry.type} {entry.shape}" for entry in entries)
