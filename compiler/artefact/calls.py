"""Calling a model like a function: arguments to inputs, outputs in the kind of the inputs.

torch is never imported here: who hands over a torch tensor has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from planish.artefact.format import Manifest, TensorInfo
from planish.ir.errors import TensorError

#: Inputs, or outputs, that a repr shows.
_SHOWN = 8


def bind_arguments(
    model: str, names: Sequence[str], inputs: Sequence[Any], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Give what `model(*inputs, **named)` hands over, by the names of the model's inputs.

    Raises TensorError for too many inputs, or one that is given twice; missing and unknown names
    are left for run() to tell.
    """
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        given = dict(inputs[0])
    elif len(inputs) > len(names):
        raise TensorError(
            f"model '{model}' takes {len(names)} input{'s' if len(names) != 1 else ''} "
            f"({', '.join(names)}), got {len(inputs)}"
        )
    else:
        given = dict(zip(names, inputs))
    twice = [name for name in named if name in given]
    if twice:
        raise TensorError(f"model '{model}' was given input '{twice[0]}' twice")
    return {**given, **named}


def chosen_outputs(model: str, names: Sequence[str], wanted: Sequence[str] | None) -> Sequence[str]:
    """Give the names of the outputs that are wanted; raises TensorError for one there is not."""
    if wanted is None:
        return names
    if isinstance(wanted, str):
        raise TensorError(f"outputs is '{wanted}', expected a list of names: outputs=['{wanted}']")
    for name in wanted:
        if name not in names:
            raise TensorError(f"model '{model}' has no output '{name}'; it has {list(names)}")
    return wanted


def like_inputs(inputs: Iterable[Any], outputs: Mapping[str, Any]) -> list[Any]:
    """Give the outputs, as torch tensors on the same memory if all inputs are torch tensors."""
    torch = sys.modules.get("torch")
    given = list(inputs)
    if torch is None or not given or not all(isinstance(x, torch.Tensor) for x in given):
        return list(outputs.values())
    return [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in outputs.values()]


def torch_array(value: Any) -> np.ndarray[Any, Any] | None:
    """Give a writeable array on the memory of a torch tensor; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    try:
        array: np.ndarray[Any, Any] = value.numpy()
    except (RuntimeError, TypeError):  # on another device, or part of a graph of gradients
        return None
    return array


def spell_signature(manifest: Manifest) -> str:
    """Give a model in a line: `name(x: float32[1, 3]) -> (y: float32[1, 5], n: int64[])`."""
    outputs = _spell(manifest.outputs)
    single = len(manifest.outputs) == 1
    return f"{manifest.name}({_spell(manifest.inputs)}) -> {outputs if single else f'({outputs})'}"


def _spell(tensors: Sequence[TensorInfo]) -> str:
    told = [f"{t.name}: {t.dtype}{list(t.shape)}" for t in tensors[:_SHOWN]]
    if len(tensors) > _SHOWN:
        told.append(f"{len(tensors) - _SHOWN} more")
    return ", ".join(told)
