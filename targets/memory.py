"""Places every stored value: arena offsets reused by liveness, and constants in weights.bin."""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import TargetError
from planish.ir.graph import Constant, Graph, Result, Value
from planish.ir.literals import data_digest
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
    found: dict[tuple[str, int, str], Arg] = {}
    stored: list[tuple[int, np.ndarray]] = []
    end = 0
    for value in graph.values():
        if not isinstance(value, Constant):
            continue
        data = np.ascontiguousarray(value.data)
        key = (str(data.dtype), data.nbytes, data_digest(data))
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
    """Offsets such that buffers alive together do not overlap, in few bytes.

    Each buffer in turn goes into the lowest gap; what the order is decides how well they pack.
    Several orders are tried, then random changes of the best (seeded: the same plan every time),
    until the arena is the largest live set or the trials are spent.
    """
    bound = largest_live_set(buffers)
    best: list[int] = []
    least, kept = -1, list(range(len(buffers)))
    rng = random.Random(0)
    for order in _orders(buffers):
        offsets, end = _pack(buffers, order)
        if least < 0 or end < least:
            best, least, kept = offsets, end, order
    trials = min(300, 3_000_000 // max(1, len(buffers) ** 2))
    for _ in range(trials if least > bound else 0):
        order = list(kept)
        for _ in range(rng.randint(1, 3)):
            order.insert(rng.randrange(len(order)), order.pop(rng.randrange(len(order))))
        offsets, end = _pack(buffers, order)
        if end <= least:
            best, least, kept = offsets, end, order
        if least == bound:
            break
    return best


def _orders(buffers: Sequence[Buffer]) -> Iterator[list[int]]:
    """Orders that pack well: large first, long-lived first, those of the fullest moment first."""
    numbers = range(len(buffers))

    def size(i: int) -> int:
        return buffers[i].nbytes

    def duration(i: int) -> int:
        return buffers[i].last - buffers[i].first + 1

    yield sorted(numbers, key=lambda i: (-size(i), buffers[i].first))
    yield sorted(numbers, key=lambda i: (-size(i) * duration(i), buffers[i].first))
    yield sorted(numbers, key=lambda i: (-duration(i), -size(i)))
    peak = _fullest_moment(buffers)
    distances = [max(b.first - peak, peak - b.last, 0) for b in buffers]
    yield sorted(numbers, key=lambda i: (distances[i], -size(i)))
    yield sorted(numbers, key=lambda i: (distances[i], -duration(i), -size(i)))


def _pack(buffers: Sequence[Buffer], order: Sequence[int]) -> tuple[list[int], int]:
    """The offsets when buffers are placed in `order`, and the end of the arena."""
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int, int]] = []  # (begin, end, first, last), by begin
    top = 0
    for index in order:
        buffer = buffers[index]
        first, last = buffer.first, buffer.last
        taken = ((b, e) for b, e, f, until in placed if f <= last and first <= until)
        begin = _lowest_gap(taken, size := _aligned(buffer.nbytes))
        offsets[index] = begin
        insort(placed, (begin, begin + size, first, last))
        top = max(top, begin + size)
    return offsets, top


def largest_live_set(buffers: Iterable[Buffer]) -> int:
    """The most bytes alive at once: no plan can need less."""
    return max((live for _, live in _live_bytes(buffers)), default=0)


def _fullest_moment(buffers: Iterable[Buffer]) -> int:
    """The call during which the most bytes are alive."""
    return max(_live_bytes(buffers), key=lambda entry: entry[1], default=(0, 0))[0]


def _live_bytes(buffers: Iterable[Buffer]) -> Iterator[tuple[int, int]]:
    """(call, bytes alive) at each call where that changes."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + _aligned(buffer.nbytes)
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - _aligned(buffer.nbytes)
    live = 0
    for moment in sorted(changes):
        live += changes[moment]
        yield moment, live


def _lowest_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    begin = 0
    for low, high in taken:
        if begin + size <= low:
            break
        begin = max(begin, high)
    return begin


def _aligned(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT
