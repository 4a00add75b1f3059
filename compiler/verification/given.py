"""Inputs that somebody gives to verify a compilation on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.inputs import index_bounds
from planish.ir.errors import InvalidModel
from planish.ir.graph import Graph


def checked_inputs(graph: Graph, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of all inputs of the graph; InvalidModel with what does not fit.

    Indices must lie in the tensors that they point into: an artefact clamps them, and no reference
    says what is right then.
    """
    arrays = {name: np.asarray(array) for name, array in given.items()}
    names = [value.name for value in graph.inputs]
    if set(arrays) != set(names):
        lacks, has = sorted(set(names) - set(arrays)), sorted(set(arrays) - set(names))
        told = [f"lack {', '.join(map(repr, lacks))}"] if lacks else []
        told += [f"have {', '.join(map(repr, has))}, which the model has not"] if has else []
        raise InvalidModel(f"the given inputs {' and '.join(told)}; its inputs are {names}")
    for value in graph.inputs:
        array, dtype, shape = arrays[value.name], value.type.dtype.numpy, value.type.static_shape
        if array.dtype != dtype or array.shape != tuple(shape):
            raise InvalidModel(
                f"input '{value.name}' is {dtype}{list(shape)}, the given one is "
                f"{array.dtype}{list(array.shape)}"
            )
    for name, places in index_bounds(graph).items():
        outside = (arrays[name] < -places) | (arrays[name] >= places)
        if arrays[name].dtype.kind == "u":
            outside = arrays[name] >= places
        if outside.any():
            raise InvalidModel(
                f"the given input '{name}' holds {arrays[name][outside].flat[0]} and points into "
                f"a tensor of {places} places, counted from 0, or from the end as -{places} to -1"
            )
    return arrays
