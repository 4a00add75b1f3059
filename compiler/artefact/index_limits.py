"""Inputs whose values are indices: what they may be, as the manifest says, and the check of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from planish.artefact.format import Manifest
from planish.ir.errors import ArtefactError, TensorError

OPTION = "input_limits"
"""Of the manifest's options: {input: [least, end]}, for values from `least` to `end - 1`."""


class IndexLimits:
    """The permitted values of a model's inputs.

    Raises ArtefactError for a manifest whose limits are not of its inputs.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._model = manifest.name
        found = manifest.options.get(OPTION, {})
        names = [tensor.name for tensor in manifest.inputs]
        if not isinstance(found, dict) or not all(
            name in names and _is_range(limits) for name, limits in found.items()
        ):
            raise ArtefactError(
                f"the manifest of model '{manifest.name}' has no ranges of its inputs as "
                f"'{OPTION}'; compile the model again"
            )
        self._limits = [(n, name, *found[name]) for n, name in enumerate(names) if name in found]

    def check(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        """Raise TensorError for the first value that points outside of a tensor."""
        for number, name, least, end in self._limits:
            array = inputs[number]
            # A float is cut to a whole number, as the model does; NaN is none.
            wrong = (array < least) | (array >= end) if array.dtype.kind in "iu" else ~(
                (array > least - 1) & (array < end)
            )  # fmt: skip
            if wrong.any():
                place = tuple(int(i) for i in np.argwhere(wrong)[0])
                raise TensorError(
                    f"input {name!a} of model '{self._model}' holds {array[place]} at "
                    f"{list(place)}, which is an index out of range: expected {least} to {end - 1}"
                )


def _is_range(limits: object) -> bool:
    """True for two whole numbers of 64 bits."""
    return (
        isinstance(limits, list)
        and [type(limit) for limit in limits] == [int, int]
        and all(-(2**63) <= limit < 2**63 for limit in limits)
    )


def to_json(limits: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    """Give the limits as they stand in the manifest."""
    return {name: list(limit) for name, limit in limits.items()}
