"""Places every stored value: arena offsets reused by liveness, and constants in weights.bin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import TargetError
from planish.ir.graph import Constant, Graph, Result, Value
from planish.passes.views import VIEWS, Places, places_of
from planish.targets.plan import ALIGNMENT, Arg


@dataclass(frozen=True, slots=True)
class Buffer:
    """A value's place in time: written by call `first`, last read by call `last`."""

    value: Value
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where each storage value lies; `lower_bound` is the largest sum of live bytes."""

    places: dict[Value, Arg]
    views: Places
    arena_bytes: int
    lower_bound: int
    weights: tuple[tuple[int, np.ndarray], ...]
    weights_bytes: int

    def place(self, value: Value) -> Arg:
        """The place of a value, through views."""
        found = self.views.of(value)
        arg = self.places[found.owner]
        if not found.offset:
            return arg
        if arg.space not in ("arena", "weights"):
            raise TargetError(f"'{value.name}' is a part of the model's {arg.space}, not of memory")
        return Arg(arg.space, arg.offset_or_index + found.offset)


def plan_memory(graph: Graph) -> MemoryPlan:
    """Places for the values of a graph of kernels.

    Model inputs and outputs are the caller's buffers; the arena holds what lies between.
    """
    places: dict[Value, Arg] = {v: Arg("input", i) for i, v in enumerate(graph.inputs)}
    views = places_of(graph)
    for index, value in enumerate(graph.outputs):
        places[views.of(value).owner] = Arg("output", index)
    weights, total = _place_weights(graph, places)
    buffers = [b for b in lifetimes(graph, views) if b.value not in places]
    offsets = assign_offsets(buffers)
    places.update((b.value, Arg("arena", offset)) for b, offset in zip(buffers, offsets))
    end = max((o + _aligned(b.nbytes) for b, o in zip(buffers, offsets)), default=0)
    return MemoryPlan(places, views, end, largest_live_set(buffers), weights, total)


def _place_weights(
    graph: Graph, places: dict[Value, Arg]
) -> tuple[tuple[tuple[int, np.ndarray], ...], int]:
    """Enter each distinct constant once."""
    found: dict[tuple[str, tuple[int, ...], bytes], Arg] = {}
    stored: list[tuple[int, np.ndarray]] = []
    end = 0
    for value in graph.values():
        if not isinstance(value, Constant):
            continue
        data = np.ascontiguousarray(value.data)
        key = (str(data.dtype), (data.nbytes,), hashlib.sha256(data.tobytes()).digest())
        if key not in found:
            found[key] = Arg("weights", end)
            stored.append((end, data))
            end += _aligned(data.nbytes)
        places[value] = found[key]
    return tuple(stored), end


def lifetimes(graph: Graph, views: Places) -> list[Buffer]:
    """The buffers that kernels write, with the calls between which each must stay."""
    calls = [node for node in graph.nodes if node.op not in VIEWS]
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for number, node in enumerate(calls):
        for value in node.inputs:
            owner = views.of(value).owner
            if isinstance(owner, Result):
                last[owner] = number
        for value in node.outputs:
            owner = views.of(value).owner
            first.setdefault(owner, number)
            last[owner] = number
    return [Buffer(value, value.type.nbytes, first[value], last[value]) for value in first]


def assign_offsets(buffers: Sequence[Buffer]) -> list[int]:
    """Offsets such that buffers alive together do not overlap: largest first, lowest gap."""
    order = sorted(range(len(buffers)), key=lambda i: (-buffers[i].nbytes, buffers[i].first))
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, Buffer]] = []  # (begin, end, buffer), by begin
    for index in order:
        buffer = buffers[index]
        size = _aligned(buffer.nbytes)
        begin = _lowest_gap(((b, e) for b, e, other in placed if _overlap(buffer, other)), size)
        offsets[index] = begin
        placed.append((begin, begin + size, buffer))
        placed.sort(key=lambda entry: entry[0])
    return offsets


def largest_live_set(buffers: Iterable[Buffer]) -> int:
    """The most bytes alive at once: no plan can need less."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + _aligned(buffer.nbytes)
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - _aligned(buffer.nbytes)
    live = peak = 0
    for moment in sorted(changes):
        live += changes[moment]
        peak = max(peak, live)
    return peak


def _lowest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    begin = 0
    for low, high in taken:
        if begin + size <= low:
            break
        begin = max(begin, high)
    return begin


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
