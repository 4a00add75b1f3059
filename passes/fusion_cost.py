"""The time model of fusion: what a kernel moves and computes, counted before any schedule is known.

A value inside a kernel is an expression, computed anew for every index at which it is read; only
what one element of one expression reads twice at the same index is shared. So joining a producer
saves its kernel and a trip of its result through the caches, and costs arithmetic and other reads
wherever its elements are read more than once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from planish.ir.graph import Constant, Node, Result, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.layout.cost import BYTES_PER_CYCLE, EFFICIENCY, LAUNCH

#: Bytes a cycle of a tensor larger than all caches; of others, as layouts have it.
_FAR_PER_CYCLE = BYTES_PER_CYCLE / 2
#: Cycles of a kernel on one thread besides its work: a call of code that left the cache, its loops.
_CALL = 512
#: The part of the time that may be left where a producer is computed in several kernels.
_WORTH_COPYING = 0.9
#: Part of the shorter of arithmetic and memory traffic that the other does not hide.
_EXPOSED = 0.3
#: Vectors or elements that a core loads in a cycle, and elements that it computes one by one.
_LOADS_PER_CYCLE = _SCALARS_PER_CYCLE = 2
#: Vector instructions of an element-wise op, where they are not its flops: those of the loops
#: emitted for float32 and AVX-512 but loads and stores, a division or root as eight, which it
#: blocks its unit for.
_INSTRUCTIONS = {
    "exp": 20,
    "log": 30,
    "log1p": 37,
    "sin": 75,
    "cos": 75,
    "tan": 84,
    "asin": 25,
    "acos": 29,
    "atan": 28,
    "sinh": 38,
    "cosh": 30,
    "tanh": 29,
    "asinh": 64,
    "acosh": 56,
    "atanh": 50,
    "sigmoid": 34,
    "silu": 35,
    "gelu": 58,
    "softplus": 54,
    "mish": 38,
    "erf": 29,
    "pow": 124,
    "sqrt": 8,
    "div": 8,
    "mod": 12,
    "reciprocal": 8,
}
#: How often an anchor reads each element of its rows; other reductions read once.
_PASSES_OVER_ROWS = {"softmax": 2, "log_softmax": 3, "layer_norm": 3, "rms_norm": 2}
#: Anchors that reduce rows, given by `axes` or `axis`.
ROW_ANCHORS = frozenset(
    (*_PASSES_OVER_ROWS, *(f"reduce_{kind}" for kind in ("sum", "mean", "max", "min", "prod")))
)


@dataclass(frozen=True, slots=True)
class Work:
    """Bytes read and written by kernels, their operations, and estimated cycles until all ended."""

    kernels: int = 0
    moved: int = 0
    flops: int = 0
    cycles: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.kernels + other.kernels,
            self.moved + other.moved,
            self.flops + other.flops,
            self.cycles + other.cycles,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same nodes as kernels in two ways: `apart`, and with a producer `joined`.

    `copies` is set if it would be joined to several kernels.
    """

    apart: Work
    joined: Work
    copies: bool = False

    @property
    def pays(self) -> bool:
        """True if joining saves time, by a kernel or bytes less.

        Where it only moves arithmetic into another kernel, the model knows too little of both. A
        producer in several kernels is code to compile and to tune in each, so it must save more.
        """
        apart, joined = self.apart, self.joined
        if joined.kernels >= apart.kernels and joined.moved >= apart.moved:
            return False
        share = _WORTH_COPYING if self.copies else 1
        return joined.cycles < share * apart.cycles

    def __str__(self) -> str:
        apart, joined = self.apart, self.joined
        copies = f", which should save {1 - _WORTH_COPYING:.0%}" if self.copies else ""
        return (
            f"apart {_bytes(apart.moved)} moved, joined {_bytes(joined.moved)} and "
            f"{_difference(joined.flops - apart.flops)} flops; "
            f"{apart.cycles:,.0f} cycles apart, {joined.cycles:,.0f} joined{copies}"
        )


@dataclass(slots=True, eq=False)
class Draft:
    """A kernel that grows from its root toward its inputs, and what it computes and reads so far.

    Nodes are added behind all of their users, with static types. `counts` holds how many elements
    of each are computed, `reads` how many elements of each value from outside are read: an element
    that is read at several indices counts as often. `flops` count repetitions too.
    """

    users: Mapping[Value, Sequence[tuple[Node | None, int]]]
    target: Target
    counts: dict[Node, int] = field(default_factory=dict)
    reads: dict[Value, int] = field(default_factory=dict)
    anchor: Node | None = None
    flops: int = 0
    _vectors: float = 0.0  # elements of work that vectors share
    _cycles: float = 0.0  # of work that they do not
    _itemsize: int = 1

    @property
    def root(self) -> Node:
        """The node whose outputs the kernel writes."""
        return next(iter(self.counts))

    def add(self, *nodes: Node) -> Draft:
        """Puts nodes into the kernel."""
        for node in nodes:
            if not is_pointwise(node):
                self.anchor = node
            if op_def(node.op).kind in (OpKind.EMITTED, OpKind.REGION):
                self.counts[node] = 0  # alone in its kernel: there is nothing to compare
                continue
            count = self._count(node)
            self.counts[node] = count
            for output in node.outputs:
                self.reads.pop(output, None)
                self._itemsize = max(self._itemsize, output.type.dtype.itemsize)
            for value in dict.fromkeys(node.inputs):
                if self._is_outside(value):
                    self.reads[value] = self.reads.get(value, 0) + _times_read(node, value, count)
            self._add_work(node, count)
        return self

    def extended(self, nodes: Iterable[Node]) -> Draft:
        """Another kernel, with more nodes."""
        other = replace(self, counts=self.counts.copy(), reads=self.reads.copy())
        return other.add(*nodes)

    def work(self) -> Work:
        """What the kernel moves and computes, and how long that takes."""
        sizes = [min(v.type.nbytes, n * v.type.dtype.itemsize) for v, n in self.reads.items()]
        sizes += [output.type.nbytes for output in self.root.outputs]
        memory = sum(size / _rate(size, self.target) for size in sizes)
        loads = sum(self.reads.values()) / _LOADS_PER_CYCLE
        arithmetic = self._cycles + (self._vectors + loads) / self._lanes()
        cycles = max(memory, arithmetic) + _EXPOSED * min(memory, arithmetic)
        shared = LAUNCH + cycles / min(self.target.cores, self._tasks())
        return Work(1, sum(sizes), self.flops, _CALL + min(cycles, shared))

    def _is_outside(self, value: Value) -> bool:
        if isinstance(value, Constant) and value.type.elements == 1:
            return False  # a number in the code
        return not isinstance(value, Result) or value.node not in self.counts

    def _count(self, node: Node) -> int:
        """Elements that are computed: readers of an element at one index share it.

        Element-wise ops have one index; where elements move, each reader has its own.
        """
        if not self.counts:
            return sum(output.type.elements for output in node.outputs)
        together = alone = 0
        for user, number in self.users[node.output]:
            if user is None or user not in self.counts:
                continue
            times = _times_read(user, user.inputs[number], self.counts[user])
            if op_def(user.op).kind is OpKind.ELEMENTWISE:
                together = max(together, times)
            else:
                alone += times
        return together + alone

    def _add_work(self, node: Node, count: int) -> None:
        """Movement is only another index, but for ops that choose between operands.

        Along the innermost axis they branch for each element.
        """
        inputs, outputs = [v.type for v in node.inputs], [v.type for v in node.outputs]
        elements = sum(output.elements for output in outputs)
        flops = op_def(node.op).flops(inputs, outputs, node.attrs) * count // max(1, elements)
        self.flops += flops
        if op_def(node.op).kind is OpKind.CONTRACTION:
            self._vectors += flops / (2 * self.target.fma_per_cycle * EFFICIENCY)
        elif _chooses_in_rows(node):
            self._cycles += count * max(2, len(node.inputs)) / _SCALARS_PER_CYCLE
        else:
            self._vectors += max(flops, count * _INSTRUCTIONS.get(node.op, 0))

    def _lanes(self) -> int:
        """Elements that an instruction a cycle computes: those of a vector.

        Rows shorter than two vectors are reduced one element at a time.
        """
        lanes = self.target.lanes(self._itemsize)
        if self.anchor is None or self.anchor.op not in ROW_ANCHORS:
            return lanes
        length, is_contiguous = _row(self.anchor)
        return _SCALARS_PER_CYCLE if is_contiguous and length < 2 * lanes else lanes

    def _tasks(self) -> int:
        """Into how many parts the kernel can be cut for several cores."""
        elements = max(1, sum(output.type.elements for output in self.root.outputs))
        if self.anchor is None or self.anchor.op not in ROW_ANCHORS:
            return -(-elements // self.target.lanes(4))
        if self.anchor.op in _PASSES_OVER_ROWS:
            return max(1, elements // max(1, _row(self.anchor)[0]))
        return elements


def compared(apart: Sequence[Draft], joined: Sequence[Draft]) -> Comparison:
    """Two ways to put the same nodes into kernels; in `joined` a node may be in several."""
    before, after = (sum((draft.work() for draft in way), Work()) for way in (apart, joined))
    nodes, copied = (sum(len(draft.counts) for draft in way) for way in (apart, joined))
    return Comparison(before, after, copied > nodes)


def is_pointwise(node: Node) -> bool:
    """True if each element of the result is computed from one place in each operand."""
    return op_def(node.op).kind in (OpKind.ELEMENTWISE, OpKind.MOVEMENT)


def _times_read(node: Node, value: Value, count: int) -> int:
    """Elements of an operand that `count` elements of a node read."""
    if node.op in ("concat", "pad", "pack"):
        return min(count, count * value.type.elements // max(1, node.output.type.elements))
    if node.op == "rotary_embedding" and value is node.inputs[0]:
        return 2 * count  # turns pairs
    if is_pointwise(node):
        return count // _same_in_a_row(node, value)
    if node.op == "pool":
        return count * math.prod(node.attrs["window"])
    return value.type.elements * _PASSES_OVER_ROWS.get(node.op, 1)


def _same_in_a_row(node: Node, value: Value) -> int:
    """How many neighbours on the innermost axis read one element, which the loop then keeps."""
    shape, row = value.type.shape, node.output.type.shape[-1:]
    if not row or shape[-1:] == row or op_def(node.op).kind is not OpKind.ELEMENTWISE:
        return 1
    return max(1, node.output.type.static_shape[-1])


def _chooses_in_rows(node: Node) -> bool:
    rank = node.outputs[0].type.rank
    if node.op == "pad":
        return bool(rank) and bool(node.attrs["before"][-1] or node.attrs["after"][-1])
    return node.op == "concat" and node.attrs["axis"] % rank == rank - 1


def _row(anchor: Node) -> tuple[int, bool]:
    """Elements that one result is reduced from, and whether they lie side by side."""
    shape = anchor.inputs[0].type.static_shape
    if "axes" in anchor.attrs:
        axes: tuple[int, ...] = anchor.attrs["axes"]
        return math.prod(shape[d] for d in axes), len(shape) - 1 in axes
    axis = anchor.attrs["axis"] % len(shape)
    if "softmax" in anchor.op:
        return shape[axis], axis == len(shape) - 1
    return math.prod(shape[axis:]), True


def _rate(size: int, target: Target) -> float:
    """Bytes a cycle of a tensor of that many bytes."""
    return _FAR_PER_CYCLE if size > max(target.l2, target.l3) else BYTES_PER_CYCLE


def _bytes(count: int) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1_000_000 else f"{count / 1e6:,.1f} MB"


def _difference(count: int) -> str:
    number = abs(count)
    spelled = f"{number / 1000:,.1f}k" if number >= 1000 else str(number)
    return f"{spelled} {'more' if count >= 0 else 'fewer'}"
