"""Let-bindings as stores to registers.

TVM's simplifier puts the value of a pure binding in the place of its variable, in every pass that
analyses loops. A value that is read twice, made of one that is read twice, and so on, takes time
exponential in the depth: a chain of activations never ends. It does not look through memory, so
each bound value becomes a local buffer, which LLVM makes a register again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import ir, tirx
from tvm_ffi.structural import structural_map, structural_walk

from planish.targets.expressions.view import Expr, binding


def store_bindings(stmt: tirx.Stmt) -> tirx.Stmt:
    """The statement with the bindings of each stored value turned into stores before it."""
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
    """The store, after stores of what its value binds."""
    statements: list[tirx.Stmt] = []
    registers = _Registers(lanes, lane, allocated)
    value = registers.without_bindings(store.value, statements)
    if not statements:
        return store
    statements.append(tirx.BufferStore(store.buffer, value, store.indices))
    places = registers.places
    return structural_map(tirx.SeqStmt(statements), (tirx.Var, lambda v: places.get(v, v)))


class _Registers:
    """Local buffers for what an expression binds: each has an element of its own for each lane.

    What is the same in all lanes has one element. A place in memory must stay one number: vectors
    are then loaded whole, not gathered lane by lane.
    """

    def __init__(self, lanes: int, lane: Expr, allocated: list[tirx.Stmt]) -> None:
        self._lanes, self._lane, self._allocated = lanes, lane, allocated
        self._by_lane: list[Any] = [lane]  # variables that differ from lane to lane
        self.places: dict[Any, Expr] = {}
        """Variable → the element that takes its place."""

    def without_bindings(self, expr: Expr, before: list[tirx.Stmt]) -> Expr:
        """`expr` without its bindings, which become statements in `before`.

        A choice (`if_then_else`) with bindings in it becomes a statement too, as what they read may
        be out of bounds on the other side.
        """

        def strip(node: Expr) -> Expr:
            while isinstance(node, tirx.Let):
                self._keep(node.var, node.value, before)
                node = node.body
            return self._chosen(node, before) if _is_choice(node) and _binds(node) else node

        return structural_map(expr, ((tirx.Let, ir.Call), strip), order="pre")

    def _keep(self, var: Expr, value: Expr, before: list[tirx.Stmt]) -> None:
        value = self.without_bindings(value, before)
        by_lane = self._differs(value)
        if by_lane:
            self._by_lane.append(var)
        before.append(self._register(var, by_lane)(value))

    def _chosen(self, choice: Any, before: list[tirx.Stmt]) -> Expr:
        """The place that the statement of the choice, appended to `before`, stores it to."""
        condition, *sides = choice.args
        condition = self.without_bindings(condition, before)
        var, _, use = binding("chosen", choice)
        by_lane = self._differs(choice)
        if by_lane:
            self._by_lane.append(var)
        store = self._register(var, by_lane)
        branches = []
        for side in sides:
            branch: list[tirx.Stmt] = []
            _, value, _ = binding("chosen", self.without_bindings(side, branch))
            branch.append(store(value))
            branches.append(tirx.SeqStmt(branch) if len(branch) > 1 else branch[0])
        before.append(tirx.IfThenElse(condition, *branches))
        return use

    def _differs(self, expr: Expr) -> bool:
        return _mentions(expr, self._by_lane)

    def _register(self, var: Any, by_lane: bool) -> Callable[[Expr], tirx.Stmt]:
        """Gives the variable a place; what is returned makes the statement that stores a value."""
        size, at = (self._lanes, self._lane) if by_lane else (1, tirx.const(0, "int32"))
        buffer = tirx.decl_buffer((size,), str(var.ty), var.name, scope="local")
        self._allocated.append(tirx.AllocBuffer(buffer))
        self.places[var] = tirx.BufferLoad(buffer, [at])
        return lambda value: tirx.BufferStore(buffer, value, [at])


def _mentions(expr: Expr, wanted: Sequence[Any]) -> bool:
    found: list[Any] = []
    structural_walk(expr, (tirx.Var, found.append))
    return any(var.same_as(one) for var in found for one in wanted)


def _is_choice(expr: Expr) -> bool:
    return isinstance(expr, ir.Call) and getattr(expr.op, "name", "").endswith(".if_then_else")


def _binds(expr: Expr) -> bool:
    found: list[Expr] = []
    structural_walk(expr, (tirx.Let, found.append))
    return bool(found)
