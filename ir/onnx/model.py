"""From a path, bytes or ModelProto to a checked ModelProto and the storage of its tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, OperatorSetIdProto

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx.order import require_text
from planish.ir.onnx.storage import Storage, folders_of
from planish.ir.onnx.wire import detach

Source: TypeAlias = "str | os.PathLike[str] | bytes | ModelProto"


@dataclass(frozen=True, slots=True)
class Located:
    """A model in memory whose external data lie in the files of a folder."""

    model: bytes | ModelProto
    folder: Path


OLDEST_OPSET = 7
NEWEST_OPSET = 28  # reviewed against the changelog of onnx 1.23; raise with table.py


def load_model(source: Source | Located) -> tuple[ModelProto, Storage]:
    """The model, its large tensors left in `source`, which is memory-mapped if it is a path.

    Raises InvalidModel if `source` cannot be read or is not a whole ONNX model.
    """
    folders: tuple[Path, ...] = ()
    if isinstance(source, Located):
        folders = (source.folder,)
        source = source.model
    if isinstance(source, ModelProto):
        model, storage = source, Storage(None, folders)
    elif isinstance(source, bytes):
        data = np.frombuffer(source, np.uint8)
        model, storage = _parse(data, "the model"), Storage(data, folders)
    else:
        path = Path(source)
        data = _mapped(path)
        model, storage = _parse(data, f"'{path}'"), Storage(data, folders_of(path))
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise InvalidModel("the model holds no graph; is the file an ONNX model?")
    if not model.graph.output:
        raise InvalidModel(f"the graph '{model.graph.name}' has no outputs")
    values = [value.name for value in (*model.graph.input, *model.graph.output)]
    domains = [entry.domain for entry in model.opset_import]
    require_text((model.graph.name, *values, *domains), "the model")
    return model, storage


def _mapped(path: Path) -> np.ndarray:
    try:
        if path.stat().st_size == 0:
            raise InvalidModel(f"'{path}' is empty")
        return np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InvalidModel(f"cannot read '{path}': {error.strerror or error}") from None


def _parse(data: np.ndarray, what: str) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(detach(data.data))
    except InvalidModel as error:
        raise InvalidModel(f"{what} is not a whole ONNX model: {error}") from None
    except DecodeError as error:
        raise InvalidModel(f"{what} is not an ONNX model: {error}") from None
    return model


def opset_versions(imports: Iterable[OperatorSetIdProto], owner: str) -> dict[str, int]:
    """Domain → version, with "" for ai.onnx; `owner` is the model or function for errors.

    A domain that is imported twice with one version is fine (real exporters do that).
    """
    versions: dict[str, int] = {}
    for entry in imports:
        domain = normal_domain(entry.domain)
        if not 0 <= entry.version < 2**31:
            raise InvalidModel(
                f"{owner} imports version {entry.version} of the operator set "
                f"'{domain or 'ai.onnx'}', which is no version"
            )
        known = versions.setdefault(domain, entry.version)
        if known != entry.version:
            raise InvalidModel(
                f"{owner} imports the operator set '{domain or 'ai.onnx'}' twice, "
                f"with versions {known} and {entry.version}"
            )
    if not versions:
        raise InvalidModel(f"{owner} imports no operator set")
    version = versions.get("", OLDEST_OPSET)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        raise UnsupportedModel(
            f"{owner} uses opset {version}; opsets {OLDEST_OPSET} to {NEWEST_OPSET} are supported: "
            f"convert it with onnx.version_converter"
        )
    return versions


def normal_domain(domain: str) -> str:
    """The default operator set has two names."""
    return "" if domain == "ai.onnx" else domain


def input_names(source: Source | Located) -> list[str]:
    """The names of a model's inputs, in order. Raises what load_model does."""
    return [value.name for value in parameters(load_model(source)[0].graph)]


def parameters(graph: GraphProto) -> list[onnx.ValueInfoProto]:
    """The graph's inputs without initializers, which IR version 3 lists as inputs too."""
    known = {tensor.name for tensor in graph.initializer}
    known.update(tensor.values.name for tensor in graph.sparse_initializer)
    return [value for value in graph.input if value.name not in known]
