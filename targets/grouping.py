"""Launch groups: independent kernels of one thread each, run side by side by one launch.

A kernel whose schedule has one thread leaves the others idle. Where several are ready at once, and
each is worth more than the launch, they become the lanes of a group, balanced by cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planish.ir.cost import node_cost
from planish.ir.graph import Graph, Node, Result
from planish.ir.target import Target
from planish.passes.views import VIEWS, Places, places_of
from planish.targets.memory import alive_at_each_step, one_by_one

#: False turns groups off.
ENABLED = True

#: What a launch costs: what two threads need to meet twice, in nanoseconds.
LAUNCH = 3000
#: What one thread does in a nanosecond in a kernel too small to be parallel; only the order of
#: magnitude matters, which is the same on all CPUs that are compiled for.
FLOPS = 32
BYTES = 16

#: Kernels that are looked at for a group after its first one.
WINDOW = 64
#: Kernels of one group.
MEMBERS = 16

#: Emitters that have no parallel form, whatever is chosen.
SERIAL_EMITTERS = frozenset(("lstm", "gru", "rnn"))

Lanes = tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """Kernels that run side by side: those of one lane one after the other."""

    lanes: Lanes

    @property
    def kernels(self) -> tuple[Node, ...]:
        """All kernels, lane after lane."""
        return tuple(kernel for lane in self.lanes for kernel in lane)


def alone(steps: Iterable[Sequence[Node]]) -> list[Launch]:
    """A launch for each kernel."""
    return [Launch(((kernel,),)) for step in steps for kernel in step]


def launches(graph: Graph, target: Target) -> list[Launch]:
    """The kernels of a graph in an order to run them in, some of them in groups.

    A kernel is moved to the front, into a group, if what it needs is there by then, and if no more
    bytes are alive at once than without groups.
    """
    steps = one_by_one(graph)
    if not ENABLED or target.cores < 2:
        return alone(steps)
    kernels = [kernel for step in steps for kernel in step]
    return _Grouping(kernels, places_of(graph), target.cores).assign()


def nanoseconds(kernel: Node) -> float:
    """A rough estimate of one thread's time."""
    cost = node_cost(kernel)
    return max(cost.flops / FLOPS, cost.bytes / BYTES)


def is_serial(kernel: Node) -> bool:
    """True if the schedule of a kernel has one thread."""
    schedule = kernel.attrs["schedule"]
    if schedule.emitter in SERIAL_EMITTERS:
        return True
    parallel = any(step.name == "parallel" for step in schedule.directives)
    return not parallel and ("parallel", True) not in schedule.choices


class _Grouping:
    def __init__(self, kernels: Sequence[Node], views: Places, cores: int) -> None:
        self.kernels = kernels
        self.cores = cores
        numbers = {kernel: number for number, kernel in enumerate(kernels)}
        self.needs = [{numbers[n] for n in _producers(kernel)} for kernel in kernels]
        self.alive = alive_at_each_step([(kernel,) for kernel in kernels], views)
        self.most = max(self.alive, default=0)
        self.done: set[int] = set()

    def assign(self) -> list[Launch]:
        found: list[Launch] = []
        for number, kernel in enumerate(self.kernels):
            if number in self.done:
                continue
            members = self._members(number) if self._may_join(number) else [number]
            lanes = balanced([self.kernels[m] for m in members], self.cores)
            if len(members) > 1 and saved(lanes) > LAUNCH:
                self._move(members)
                found.append(Launch(lanes))
                self.done.update(members)
            else:
                found.append(Launch(((kernel,),)))
                self.done.add(number)
        return found

    def _may_join(self, number: int) -> bool:
        kernel = self.kernels[number]
        if kernel.op != "kernel" or not _writes(kernel):
            return False
        return is_serial(kernel) and nanoseconds(kernel) > LAUNCH

    def _members(self, first: int) -> list[int]:
        """`first` and the kernels after it that may run beside it."""
        members, added = [first], 0
        for number in range(first + 1, min(first + WINDOW, len(self.kernels))):
            if len(members) == MEMBERS:
                break
            if number in self.done or not self.needs[number] <= self.done:
                continue
            nbytes = _result_bytes(self.kernels[number])
            # Results of members moved before are alive up to where they were; `added` is enough.
            fits = max(self.alive[first:number]) + added + nbytes <= self.most
            if fits and self._may_join(number):
                members.append(number)
                added += nbytes
        return members

    def _move(self, members: Sequence[int]) -> None:
        """Results are alive from the first member on, no longer from their own place."""
        for number in members[1:]:
            for step in range(members[0], number):
                self.alive[step] += _result_bytes(self.kernels[number])


def balanced(kernels: Iterable[Node], lanes: int) -> Lanes:
    """At most so many lanes of about the same time: the longest kernel goes to the emptiest."""
    order = sorted(kernels, key=nanoseconds, reverse=True)
    filled: list[list[Node]] = [[] for _ in range(min(lanes, len(order)))]
    times = [0.0] * len(filled)
    for kernel in order:
        lane = times.index(min(times))
        filled[lane].append(kernel)
        times[lane] += nanoseconds(kernel)
    return tuple(map(tuple, filled))


def saved(lanes: Lanes) -> float:
    """Nanoseconds that are less than if one thread ran all lanes, without the launch."""
    times = [sum(map(nanoseconds, lane)) for lane in lanes]
    return sum(times) - max(times)


def _producers(kernel: Node) -> set[Node]:
    """The kernels whose results a kernel reads, through views."""
    found: set[Node] = set()
    stack = [kernel]
    while stack:
        for value in stack.pop().inputs:
            if isinstance(value, Result) and value.node not in found:
                found.add(value.node)
                if value.node.op in VIEWS:
                    stack.append(value.node)
    return {node for node in found if node.op not in VIEWS}


def _writes(kernel: Node) -> bool:
    return any(value.type.elements for value in kernel.outputs)


def _result_bytes(kernel: Node) -> int:
    return sum(value.type.nbytes for value in kernel.outputs)
