"""Loops over rows, once they are scheduled: what a core should load early, and store late.

A kernel that takes a row in several passes waits for memory in the first of them and leaves it idle
in the others. And a core takes a load for one of what it has just stored if the last twelve bits of
their addresses agree, as they do where rows and tensors are whole pages: then the load waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import ir, tirx
from tvm_ffi.structural import structural_map, structural_walk

from planish.ir.target import CACHE_LINE
from planish.targets.expressions.view import Expr


def fetch_rows_ahead(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func`, whose outermost loop is over rows, with prefetches of its parameters' next rows.

    They stand in the last vector loop that reads the parameter. The last row asks for itself once
    more. Elements at places that are themselves loaded are left to the CPU.
    """
    loops = _found(func.body, tirx.For)
    if not loops or int(loops[0].extent) == 1:
        return func
    row = loops[0].loop_var
    known = [loop.loop_var for loop in loops]
    last: dict[Any, tuple[Any, Any]] = {}  # parameter → the last vector loop that reads it, a load
    for loop in loops:
        if loop.kind == tirx.ForKind.VECTORIZED:
            for load in _found(loop.body, ir.TensorLoad):
                if _is_by_rows(load, row, known) and load.source in func.params[:-1]:
                    last[load.source] = (loop, load)
    following = tirx.min(row + 1, loops[0].extent - 1)

    def with_fetches(loop: tirx.For) -> tirx.Stmt:
        fetches = [
            _fetch(load, {row: following, loop.loop_var: tirx.const(lane, "int32")})
            for user, load in last.values()
            if user.loop_var.same_as(loop.loop_var)
            for lane in range(0, int(loop.extent), CACHE_LINE // _bytes(load.source))
        ]
        return tirx.SeqStmt([*fetches, loop]) if fetches else loop

    return func.with_body(structural_map(func.body, (tirx.For, with_fetches)))


def _is_by_rows(load: ir.TensorLoad, row: Any, known: Sequence[Any]) -> bool:
    """True if the place depends on the row, and on nothing but loops."""
    used = [var for index in load.indices for var in _found(index, tirx.Var)]
    loads = [inner for index in load.indices for inner in _found(index, ir.TensorLoad)]
    by_row = any(var.same_as(row) for var in used)
    return by_row and not loads and all(any(v.same_as(k) for k in known) for v in used)


def _fetch(load: ir.TensorLoad, at: dict[Any, Expr]) -> tirx.Stmt:
    """A prefetch (to read, into all caches, of data) of what is loaded there."""
    place = tirx.address_of(_renamed(load, at))
    how = [tirx.const(number, "int32") for number in (0, 3, 1)]
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", place, *how))


def _bytes(buffer: Any) -> int:
    return max(1, int(tvm.DataType(str(buffer.dtype)).bits) // 8)


def store_rows_together(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func` with vectors of rows that are unrolled in a loop all computed before one is stored."""
    result = func.params[-1]

    def apart(rows: tirx.For) -> tirx.Stmt:
        vector = rows.body
        if rows.kind != tirx.ForKind.UNROLLED or not isinstance(vector, tirx.For):
            return rows
        store = vector.body
        if not isinstance(store, tirx.BufferStore) or not store.buffer.same_as(result):
            return rows
        if vector.kind != tirx.ForKind.VECTORIZED or str(result.dtype) == "bool":
            return rows  # TVM has no vectors of bool in memory of its own
        shape = (int(rows.extent), int(vector.extent))
        kept = tirx.decl_buffer(shape, str(result.dtype), "kept", scope="local")
        row, lane = tirx.Var("row", "int32"), tirx.Var("lane", "int32")
        again = {rows.loop_var: row, vector.loop_var: lane}
        place = [_renamed(index, again) for index in store.indices]
        computed = tirx.BufferStore(kept, store.value, [rows.loop_var, vector.loop_var])
        stored = tirx.BufferStore(result, tirx.BufferLoad(kept, [row, lane]), place)
        loops = [
            _loop(rows, rows.loop_var, _loop(vector, vector.loop_var, computed)),
            _loop(rows, row, _loop(vector, lane, stored)),
        ]
        return tirx.SeqStmt([tirx.AllocBuffer(kept), *loops])

    return func.with_body(structural_map(func.body, (tirx.For, apart)))


def _loop(like: tirx.For, var: Any, body: tirx.Stmt) -> tirx.For:
    """A loop of that extent and kind."""
    return tirx.For(var, like.min, like.extent, like.kind, body)


def _renamed(root: Any, names: dict[Any, Expr]) -> Any:
    return structural_map(root, (tirx.Var, lambda var: names.get(var, var)))


def _found(root: Any, kind: Any) -> list[Any]:
    """All nodes of that kind, in the order of the program, outer ones first."""
    found: list[Any] = []
    structural_walk(root, (kind, found.append), order="pre")
    return found
