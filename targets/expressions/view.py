"""Tensors as functions of their indices, so that fused ops become one expression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import te, tirx

from planish.ir.errors import ScheduleError

Expr = Any  # a tvm PrimExpr; TVM carries no types
Indices = tuple[Expr, ...]


def dtype_of(expr: Expr) -> str:
    """The element type of a scalar expression, as TVM spells it."""
    return str(expr.ty)


def with_names(args: Sequence[Expr], build: Callable[..., Expr]) -> Expr:
    """`build(*args)` with each compound argument bound to a variable, so that it may repeat them.

    An expression that itself binds variables must not occur twice in a tree.
    """
    bound: list[tuple[Expr, Expr]] = []
    named = []
    for arg in args:
        if dtype_of(arg) == "bool" or isinstance(arg, tirx.Var | tirx.IntImm | tirx.FloatImm):
            named.append(arg)  # no op repeats a condition
            continue
        var, value, use = binding("a", arg)
        bound.append((var, value))
        named.append(use)
    body = build(*named)
    for var, value in reversed(bound):
        body = let(var, value, body)
    return body


def with_bindings_outside(args: Sequence[Expr], build: Callable[..., Expr]) -> Expr:
    """`build(*args)`, which holds each argument once, with the arguments' bindings around it.

    So bindings are always outermost, and no rewriting of TVM's can copy one.
    """
    chain, bare = [], []
    for arg in args:
        while isinstance(arg, tirx.Let):
            chain.append((arg.var, arg.value))
            arg = arg.body
        bare.append(arg)
    body = build(*bare)
    for var, value in reversed(chain):
        body = tirx.Let(var, value, body)
    return body


def let(var: Expr, value: Expr, body: Expr) -> Expr:
    """`body` with `var` bound; bindings inside `value` come first, as a chain.

    Bindings nested in values take TVM's simplifier time exponential in their depth.
    """
    chain = []
    while isinstance(value, tirx.Let):
        chain.append((value.var, value.value))
        value = value.body
    body = tirx.Let(var, value, body)
    for inner, bound in reversed(chain):
        body = tirx.Let(inner, bound, body)
    return body


def once(value: Expr, build: Callable[[Expr], Expr]) -> Expr:
    """`build(value)` with the value bound first, even where it is a variable.

    For reducers: what TVM later puts in place of their variables must occur once.
    """
    var = tirx.Var("once", value.ty)
    return let(var, value, build(var))


def binding(name: str, value: Expr) -> tuple[Expr, Expr, Expr]:
    """A fresh variable, its value, and its use, in types that TVM treats as data.

    It cannot vectorise variables of type bool. Those of its types of indices it takes apart where
    it asks what a block reads: with each one that is read twice, that takes twice the time.
    """
    dtype = dtype_of(value)
    if dtype == "bool":
        var, zero = tirx.Var(name, "int8"), tirx.const(0, "int8")
        return var, tirx.Select(value, tirx.const(1, "int8"), zero), tirx.NE(var, zero)
    if dtype in ("int32", "int64"):
        var = tirx.Var(name, f"u{dtype}")
        return var, _same_bits(value, f"u{dtype}"), tirx.reinterpret(dtype, var)
    var = tirx.Var(name, value.ty)
    return var, value, var


def _same_bits(value: Expr, dtype: str) -> Expr:
    """The bits of the value as `dtype`, with its own bindings outermost."""
    return with_bindings_outside([value], lambda bare: tirx.reinterpret(dtype, bare))


@dataclass(frozen=True, slots=True)
class View:
    """A tensor that is not stored: `read(i, j, …)` gives the expression of one element."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[Indices], Expr]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)


def stored(tensor: te.Tensor) -> View:
    """The view of a tensor that lies in memory."""
    shape = tuple(int(n) for n in tensor.shape)
    return View(shape, str(tensor.dtype), lambda idx: tensor(*idx))


@dataclass(frozen=True, slots=True)
class _Bound:
    """A let-binding; `indices` are kept alive, as the key of the binding holds their ids."""

    var: Expr
    value: Expr
    use: Expr
    indices: Indices


@dataclass(slots=True)
class Bindings:
    """Let-bindings for elements that one expression reads more than once.

    TVM walks expressions as trees, so that a value with two readers would double the work at each
    step. Scopes nest: what is first read under a guard (padding) must be bound under that guard,
    or it would be loaded out of bounds.
    """

    _scopes: list[dict[tuple[int, ...], _Bound]] = field(default_factory=list)

    def scoped(self, build: Callable[[], Expr]) -> Expr:
        """`build()` with the bindings that it made wrapped around it."""
        self._scopes.append({})
        body = build()
        for bound in reversed(self._scopes.pop().values()):
            body = let(bound.var, bound.value, body)
        return body

    def shared(self, view: View, name: str) -> View:
        """A view whose elements are computed once for each scope and index tuple."""

        def read(idx: Indices) -> Expr:
            key = (id(view), *map(id, idx))
            for scope in reversed(self._scopes):
                if key in scope:
                    return scope[key].use
            var, value, use = binding(name, view.read(idx))
            self._scopes[-1][key] = _Bound(var, value, use, idx)
            return use

        return View(view.shape, view.dtype, read)


@dataclass(slots=True)
class Tiling:
    """One axis of `out` in tiles of a fixed size; a last tile that would hang over is moved back.

    The overlap is computed twice with equal results, which is cheaper than predicates: every tile
    is whole, and every index is inside. `out` and `acc` have two axes (tile, within) in place of
    `axis`; `here` are their indices while the expression of `out` is built.
    """

    axis: int
    extent: int
    size: int
    here: Indices = ()

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.extent:  # a tile moved back would begin before the tensor
            raise ScheduleError(f"tiles of {self.size} do not fit an axis of {self.extent}")

    @property
    def count(self) -> int:
        """Number of tiles."""
        return -(-self.extent // self.size)

    @property
    def axes(self) -> slice:
        """Where the axes of tiles are among those of `out`."""
        return slice(self.axis, self.axis + 2)

    @property
    def overlaps(self) -> bool:
        """True if a tile is moved back over the one before."""
        return self.extent % self.size != 0

    def tiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """`shape` with the axis replaced by (tiles, size)."""
        return (*shape[: self.axis], self.count, self.size, *shape[self.axis + 1 :])

    def untiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inverse of `tiled`."""
        return (*shape[: self.axis], self.extent, *shape[self.axis + 2 :])

    def whole(self, idx: Indices) -> Indices:
        """Indices without tiles: (tile, within) joined into the place on the axis."""
        start = idx[self.axis] * self.size
        if self.overlaps:
            start = tirx.min(start, self.extent - self.size)
        return (*idx[: self.axis], start + idx[self.axis + 1], *idx[self.axis + 2 :])

    def inside(self, idx: Indices) -> Expr | None:
        """None: every index is inside."""
        return None


@dataclass(slots=True)
class Patches:
    """An image of `out`[N, C, H, W, c] in patches of 2x2 pixels, and those in tiles of `size`.

    Patches are counted along rows, and a last tile is moved back as those of `Tiling`. A last patch
    of an odd row or column hangs over: what two patches make of one pixel differs by its rounding,
    so it is stored once. `out` has the axes (tile, patch, row, column) in place of H and W.
    """

    height: int
    width: int
    size: int
    here: Indices = ()
    _line: Tiling = field(init=False)

    def __post_init__(self) -> None:
        self._line = Tiling(2, -(-self.height // 2) * -(-self.width // 2), self.size)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self._line.count

    @property
    def axes(self) -> slice:
        """Where the axes of tiles are among those of `out`."""
        return slice(2, 6)

    @property
    def overlaps(self) -> bool:
        """True if a tile is moved back over the one before."""
        return self._line.overlaps

    def tiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """`shape` with the image replaced by (tiles, size, 2, 2)."""
        return (*shape[:2], self.count, self.size, 2, 2, *shape[4:])

    def untiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The inverse of `tiled`."""
        return (*shape[:2], self.height, self.width, *shape[6:])

    def corner(self, tile: Expr, patch: Expr) -> tuple[Expr, Expr]:
        """Row and column of the first pixel of a patch."""
        columns = -(-self.width // 2)
        number = self._line.whole((0, 0, tile, patch))[2]
        return tirx.floordiv(number, columns) * 2, tirx.floormod(number, columns) * 2

    def whole(self, idx: Indices) -> Indices:
        """Indices without tiles: (tile, patch, row, column) joined into the pixel.

        For a pixel that hangs over an odd edge, those of one inside.
        """
        row, column = self._pixel(idx)
        if self.height % 2:
            row = tirx.min(row, self.height - 1)
        if self.width % 2:
            column = tirx.min(column, self.width - 1)
        return (*idx[:2], row, column, *idx[6:])

    def inside(self, idx: Indices) -> Expr | None:
        """Whether the pixel does not hang over an odd edge; None if none does."""
        row, column = self._pixel(idx)
        within = [row < self.height] if self.height % 2 else []
        within += [column < self.width] if self.width % 2 else []
        return tirx.all(*within) if within else None

    def _pixel(self, idx: Indices) -> tuple[Expr, Expr]:
        row, column = self.corner(idx[2], idx[3])
        return row + idx[4], column + idx[5]


@dataclass(slots=True)
class Stages:
    """The stored tensors of a kernel under construction, by stage name, with their axis names.

    `tiling` is set by an anchor whose `acc`, and so `out`, is in tiles.
    """

    tiling: Tiling | Patches | None = None
    bindings: Bindings = field(default_factory=Bindings)
    tensors: dict[str, te.Tensor] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reduced: dict[str, frozenset[str]] = field(default_factory=dict)

    def compute(
        self,
        name: str,
        shape: Sequence[int],
        element: Callable[[Indices], Expr],
        axes: Sequence[str] = (),
    ) -> View:
        """Store `element` over `shape` as the stage `name`; `axes` name the loops."""
        names = tuple(axes) or tuple(f"d{i}" for i in range(len(shape)))
        # A rank-0 result is computed as one element: TVM has no loops to schedule otherwise.
        loops = tuple(shape) or (1,)
        names = names or ("d0",)

        def body(*idx: Expr) -> Expr:
            inner = idx if len(shape) else ()
            return self.bindings.scoped(lambda: element(inner))

        tensor = te.compute(loops, body, name=name)
        return self.store(name, tensor, tuple(shape), names)

    def reduce(
        self,
        name: str,
        shape: Sequence[int],
        over: Sequence[tuple[str, int]],
        element: Callable[[Indices, Indices], Expr],
        combine: Callable[..., Expr],
        axes: Sequence[str] = (),
    ) -> View:
        """Store the reduction of `element(idx, ridx)` over the named loops `over`."""
        names = tuple(axes) or tuple(f"d{i}" for i in range(len(shape)))
        loops = tuple(shape) or (1,)
        names = names or ("d0",)
        # A loop of extent one stays, so that schedules find it by name.
        reduced = [te.reduce_axis((0, extent), name=axis) for axis, extent in over]

        def body(*idx: Expr) -> Expr:
            inner = idx if len(shape) else ()
            source = self.bindings.scoped(
                lambda: element(inner, tuple(axis.var for axis in reduced))
            )
            return combine(source, axis=reduced)

        tensor = te.compute(loops, body, name=name)
        return self.store(name, tensor, tuple(shape), names, tuple(axis for axis, _ in over))

    def store(
        self,
        name: str,
        tensor: te.Tensor,
        shape: tuple[int, ...],
        axes: tuple[str, ...],
        reduced: tuple[str, ...] = (),
    ) -> View:
        """Enter `tensor` as the stage `name` with loops `axes` then `reduced`."""
        self.tensors[name] = tensor
        self.axes[name] = (*axes, *reduced)
        self.reduced[name] = frozenset(reduced)
        if not shape:
            return View((), str(tensor.dtype), lambda idx: tensor(0))
        return stored(tensor)
