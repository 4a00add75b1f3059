"""Where a kernel's result goes: tiles that overlap, and the inside of a padded tensor.

TVM's tensor expressions write each element of a tensor once, at its own index. Both cases write
elsewhere, so the stores are moved when the schedule has been applied and only loops remain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm import tirx
from tvm_ffi.structural import structural_map

from planish.targets.expressions.view import Expr, Indices, Patches, Tiling


@dataclass(frozen=True, slots=True)
class Padding:
    """The result lies inside a tensor of `shape`, `before` in from its start; `fill` around it."""

    before: tuple[int, ...]
    inner: tuple[int, ...]
    shape: tuple[int, ...]
    fill: float | int | bool


@dataclass(frozen=True, slots=True)
class Placement:
    """How the last parameter of a function is really laid out.

    `by_rows`: cores share the rows of images, not their channels.
    """

    tiling: Tiling | Patches | None = None
    padding: Padding | None = None
    by_rows: bool = False

    @property
    def overlaps(self) -> bool:
        """True if parts of the result are computed, and stored, twice."""
        return self.tiling is not None and self.tiling.overlaps

    def apply(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """The function with its stores moved, and the border of a padded result filled."""
        if self.tiling is None and self.padding is None:
            return func
        computed = func.params[-1]
        shape = tuple(int(n) for n in computed.shape)
        if self.tiling is not None:
            shape = self.tiling.untiled(shape)
        if self.padding is not None:
            shape = self.padding.shape
        result = tirx.decl_buffer(shape, str(computed.dtype), computed.name)

        def place(store: tirx.BufferStore) -> tirx.Stmt:
            if not store.buffer.same_as(computed):
                return store
            indices = tuple(store.indices)
            placed = tirx.BufferStore(result, store.value, self._indices(indices))
            inside = None if self.tiling is None else self.tiling.inside(indices)
            return placed if inside is None else tirx.IfThenElse(inside, placed, None)

        body = structural_map(func.body, (tirx.BufferStore, place))
        if self.padding is not None:
            body = self._with_border(body, result)
        return tirx.PrimFunc([*func.params[:-1], result], body, func.ret_type, func.attrs)

    def _with_border(self, body: tirx.Stmt, result: Expr) -> tirx.Stmt:
        """The border is filled by the parallel loop, each iteration a part, or at the end.

        A launch of its own would cost more than most borders, and one core would write what others
        read.
        """
        assert self.padding is not None
        border = _Border(self.padding, result, self.by_rows)
        loops: list[tirx.For] = []

        def fill_too(loop: tirx.For) -> tirx.For:
            if loop.kind != tirx.ForKind.PARALLEL or loops:
                return loop
            loops.append(loop)
            both = tirx.SeqStmt([loop.body, border.part(loop.loop_var, int(loop.extent))])
            return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, both)

        body = structural_map(body, (tirx.For, fill_too))
        if loops:
            return body
        return tirx.SeqStmt([body, border.part(tirx.const(0, "int32"), 1)])

    def _indices(self, idx: Indices) -> Indices:
        if self.tiling is not None:
            idx = self.tiling.whole(idx)
        if self.padding is not None:
            if len(idx) < len(self.padding.inner):  # computed with H and W as one axis
                width = self.padding.inner[3]
                pixel = (tirx.floordiv(idx[2], width), tirx.floormod(idx[2], width))
                idx = (*idx[:2], *pixel, *idx[3:])
            idx = tuple(i + b if b else i for i, b in zip(idx, self.padding.before))
        return idx


@dataclass(frozen=True, slots=True)
class _Border:
    """All of a padded tensor but its inside, as rows along the last dimension that is padded.

    `by_rows`: counted with dimension 2 slowest, as cores share the rows of an image.
    """

    padding: Padding
    result: Expr
    by_rows: bool

    def part(self, number: Expr, count: int) -> tirx.Stmt:
        """Stores the fill to one of `count` parts."""
        last = self._last()
        extents = self.padding.shape[:last]
        order = list(range(last))
        if self.by_rows and last > 2:
            order = [2, *order[:2], *order[3:]]
        rows = math.prod(extents)
        each = -(-rows // count)
        step = tirx.Var("row", "int32")
        row: Expr = number * each + step
        rest, index = row, dict[int, Expr]()
        for d in reversed(order):
            index[d] = tirx.floormod(rest, extents[d])
            rest = tirx.floordiv(rest, extents[d])
        body = self._row(tuple(index[d] for d in range(last)))
        if each * count > rows:
            body = tirx.IfThenElse(row < rows, body, None)
        return tirx.For(step, tirx.const(0, "int32"), _int(each), tirx.ForKind.SERIAL, body)

    def _last(self) -> int:
        """The last dimension that is padded."""
        p = self.padding
        sizes = enumerate(zip(p.inner, p.shape))
        return max((d for d, (inner, whole) in sizes if inner != whole), default=0)

    def _row(self, index: Indices) -> tirx.Stmt:
        """Fills what of a row is border: all of one before or after the inside."""
        p, last = self.padding, self._last()
        begin, end, whole = p.before[last], p.before[last] + p.inner[last], p.shape[last]
        sides = [self._fill(index, a, b) for a, b in ((0, begin), (end, whole)) if a < b]
        body = tirx.SeqStmt(sides) if len(sides) > 1 else sides[0]
        outside: list[Expr] = []
        for i, before, inner, size in zip(index, p.before, p.inner, p.shape):
            if before:
                outside.append(i < before)
            if before + inner < size:
                outside.append(i >= before + inner)
        if not outside:
            return body
        condition = tirx.any(*outside) if len(outside) > 1 else outside[0]
        return tirx.IfThenElse(condition, self._fill(index, 0, whole), body)

    def _fill(self, index: Indices, begin: int, end: int) -> tirx.Stmt:
        """Loops that store the fill over begin ≤ i < end of the last padded dimension."""
        inner = self.padding.shape[self._last() + 1 :]
        extents = (end - begin, *inner)
        names = [tirx.Var(f"p{d}", "int32") for d in range(len(extents))]
        at = [*index, names[0] + begin if begin else names[0], *names[1:]]
        fill = tirx.const(self.padding.fill, str(self.result.dtype))
        body: tirx.Stmt = tirx.BufferStore(self.result, fill, at)
        for name, extent in zip(reversed(names), reversed(extents)):
            body = tirx.For(name, _int(0), _int(extent), tirx.ForKind.SERIAL, body)
        return body


def _int(value: int) -> Expr:
    return tirx.const(value, "int32")
