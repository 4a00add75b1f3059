"""Places every stored value: arena offsets reused by liveness, and constants in weights.bin."""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planish.ir.errors import TargetError
from planish.ir.graph import Constant, Graph, Node, Value
from planish.ir.literals import data_digest
from planish.passes.views import VIEWS, Places, places_of
from planish.targets.in_place import Step, choose_in_place, storage_of
from planish.targets.plan import ALIGNMENT, Arg


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory from step `first`, where `value` is written to it, until step `last`."""

    value: Value
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where each storage value lies; `lower_bound` is the largest sum of live bytes.

    `in_place` has the kernels whose result takes the memory of an input, with its number. `steps`
    is the order of the kernels, those of one step at the same time.
    """

    places: dict[Value, Arg]
    views: Places
    arena_bytes: int
    lower_bound: int
    weights: tuple[tuple[int, np.ndarray], ...]
    weights_bytes: int
    in_place: dict[Node, int]
    steps: Sequence[Step]

    def place(self, value: Value) -> Arg:
        """The place of a value, through views."""
        found = self.views.of(value)
        arg = self.places[found.owner]
        if not found.offset:
            return arg
        if arg.space not in ("arena", "weights"):
            raise TargetError(f"'{value.name}' is a part of the model's {arg.space}, not of memory")
        return Arg(arg.space, arg.offset_or_index + found.offset)


@dataclass(frozen=True, slots=True)
class _Arena:
    places: dict[Value, Arg]
    nbytes: int
    lower_bound: int
    in_place: dict[Node, int]


def plan_memory(graph: Graph, steps: Sequence[Step] | None = None) -> MemoryPlan:
    """Places for the values of a graph of kernels.

    Model inputs and outputs are the caller's buffers; the arena holds what lies between. `steps`
    (each kernel once) is the order wanted: it is taken unless the graph's own needs less memory.
    """
    places: dict[Value, Arg] = {v: Arg("input", i) for i, v in enumerate(graph.inputs)}
    views = places_of(graph)
    for index, value in enumerate(graph.outputs):
        places[views.of(value).owner] = Arg("output", index)
    weights, total = _place_weights(graph, places)
    taken = one_by_one(graph)
    arena = _plan_arena(views, taken, places)
    if steps is not None:
        wanted = _plan_arena(views, steps, places)
        if wanted.nbytes <= arena.nbytes:
            arena, taken = wanted, steps
    places.update(arena.places)
    return MemoryPlan(
        places, views, arena.nbytes, arena.lower_bound, weights, total, arena.in_place, taken
    )


def one_by_one(graph: Graph) -> Sequence[Step]:
    """The kernels of a graph in its own order."""
    return [(node,) for node in graph.nodes if node.op not in VIEWS]


def _plan_arena(views: Places, steps: Sequence[Step], fixed: Mapping[Value, Arg]) -> _Arena:
    in_place = choose_in_place(steps, views, fixed)
    storage = storage_of(steps, views, in_place)
    buffers = [b for b in lifetimes(steps, views, storage) if b.value not in fixed]
    offsets = assign_offsets(buffers)
    places = {b.value: Arg("arena", offset) for b, offset in zip(buffers, offsets)}
    places.update((value, places[first]) for value, first in storage.items())
    end = max((o + _aligned(b.nbytes) for b, o in zip(buffers, offsets)), default=0)
    return _Arena(places, end, largest_live_set(buffers), in_place)


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


def lifetimes(steps: Sequence[Step], views: Places, storage: Mapping[Value, Value]) -> list[Buffer]:
    """The buffers that kernels write, with the steps between which each must stay.

    `storage` has the values that lie in the memory of another.
    """
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for number, step in enumerate(steps):
        for node in step:
            for value in (*node.inputs, *node.outputs):
                owner = views.of(value).owner
                last[storage.get(owner, owner)] = number
            for value in node.outputs:
                owner = views.of(value).owner
                first.setdefault(storage.get(owner, owner), number)
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
    """The step during which the most bytes are alive."""
    return max(_live_bytes(buffers), key=lambda entry: entry[1], default=(0, 0))[0]


def alive_at_each_step(steps: Sequence[Step], views: Places) -> list[int]:
    """Bytes of kernels' results that are alive, none in place of another."""
    alive, now = [], 0
    changes = dict(_live_bytes(lifetimes(steps, views, {})))
    for number in range(len(steps)):
        now = changes.get(number, now)
        alive.append(now)
    return alive


def _live_bytes(buffers: Iterable[Buffer]) -> Iterator[tuple[int, int]]:
    """(step, bytes alive) at each step where that changes."""
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
