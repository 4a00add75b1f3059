"""What `planish.compile` takes for a model, as something that the importer reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from onnx import ModelProto

from planish.ir.errors import InvalidModel
from planish.ir.onnx.model import Located, input_names
from planish.torch_models import exported, is_torch_model

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source

#: Arrays by the names of inputs, in their order, or the array of the only input.
Examples: TypeAlias = "Mapping[str, Any] | Sequence[Any] | Any"

#: A path, the bytes of a file, onnx.ModelProto, torch.nn.Module, torch.export.ExportedProgram or
#: torch.onnx.ONNXProgram.
AnyModel: TypeAlias = "Source | Any"


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model that the importer reads, the name it suggests, and shapes that examples gave it."""

    source: Source | Located
    name: str
    shapes: Mapping[str, Sequence[int]]


@contextmanager
def onnx_model(
    model: AnyModel,
    examples: Examples | None = None,
    external_data: str | os.PathLike[str] | None = None,
) -> Iterator[OnnxModel]:
    """The ONNX model that `model` is, or is exported to; its file, if it has one, goes afterwards.

    `examples` are what torch traces a module with; for an ONNX model they tell the shapes of its
    inputs. `external_data` is the folder of the weights that a model in memory keeps in files.
    Raises InvalidModel for what is no model, or examples that do not fit.
    """
    if is_torch_model(model):
        with exported(model, examples) as path:
            yield OnnxModel(path, _spelled(type(model).__name__), {})
        return
    if isinstance(model, bytearray | memoryview):
        model = bytes(model)
    if not isinstance(model, str | os.PathLike | bytes | ModelProto):
        raise InvalidModel(
            "a model is the path or the bytes of an ONNX file, an onnx.ModelProto, a "
            "torch.nn.Module, a torch.export.ExportedProgram or a torch.onnx.ONNXProgram; got "
            f"{_article(type(model))}"
        )
    source: Source | Located = model
    if external_data is not None:
        if not isinstance(model, bytes | ModelProto):
            raise InvalidModel(
                "external_data is for a model in memory; a model's file has its weights beside it"
            )
        source = Located(model, Path(external_data))
    shapes = {} if examples is None else _shapes(source, examples)
    yield OnnxModel(source, _name(model), shapes)


def _name(model: Source) -> str:
    if isinstance(model, str | os.PathLike):
        return Path(model).stem
    return "model" if isinstance(model, bytes) else model.graph.name or "model"


def _spelled(name: str) -> str:
    return "model" if name.endswith("Program") else name.lower()


def _shapes(source: Source | Located, examples: Examples) -> dict[str, tuple[int, ...]]:
    """Input → shape of its example."""
    if isinstance(examples, Mapping):
        named = dict(examples)
    else:
        names = input_names(source)
        given = list(examples) if isinstance(examples, tuple | list) else [examples]
        if len(given) != len(names):
            raise InvalidModel(
                f"example_inputs has {len(given)} arrays, the inputs of the model are: "
                f"{', '.join(names) or 'none'}"
            )
        named = dict(zip(names, given))
    for name, value in named.items():
        if not hasattr(value, "shape"):
            raise InvalidModel(
                f"the example of input '{name}' is {_article(type(value))}, expected an array"
            )
    return {name: tuple(map(int, value.shape)) for name, value in named.items()}


def _article(kind: type) -> str:
    name = kind.__qualname__ if kind.__module__ == "builtins" else (
        f"{kind.__module__}.{kind.__qualname__}"
    )  # fmt: skip
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
