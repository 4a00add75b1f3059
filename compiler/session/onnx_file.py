"""The ONNX model of a session: what it says of its tensors, and its compilations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from planish.artefact.loading import Model
from planish.driver import compile
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx.declared import NO_NAME
from planish.ir.onnx.model import Located, load_model, parameters
from planish.session.options import SessionOptions
from planish.session.values import NO_VERSION, ModelMetadata, NodeArg, type_of_number


class OnnxFile:
    """A model that is read once: its file may be replaced or removed while a session is open.

    Only weights in files of their own are read again when shapes appear.
    """

    def __init__(
        self, path_or_bytes: str | os.PathLike[str] | bytes, dims: Mapping[str, int]
    ) -> None:
        """Read it; `dims` fixes symbolic dimensions. Raises InvalidModel or UnsupportedModel."""
        self._content, self._folder, name = _read(path_or_bytes)
        located = Located(self._content, self._folder) if self._folder else self._content
        model, _ = load_model(located)
        values = parameters(model.graph)
        self._name = name or model.graph.name or "model"
        self.inputs = [_describe(value, dims) for value in values]
        self.outputs = [_describe(value, dims) for value in model.graph.output]
        self.unranked = {v.name for v in values if not v.type.tensor_type.HasField("shape")}
        self.meta = _meta(model)

    @property
    def is_static(self) -> bool:
        """Whether the sizes of all inputs are known."""
        dims = [dim for entry in self.inputs for dim in entry.shape]
        return not self.unranked and all(type(dim) is int for dim in dims)

    def compile(self, shapes: Mapping[str, Sequence[int]], options: SessionOptions) -> Model:
        """Compile the model for input shapes, in memory. Raises what planish.compile does."""
        return compile(
            self._content,
            external_data=self._folder,
            name=self._name,
            dims=options.dims,
            shapes=shapes,
            threads=options.threads,
            verify=options.verify,
        )


def _read(source: str | os.PathLike[str] | bytes) -> tuple[bytes, Path | None, str]:
    """Give the bytes, the folder and the name of a model."""
    if isinstance(source, bytes):
        return source, None, ""
    path = Path(source)
    try:
        return path.read_bytes(), path.absolute().parent, path.stem
    except OSError as error:
        raise InvalidModel(f"cannot read '{path}': {error.strerror or error}") from None


def _describe(value: ValueInfoProto, dims: Mapping[str, int]) -> NodeArg:
    if value.type.WhichOneof("value") not in ("tensor_type", None):
        kind = str(value.type.WhichOneof("value")).removesuffix("_type").replace("_", " ")
        raise UnsupportedModel(f"'{value.name}' is {kind}; only tensors are supported")
    tensor = value.type.tensor_type
    shape: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
            shape.append(int(dim.dim_value))
        else:
            name = "" if dim.dim_param in NO_NAME else str(dim.dim_param)
            shape.append(dims.get(name, name or None))
    return NodeArg(value.name, type_of_number(tensor.elem_type), shape)


def _meta(model: ModelProto) -> ModelMetadata:
    said = {entry.key: entry.value for entry in model.metadata_props}
    version = model.model_version if model.HasField("model_version") else NO_VERSION
    return ModelMetadata(
        model.producer_name,
        model.graph.name,
        model.domain,
        model.doc_string,
        model.graph.doc_string,
        version,
        said,
    )
