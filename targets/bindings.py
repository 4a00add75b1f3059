"""Let-bindings as stores to registers.

TVM's simplifier puts the value of a pure binding in the place of its variable, in every pass that
analyses loops. A value that is read twice, made of one that is read twice, and so on, takes time
exponential in the depth: a chain of activations never ends. It does not look through memory, so
each bound value becomes a local buffer, which LLVM makes a register again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import ir, tirx
from tvm_ffi.structural import structural_map, structural_walk

from planish.targets.expressions.view import Expr

Bound = list[tuple[Any, Expr]]  # variables and their values, in order


def store_bindings(stmt: tirx.Stmt) -> tirx.Stmt:
    """The statement with the bindings of each stored value turned into stores before it.

    Bindings under a guard (`if_then_else`) stay, since what they read may be out of bounds.
    """
    stmt = structural_map(stmt, (tirx.For, _vector_loop))
    return structural_map(stmt, (tirx.BufferStore, _scalar_store))


def _vector_loop(loop: tirx.For) -> tirx.Stmt:
    """In a vectorised loop a value has an element for each lane; the buffers lie outside it."""
    if loop.kind != tirx.ForKind.VECTORIZED:
        return loop
    allocated: list[tirx.Stmt] = []

    def place(store: tirx.BufferStore) -> tirx.Stmt:
        return _stored(store, int(loop.extent), loop.loop_var, allocated)

    body = structural_map(loop.body, (tirx.BufferStore, place))
    if not allocated:
        return loop
    vector = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body)
    return tirx.SeqStmt([*allocated, vector])


def _scalar_store(store: tirx.BufferStore) -> tirx.Stmt:
    allocated: list[tirx.Stmt] = []
    stmt = _stored(store, 1, tirx.const(0, "int32"), allocated)
    return tirx.SeqStmt([*allocated, stmt]) if allocated else store


def _stored(
    store: tirx.BufferStore, lanes: int, lane: Expr, allocated: list[tirx.Stmt]
) -> tirx.Stmt:
    """The store, after stores of what its value binds: to an element of its own for each lane.

    What is the same in all lanes has one element. A place in memory must stay one number: vectors
    are then loaded whole, not gathered lane by lane.
    """
    bound: Bound = []
    value = _hoisted(store.value, bound)
    if not bound:
        return store
    statements: list[tirx.Stmt] = []
    places: dict[Any, Expr] = {}
    by_lane: list[Any] = [lane]  # variables that differ from lane to lane
    for var, inner in bound:
        is_by_lane = _mentions(inner, by_lane)
        if is_by_lane:
            by_lane.append(var)
        at = lane if is_by_lane else tirx.const(0, "int32")
        size = lanes if is_by_lane else 1
        buffer = tirx.decl_buffer((size,), str(var.ty), var.name, scope="local")
        allocated.append(tirx.AllocBuffer(buffer))
        statements.append(tirx.BufferStore(buffer, inner, [at]))
        places[var] = tirx.BufferLoad(buffer, [at])
    statements.append(tirx.BufferStore(store.buffer, value, store.indices))
    return structural_map(tirx.SeqStmt(statements), (tirx.Var, lambda v: places.get(v, v)))


def _mentions(expr: Expr, wanted: Sequence[Any]) -> bool:
    found: list[Any] = []
    structural_walk(expr, (tirx.Var, found.append))
    return any(var.same_as(one) for var in found for one in wanted)


def _hoisted(expr: Expr, bound: Bound) -> Expr:
    """`expr` without its bindings, which are appended to `bound`, inner ones first.

    Those around it are outside of any guard in it; inside, none moves if there is a guard.
    """
    while isinstance(expr, tirx.Let):
        bound.append((expr.var, _hoisted(expr.value, bound)))
        expr = expr.body
    if _is_guarded(expr):
        return expr

    def strip(node: Expr) -> Expr:
        while isinstance(node, tirx.Let):
            bound.append((node.var, _hoisted(node.value, bound)))
            node = node.body
        return node

    return structural_map(expr, (tirx.Let, strip), order="pre")


def _is_guarded(expr: Expr) -> bool:
    found: list[Expr] = []

    def see(call: Any) -> None:
        if getattr(call.op, "name", "").endswith(".if_then_else"):
            found.append(call)

    structural_walk(expr, (ir.Call, see))
    return bool(found)
