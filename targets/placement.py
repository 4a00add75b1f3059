"""Where a kernel's result goes: tiles that overlap, and the inside of a padded tensor.

TVM's tensor expressions write each element of a tensor once, at its own index. Both cases write
elsewhere, so the stores are moved when the schedule has been applied and only loops remain.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """How the last parameter of a function is really laid out."""

    tiling: Tiling | Patches | None = None
    padding: Padding | None = None
    parallel: bool = False

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

        def place(store: tirx.BufferStore) -> tirx.BufferStore:
            if not store.buffer.same_as(computed):
                return store
            return tirx.BufferStore(result, store.value, self._indices(tuple(store.indices)))

        body = structural_map(func.body, (tirx.BufferStore, place))
        if self.padding is not None:
            borders = [self._fill(result, region) for region in _borders(self.padding)]
            body = tirx.SeqStmt([body, *borders])
        return tirx.PrimFunc([*func.params[:-1], result], body, func.ret_type, func.attrs)

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

    def _fill(self, result: Expr, region: tuple[tuple[int, int], ...]) -> tirx.Stmt:
        """Loops that store the fill over begin ≤ index < end of each dimension."""
        assert self.padding is not None
        names = [tirx.Var(f"p{d}", "int32") for d in range(len(region))]
        indices = [name + begin if begin else name for name, (begin, _) in zip(names, region)]
        fill = tirx.const(self.padding.fill, str(result.dtype))
        body: tirx.Stmt = tirx.BufferStore(result, fill, indices)
        zero = tirx.const(0, "int32")
        outermost = next((d for d, (b, e) in enumerate(region) if e - b > 1), None)
        for d in reversed(range(len(region))):
            begin, end = region[d]
            parallel = self.parallel and d == outermost and d < len(region) - 1
            kind = tirx.ForKind.PARALLEL if parallel else tirx.ForKind.SERIAL
            extent = tirx.const(end - begin, "int32")
            body = tirx.For(names[d], zero, extent, kind, body)
        return body


def _borders(padding: Padding) -> Iterator[tuple[tuple[int, int], ...]]:
    """Boxes that together are all of the tensor but its inside."""
    pairs = list(zip(padding.before, padding.inner, padding.shape))
    for d, (before, inner, total) in enumerate(pairs):
        inside = tuple((b, b + n) for b, n, _ in pairs[:d])
        whole = tuple((0, t) for _, _, t in pairs[d + 1 :])
        if before:
            yield (*inside, (0, before), *whole)
        if before + inner < total:
            yield (*inside, (before + inner, total), *whole)
