"""Kernels that only permute elements, as digits with a stride in the source and the result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planish.ir.graph import Graph, Node, Value
from planish.passes.fuse import is_padded


@dataclass(frozen=True, slots=True)
class Digit:
    """`extent` steps that are `written` elements apart in the result and `read` in the source."""

    extent: int
    read: int
    written: int = 0


Axes = list[list[Digit]]  # of a tensor's dimensions, the slowest digit first


def permutation(body: Graph) -> tuple[Digit, ...] | None:
    """The digits of the result, slowest first, as few as possible; None if it does more.

    [64, 7, 7] → [7, 7, 64] is (49, read 1, written 64), (64, read 49, written 1).
    """
    if len(body.inputs) != 1 or len(body.outputs) != 1 or is_padded(body):
        return None
    value: Value = body.inputs[0]
    axes = _dense(value.type.static_shape)
    for node in body.nodes:
        step = _STEPS.get(node.op)
        if step is None or node.inputs != (value,):
            return None
        moved = step(axes, node)
        if moved is None:
            return None
        axes, value = moved, node.output
    if body.outputs[0] is not value:
        return None
    return _written([digit for axis in axes for digit in axis])


def turned(digits: tuple[Digit, ...]) -> Digit | None:
    """The digit whose elements lie side by side in the source but not in the result, if any."""
    return next((digit for digit in digits[:-1] if digit.read == 1), None)


def _dense(shape: tuple[int, ...]) -> Axes:
    strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
    return [[Digit(n, stride)] for n, stride in zip(shape, strides)]


def _written(digits: list[Digit]) -> tuple[Digit, ...]:
    """Digits that follow each other in both tensors as one, with their strides in the result."""
    merged: list[Digit] = []
    for digit in digits:
        if digit.extent == 1:
            continue
        if merged and merged[-1].read == digit.read * digit.extent:
            digit = replace(digit, extent=merged.pop().extent * digit.extent)
        merged.append(digit)
    stride, found = 1, list[Digit]()
    for digit in reversed(merged):
        found.insert(0, replace(digit, written=stride))
        stride *= digit.extent
    return tuple(found)


def _divided(digits: list[Digit], inner: int) -> tuple[list[Digit], list[Digit]] | None:
    """The digits as slow ones and fast ones of `inner` elements in all."""
    slow, fast = list(digits), list[Digit]()
    while inner > 1:
        digit = slow.pop()
        if inner % digit.extent == 0:
            fast.insert(0, digit)
            inner //= digit.extent
        elif digit.extent % inner == 0:
            fast.insert(0, replace(digit, extent=inner))
            slow.append(Digit(digit.extent // inner, digit.read * inner))
            inner = 1
        else:
            return None
    return slow, fast


def _transpose(axes: Axes, node: Node) -> Axes | None:
    return [axes[d] for d in node.attrs["perm"]]


def _reshape(axes: Axes, node: Node) -> Axes | None:
    rest = [digit for axis in axes for digit in axis if digit.extent > 1]
    found: Axes = []
    for size in reversed(node.output.type.static_shape):
        parts = _divided(rest, size)
        if parts is None:
            return None
        rest, axis = parts
        found.insert(0, axis)
    return found


def _pack(axes: Axes, node: Node) -> Axes | None:
    axis, block = node.attrs["axis"] % len(axes), node.attrs["block"]
    if node.inputs[0].type.static_shape[axis] % (block * node.attrs["segments"]):
        return None  # the last block of a segment is filled up
    parts = _divided(axes[axis], block)
    return None if parts is None else [*axes[:axis], parts[0], *axes[axis + 1 :], parts[1]]


def _unpack(axes: Axes, node: Node) -> Axes | None:
    *outer, inner = axes
    axis = node.attrs["axis"] % len(outer)
    if node.attrs["size"] % (node.attrs["block"] * node.attrs["segments"]):
        return None  # some are cut off
    return [*outer[:axis], [*outer[axis], *inner], *outer[axis + 1 :]]


_STEPS = {"transpose": _transpose, "reshape": _reshape, "pack": _pack, "unpack": _unpack}
