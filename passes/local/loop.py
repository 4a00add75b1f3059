"""A loop of a kernel, and which part of its stage's axes it runs over."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["serial", "parallel", "vectorized", "unrolled"]


@dataclass(frozen=True, slots=True)
class Digit:
    """`extent` steps of `stride` elements along `axis`, an axis that the stage began with."""

    axis: str
    stride: int
    extent: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop by its current name.

    `digits` say what its iterations mean, the slowest first. `mixed`: they cannot be told apart, as
    a fused loop was split across the border of what had been fused. `guarded`: some iterations are
    cut off, as a factor did not divide; the guard stands in the body.
    """

    name: str
    extent: int
    reduced: bool
    digits: tuple[Digit, ...]
    kind: Kind = "serial"
    mixed: bool = False
    guarded: bool = False


def whole_axis(name: str, extent: int, reduced: bool = False) -> Loop:
    """The loop over all of an axis."""
    return Loop(name, extent, reduced, (Digit(name, 1, extent),))


def fused(loops: tuple[Loop, ...], name: str) -> Loop:
    """One loop over the iterations of several, the first of which is the slowest."""
    return Loop(
        name,
        math.prod(loop.extent for loop in loops),
        loops[0].reduced,
        tuple(digit for loop in loops for digit in loop.digits),
        mixed=any(loop.mixed for loop in loops),
        guarded=any(loop.guarded for loop in loops),
    )


def divided(loop: Loop, factor: int, outer: str, inner: str) -> tuple[Loop, Loop]:
    """The loop as ceil(extent / factor) times `factor` iterations."""
    count = -(-loop.extent // factor)
    guarded = loop.guarded or loop.extent % factor != 0
    slow, fast = _divided_digits(loop.digits, factor)
    mixed = loop.mixed or not fast
    if mixed:
        slow = fast = loop.digits
    base = replace(loop, mixed=mixed, guarded=guarded)
    return (
        replace(base, name=outer, extent=count, digits=slow),
        replace(base, name=inner, extent=factor, digits=fast),
    )


def _divided_digits(
    digits: tuple[Digit, ...], factor: int
) -> tuple[tuple[Digit, ...], tuple[Digit, ...]]:
    """Digits of the outer and the inner loop; none for the inner one where they do not part."""
    if len(digits) == 1:
        (d,) = digits
        outer = Digit(d.axis, d.stride * factor, -(-d.extent // factor))
        return (outer,), (Digit(d.axis, d.stride, factor),)
    slow, fast = list(digits), list[Digit]()
    while slow and factor % slow[-1].extent == 0:
        factor //= slow[-1].extent
        fast.insert(0, slow.pop())
    if factor > 1:
        if not slow or slow[-1].extent % factor:
            return digits, ()
        d = slow.pop()
        slow.append(Digit(d.axis, d.stride * factor, d.extent // factor))
        fast.insert(0, Digit(d.axis, d.stride, factor))
    return tuple(slow), tuple(fast) or (Digit(digits[-1].axis, 1, 1),)


def reach(loops: Iterable[Loop], axis: str, extent: int) -> int:
    """Elements of an axis of `extent`, first to last, that the loops run over together."""
    last = 0
    for loop in loops:
        parts = [digit for digit in loop.digits if digit.axis == axis]
        if parts and loop.mixed:
            return extent
        last += sum((digit.extent - 1) * digit.stride for digit in parts)
    return min(last + 1, extent)
