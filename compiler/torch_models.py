"""Models of PyTorch as ONNX files; torch is imported only where a torch object was handed over."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from planish.ir.errors import InvalidModel, PlanishError, UnsupportedModel
from planish.ir.scratch import scratch_folder


def is_torch_model(model: Any) -> bool:
    """Whether `model` is a torch.nn.Module, an ExportedProgram or an ONNXProgram."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(model, torch.nn.Module):
        return True
    kinds = {("ExportedProgram", "torch.export"), ("ONNXProgram", "torch.onnx")}
    return any(
        parent.__name__ == name and parent.__module__.startswith(home)
        for parent in type(model).__mro__
        for name, home in kinds
    )


@contextmanager
def exported(model: Any, examples: Any = None) -> Iterator[Path]:
    """The file of a torch model as ONNX, its weights beside it, in a folder that goes afterwards.

    A module is traced with `examples` as it is in evaluation: dropout is off, batch norms use what
    they have learned. Weights of any size fit, for they are no part of a protobuf.

    Raises InvalidModel if `examples` are missing or do not fit, UnsupportedModel if torch cannot
    export the model or it writes into its buffers or inputs, PlanishError if the exporter's
    package is not installed.
    """
    program = model if hasattr(model, "model_proto") else _export(model, examples)
    _require_pure(program)
    with scratch_folder() as folder:
        path = Path(folder, "model.onnx")
        try:
            program.save(str(path), external_data=True)
        except OSError as error:
            raise PlanishError(f"cannot write the exported model to {folder}: {error}") from error
        yield path


def _export(model: Any, examples: Any) -> Any:
    import torch

    missing = [name for name in ("onnxscript",) if importlib.util.find_spec(name) is None]
    if missing:
        raise PlanishError(
            f"torch exports models by means of the package {missing[0]}, which is not installed: "
            f"pip install {missing[0]}"
        )
    args, kwargs = _arguments(model, examples)
    with _evaluating(model):
        try:
            return torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, verbose=False)
        except Exception as error:  # torch raises whatever its tracer, decompositions or ops raise
            raise UnsupportedModel(
                f"torch.onnx.export cannot export this {type(model).__name__}: {spell_error(error)}"
            ) from error


def _require_pure(program: Any) -> None:
    """Raises UnsupportedModel for a program with a state, which would be lost between calls."""
    traced = getattr(program, "exported_program", None)
    if traced is None:
        return
    signature = traced.graph_signature
    written = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    if written:
        raise UnsupportedModel(
            f"the model writes into its buffers or inputs in place ({', '.join(written)}), which "
            "an artefact never does; take the old values as an input, and return the new ones"
        )


def _arguments(model: Any, examples: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments that the model is traced with."""
    import torch

    if not isinstance(model, torch.nn.Module):
        return (), {}  # an ExportedProgram has been traced
    if examples is None:
        raise InvalidModel(
            "a torch.nn.Module is traced with inputs: give example_inputs, such as "
            "example_inputs=torch.randn(1, 3, 224, 224), a tuple of several, or a dict by name"
        )
    if isinstance(examples, Mapping):
        return (), {name: _tensor(value) for name, value in examples.items()}
    given = examples if isinstance(examples, tuple | list) else (examples,)
    return tuple(map(_tensor, given)), {}


def _tensor(value: Any) -> Any:
    """An array as a tensor; all else as it is (numbers, flags, nested tensors)."""
    import torch

    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The module in evaluation mode, each of its parts as it was afterwards."""
    import torch

    training = []
    if isinstance(model, torch.nn.Module):
        training = [part for part in model.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def spell_error(error: BaseException) -> str:
    """What an error of torch says, without the pages of context after it."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__
