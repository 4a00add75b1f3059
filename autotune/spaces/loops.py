"""Kernels without directives: emitted TensorIR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planish.autotune.spaces.space import Choices, Space, Steps, is_parallel
from planish.ir.graph import Node
from planish.ir.target import Target


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `lanes` (of the vectors that an emitter writes), `parallel`."""
    vectors = tuple(v for v in (1, 4, 8, 16, 32) if v <= 2 * _lanes(kernel, target))
    return {"lanes": vectors, "parallel": (False, True)}


def pick(kernel: Node, target: Target) -> Choices:
    """Vectors of the target's width."""
    return {"lanes": _lanes(kernel, target), "parallel": is_parallel(kernel, target)}


def _lanes(kernel: Node, target: Target) -> int:
    return target.lanes(kernel.outputs[0].type.dtype.itemsize)


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """The loops as they are written."""
    return []


SPACE = Space("loops", (), options, pick, directives)
