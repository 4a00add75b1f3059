"""top_k: the k best of a row in a heap whose root is the worst of them, then the heap sorted.

O(n log k) whatever the order of the row, and most elements cost one comparison, with the root.
Elements are compared as integers that have the order of the elements; these are total, so that
NaN needs no care of its own: it is larger than all numbers, as in the sorting of numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from planish.ir.graph import Node
from planish.targets.emitters.function import Buffer, choice, function, rows_of, tasks
from planish.targets.expressions.view import Expr, once

#: Element type → type of its keys.
_KEY = dict.fromkeys(("float64", "int64", "uint64"), "int64")
_LEAST = {"int32": -(2**31), "int64": -(2**63)}


def top_k(kernel: Node) -> tirx.PrimFunc:
    """Parallel over rows."""
    (node,) = kernel.regions[0].nodes
    axis, k, largest = (node.attrs[name] for name in ("axis", "k", "largest"))
    outer, length, inner = rows_of(node.inputs[0], axis)
    # Strided elements are compared one by one.
    lanes = int(choice(kernel, "lanes")) if inner == 1 else 1

    def build(node: Node, x: Buffer, values: Buffer, indices: Buffer) -> None:
        with tasks(kernel, outer * inner) as row:
            o, i = tirx.floordiv(row, inner), tirx.floormod(row, inner)
            heap = _Heap.allocate(k, _KEY.get(node.inputs[0].type.dtype.value, "int32"))

            def key(t: Expr) -> Expr:
                return _key(x[o, t, i], largest)

            heap.fill(key)
            _scan(heap, key, length, lanes)
            heap.sort()
            with T.serial(0, k) as t:
                place = T.bind(heap.places[t])
                T.buffer_store(values, x[o, place, i], [o, t, i])
                T.buffer_store(indices, place.astype("int64"), [o, t, i])

    return function(kernel, build, [(outer, length, inner), *[(outer, k, inner)] * 2])


def _key(element: Expr, largest: bool) -> Expr:
    """An integer that is the greater the better the element."""
    dtype = str(element.ty)
    if "float" in dtype:
        bits = "int64" if dtype == "float64" else "int32"
        wide = element if dtype == "float64" else element.astype("float32")
        key = once(wide, lambda x: _float_key(x, bits))
    elif dtype in ("uint32", "uint64"):
        bits = dtype[1:]
        key = tirx.reinterpret(bits, element) ^ tirx.const(_LEAST[bits], bits)
    else:
        bits = _KEY.get(dtype, "int32")
        key = element.astype(bits)
    return key if largest else tirx.bitwise_not(key)


def _float_key(x: Expr, bits: str) -> Expr:
    """The bits of a float, but for negative ones flipped: their order is that of the floats."""
    most = tirx.const(-_LEAST[bits] - 1, bits)
    sign = tirx.const(63 if bits == "int64" else 31, bits)
    code = tirx.reinterpret(bits, x)
    ordered = once(code, lambda c: c ^ (tirx.shift_right(c, sign) & most))
    zero = tirx.const(0, bits)  # -0 is equal to +0
    number = tirx.Select(tirx.EQ(x, tirx.const(0, str(x.ty))), zero, ordered)
    return tirx.Select(tirx.isnan(x), most, number)


def _scan(heap: _Heap, key: Callable[[Expr], Expr], length: int, lanes: int) -> None:
    """Put the elements behind the first k into the heap where they are better than its worst.

    A later element that equals the worst is worse than that. With several lanes, the elements of a
    vector are looked at only if one of them is better.
    """

    def offer(t: Expr) -> None:
        candidate = T.bind(key(t))
        with T.If(candidate > heap.keys[0]), T.Then():
            heap.sift(candidate, t, 0, heap.size)

    whole = (length - heap.size) // lanes if lanes > 1 else 0
    with T.serial(0, whole) as block:
        first = T.bind(heap.size + block * lanes)
        worst = T.bind(heap.keys[0])
        better = T.alloc_buffer((1,), "int32")
        T.buffer_store(better, tirx.const(0, "int32"), [0])
        with T.serial(0, lanes) as v:
            T.buffer_store(better, better[0] + (key(first + v) > worst).astype("int32"), [0])
        with T.If(better[0] > 0), T.Then(), T.serial(0, lanes) as v:
            offer(first + v)
    with T.serial(heap.size + whole * lanes, length) as t:
        offer(t)


@dataclass(frozen=True, slots=True)
class _Heap:
    """The `size` best elements by key and place; none is better than those below it in the tree."""

    size: int
    keys: Buffer
    places: Buffer
    cursor: Buffer  # the hole, and the first of its children

    @staticmethod
    def allocate(size: int, dtype: str) -> _Heap:
        """A heap with room for `size` keys of `dtype`."""
        return _Heap(
            size,
            T.alloc_buffer((size,), dtype),
            T.alloc_buffer((size,), "int32"),
            T.alloc_buffer((2,), "int32"),
        )

    def fill(self, key: Callable[[Expr], Expr]) -> None:
        """Make a heap of the first elements."""
        with T.serial(0, self.size) as t:
            self._set(t, key(t), t)
        with T.serial(0, self.size // 2) as step:
            top = T.bind(self.size // 2 - 1 - step)
            self.sift(T.bind(self.keys[top]), T.bind(self.places[top]), top, self.size)

    def sort(self) -> None:
        """Order the elements, the best first: the worst of those left goes to their end."""
        with T.serial(0, self.size) as step:
            end = T.bind(self.size - 1 - step)
            key, place = T.bind(self.keys[end]), T.bind(self.places[end])
            self._set(end, self.keys[0], self.places[0])
            self.sift(key, place, 0, end)

    def sift(self, key: Expr, place: Expr, top: Expr, size: Expr) -> None:
        """Put an element into the hole at `top` and let it sink, in a heap of `size` elements."""
        hole, child = self.cursor[0], self.cursor[1]
        T.buffer_store(self.cursor, top, [0])
        T.buffer_store(self.cursor, top * 2 + 1, [1])
        with T.While(child < size):
            left = T.bind(child)
            right = T.bind(tirx.min(left + 1, size - 1))
            worse = self._is_worse(right, self.keys[left], self.places[left])
            below = T.bind(tirx.if_then_else(worse, right, left))
            with T.If(self._is_worse(below, key, place)):
                with T.Then():
                    self._set(hole, self.keys[below], self.places[below])
                    T.buffer_store(self.cursor, below, [0])
                    T.buffer_store(self.cursor, below * 2 + 1, [1])
                with T.Else():
                    T.buffer_store(self.cursor, size, [1])
        self._set(hole, key, place)

    def _set(self, at: Expr, key: Expr, place: Expr) -> None:
        T.buffer_store(self.keys, key, [at])
        T.buffer_store(self.places, place, [at])

    def _is_worse(self, at: Expr, key: Expr, place: Expr) -> Expr:
        """True if the element at `at` is worse than another one: by place if the keys are equal."""
        behind = tirx.And(tirx.EQ(self.keys[at], key), self.places[at] > place)
        return tirx.Or(self.keys[at] < key, behind)
