"""Transposed layouts through registers: square tiles, read in vectors one way, written the other.

A tile of n rows is read in pieces of 16 bytes, p elements, of which n / p from as many rows make a
vector: that takes a load each, where moving lanes of 16 bytes between registers takes shuffles.
What is left are transposes of p rows within the lanes, in log₂ p steps, each of which interleaves
pairs of rows: n·log₂ p shuffles for n² elements. Tiles in a square fill cache lines of both
tensors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.target import CACHE_LINE
from planish.passes.local.permutation import Digit, permutation, turned
from planish.targets.emitters.function import Buffer, choice, tasks
from planish.targets.expressions.view import Expr

#: Bytes that every processor of interest interleaves in one instruction, and loads as one piece.
_PIECE_BYTES = 16
#: Tiles along a side of a square: more are interleaved by LLVM until registers run out.
_MOST_TILES = 2
#: Squares that follow each other, and are one task.
_RUN = 16


@dataclass(frozen=True, slots=True)
class _Turn:
    """What is turned: the digits that the source and the result have innermost, in square tiles.

    `size` elements are a tile's side; squares are `across` columns and `down` rows. With
    `reads_on`, squares that follow each other in the source are a task, else in the result.
    """

    column: Digit
    row: Digit
    outer: tuple[Digit, ...]
    size: int
    itemsize: int
    reads_on: bool

    @property
    def across(self) -> int:
        return _side(self.column.extent, self.size, self.itemsize)

    @property
    def down(self) -> int:
        return _side(self.row.extent, self.size, self.itemsize)

    @property
    def squares(self) -> tuple[int, int]:
        """Squares in a line of columns, and lines of them."""
        return -(-self.column.extent // self.across), -(-self.row.extent // self.down)

    @property
    def run(self) -> int:
        """How many squares a task takes, so that the fewest are computed twice at the end."""
        count = self.squares[0 if self.reads_on else 1]
        return min(range(min(count, _RUN), 0, -1), key=lambda run: -count % run)

    @property
    def parts(self) -> tuple[int, int, int]:
        """The numbers of places of the outer digits, of runs of columns, and of runs of rows."""
        columns, rows = self.squares
        places = math.prod(digit.extent for digit in self.outer)
        if self.reads_on:
            return places, -(-columns // self.run), rows
        return places, columns, -(-rows // self.run)


def permute(kernel: Node) -> tirx.PrimFunc:
    """Parallel over the outer digits and over runs of squares.

    ScheduleError if the kernel does not only permute, or tiles do not fit.
    """
    turn = _turn(kernel)
    shape, dtype = (kernel.output.type.elements,), kernel.output.type.dtype.value
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            x, y = (T.arg(f"p{i}", T.Buffer(shape, dtype)) for i in range(2))
            with tasks(kernel, math.prod(turn.parts)) as task:
                place, column, row = _numbers(task, turn.parts, _order(kernel))
                read, written = _places(turn.outer, place)
                with T.serial(0, turn.run) as step:
                    if turn.reads_on:
                        column = column * turn.run + step
                    else:
                        row = row * turn.run + step
                    aside = _moved_back(column, turn.across, turn.column.extent)
                    along = _moved_back(row, turn.down, turn.row.extent)
                    source = read + along * turn.row.read + aside
                    _square(x, y, turn, source, written + along + aside * turn.column.written)
        return ib.get()


def _turn(kernel: Node) -> _Turn:
    digits, size = permutation(kernel.regions[0]), int(choice(kernel, "tile"))
    column = turned(digits) if digits else None
    if not digits or column is None or size > min(column.extent, digits[-1].extent):
        raise ScheduleError(f"{kernel.where()}: tiles of {size} do not fit an axis of the result")
    row = digits[-1]
    outer = tuple(digit for digit in digits if digit not in (row, column))
    itemsize = kernel.output.type.dtype.itemsize
    return _Turn(column, row, outer, size, itemsize, choice(kernel, "order") == "read")


def _side(extent: int, size: int, itemsize: int) -> int:
    """The side of squares along so many elements: whole tiles.

    They fill a cache line where that takes few tiles, and what hangs over at the end
    is little.
    """
    fill = min(max(1, CACHE_LINE // (size * itemsize)), _MOST_TILES, extent // size)
    sides = [size * count for count in range(fill, 0, -1)]
    return next((side for side in sides if -extent % side <= extent // 8), size)


def _order(kernel: Node) -> tuple[int, int, int]:
    """Which of (place, line, band) tasks count slowest, and so on.

    Cores that share rows of an image, which the result has innermost unless it is in blocks, take
    pixels of all channels.
    """
    reads_on = choice(kernel, "order") == "read"
    if choice(kernel, "share") == "rows":
        pixels, others = (2, 1) if kernel.output.type.rank == 4 else (1, 2)
        return (pixels, 0, others) if reads_on else (pixels, others, 0)
    return (0, 2, 1) if reads_on else (0, 1, 2)


def _numbers(task: Expr, parts: Sequence[int], order: Sequence[int]) -> list[Expr]:
    """The number of each part that a task is, the parts counted in that order."""
    numbers: list[Expr] = [tirx.const(0, "int32")] * len(parts)
    for which in reversed(order):
        numbers[which] = tirx.floormod(task, parts[which])
        task = tirx.floordiv(task, parts[which])
    return numbers


def _places(outer: Sequence[Digit], index: Expr) -> tuple[Expr, Expr]:
    """Where an iteration of the outer digits begins in the source and in the result."""
    read: Expr = tirx.const(0, "int32")
    written: Expr = tirx.const(0, "int32")
    for digit in reversed(outer):
        step = tirx.floormod(index, digit.extent)
        index = tirx.floordiv(index, digit.extent)
        read, written = read + step * digit.read, written + step * digit.written
    return read, written


def _moved_back(index: Expr, size: int, extent: int) -> Expr:
    """Where a square begins: the last ones overlap those before, if they would hang over."""
    return tirx.min(index * size, extent - size)


def _square(x: Buffer, y: Buffer, turn: _Turn, source: Expr, result: Expr) -> None:
    """A square, whose first element lies at `source` and at `result`."""
    starts = (range(0, side, turn.size) for side in (turn.across, turn.down))
    for i, j in itertools.product(*starts):
        _tile(x, y, turn, source + j * turn.row.read + i, result + j + i * turn.column.written)


def _tile(x: Buffer, y: Buffer, turn: _Turn, source: Expr, result: Expr) -> None:
    """A tile, whose first element lies at `source` and at `result`."""
    size, stride = turn.size, turn.row.read
    piece = min(size, _PIECE_BYTES // turn.itemsize)
    groups = range(size // piece)
    rows = T.alloc_buffer((size * size,), str(x.dtype))
    for j in range(piece):  # of the rows j, j + piece, …, the pieces beside each other
        for c in groups:
            starts = [source + (j + k * piece) * stride + c * piece for k in groups]
            pieces = [tirx.BufferLoad(x, [tirx.Ramp(start, 1, piece)]) for start in starts]
            T.buffer_store(rows, _joined(pieces, range(size)), [_vector(c * piece + j, size)])
    for _ in range(int(math.log2(piece))):
        rows = _interleaved(rows, size, piece)
    for i in range(size):
        at = tirx.Ramp(result + i * turn.column.written, 1, size)
        T.buffer_store(y, tirx.BufferLoad(rows, [_vector(i, size)]), [at])


def _interleaved(rows: Buffer, size: int, piece: int) -> Buffer:
    """A step of the transposes in lanes of `piece`: rows half as far apart, element by element."""
    done, half = T.alloc_buffer((size * size,), str(rows.dtype)), piece // 2
    for first in range(0, size, piece):
        for j in range(half):
            pair = [first + j, first + j + half]
            vectors = [tirx.BufferLoad(rows, [_vector(i, size)]) for i in pair]
            for upper in (0, 1):
                lanes = [
                    which * size + lane + upper * half + t
                    for lane in range(0, size, piece)
                    for t in range(half)
                    for which in (0, 1)
                ]
                at = _vector(first + 2 * j + upper, size)
                T.buffer_store(done, _joined(vectors, lanes), [at])
    return done


def _joined(vectors: Sequence[Expr], lanes: Iterable[int]) -> Expr:
    """Lanes of vectors, counted through all of them."""
    if len(vectors) == 1:
        return vectors[0]
    return tirx.Shuffle(list(vectors), [tirx.const(lane, "int32") for lane in lanes])


def _vector(row: int, size: int) -> Expr:
    return tirx.Ramp(row * size, 1, size)
