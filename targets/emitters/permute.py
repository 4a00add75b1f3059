"""Transposed layouts through registers: square tiles, read in vectors one way, written the other.

A tile of n rows is transposed in log₂ n steps, each of which exchanges blocks between pairs of
rows: n·log₂ n shuffles of two vectors for n² elements, where element by element it were n² loads
and n² stores. Rows of tiles fill cache lines of both tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.passes.local.permutation import Digit, permutation, turned
from planish.targets.emitters.function import Buffer, choice, tasks
from planish.targets.expressions.view import Expr

#: Bytes that are read of a row before the next: two cache lines, as processors fetch them in pairs.
_READ_BYTES = 128
#: Tiles that follow each other in the result, and are one task.
_BAND = 16


def permute(kernel: Node) -> tirx.PrimFunc:
    """Parallel over the outer digits, lines of the digit that the source has innermost, and bands
    of the one that the result has.

    ScheduleError if the kernel does not only permute, or tiles do not fit.
    """
    (body,) = kernel.regions
    digits, size = permutation(body), int(choice(kernel, "tile"))
    column = turned(digits) if digits else None
    if not digits or column is None or size > min(column.extent, digits[-1].extent):
        raise ScheduleError(f"{kernel.where()}: tiles of {size} do not fit an axis of the result")
    row = digits[-1]
    outer = [digit for digit in digits if digit not in (row, column)]
    value = kernel.output.type
    wide = max(1, _READ_BYTES // (size * value.dtype.itemsize))
    across = size * min(wide, column.extent // size)
    along_row = -(-row.extent // size)
    band = min(along_row, _BAND)
    parts = (
        math.prod(digit.extent for digit in outer),
        -(-column.extent // across),
        -(-along_row // band),
    )
    order = _order(kernel)
    shape, dtype = (value.elements,), value.dtype.value
    with IRBuilder() as ib:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            x, y = (T.arg(f"p{i}", T.Buffer(shape, dtype)) for i in range(2))
            with tasks(kernel, math.prod(parts)) as task:
                place, line, part = _numbers(task, parts, order)
                read, written = _places(outer, place)
                at = _moved_back(line, across, column.extent)
                read, written = read + at, written + at * column.written
                with T.serial(0, band) as tile:
                    along = tirx.min((part * band + tile) * size, row.extent - size)
                    for aside in range(0, across, size):
                        source = read + along * row.read + aside
                        result = written + along + aside * column.written
                        _tile(x, y, size, (source, row.read), (result, column.written))
        return ib.get()


def _order(kernel: Node) -> tuple[int, int, int]:
    """Which of (place, line, band) tasks count slowest, and so on.

    Cores that share rows of an image, which the result has innermost unless it is in blocks, take
    pixels of all channels.
    """
    if choice(kernel, "share") != "rows":
        return (0, 1, 2)
    return (2, 1, 0) if kernel.output.type.rank == 4 else (1, 2, 0)


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
    """Where a tile begins: the last one overlaps the one before, if it would hang over."""
    begin = index * size
    return tirx.min(begin, extent - size) if extent % size else begin


def _tile(
    x: Buffer, y: Buffer, size: int, source: tuple[Expr, int], result: tuple[Expr, int]
) -> None:
    """One tile: `source` and `result` are its first element and the distance of its rows."""
    rows = T.alloc_buffer((size * size,), str(x.dtype))

    def row(i: int) -> Expr:
        return tirx.BufferLoad(rows, [tirx.Ramp(i * size, 1, size)])

    for i in range(size):
        at = tirx.Ramp(source[0] + i * source[1], 1, size)
        T.buffer_store(rows, tirx.BufferLoad(x, [at]), [tirx.Ramp(i * size, 1, size)])
    distance = 1
    while distance < size:
        exchanged = T.alloc_buffer((size * size,), str(x.dtype))
        for i in range(size):
            pair = [row(i & ~distance), row(i | distance)]
            lanes = [_source_lane(lane, distance, bool(i & distance), size) for lane in range(size)]
            value = tirx.Shuffle(pair, [tirx.const(lane, "int32") for lane in lanes])
            T.buffer_store(exchanged, value, [tirx.Ramp(i * size, 1, size)])
        rows, distance = exchanged, 2 * distance
    for i in range(size):
        at = tirx.Ramp(result[0] + i * result[1], 1, size)
        T.buffer_store(y, row(i), [at])


def _source_lane(lane: int, distance: int, second: bool, size: int) -> int:
    """Which lane of two rows `distance` apart, one after the other, an exchanged row has there."""
    if second:
        return size + lane if lane & distance else lane | distance
    return size + (lane & ~distance) if lane & distance else lane
