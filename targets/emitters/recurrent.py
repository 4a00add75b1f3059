"""LSTM, GRU and RNN over a whole sequence: the input projections are already in `gates_x`.

Each step multiplies the state by the recurrent weights row by row (rows lie in memory as the
vectors that are read) and then updates the state element-wise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from planish.ir.graph import Node
from planish.targets.emitters.function import Buffer, choice, function
from planish.targets.expressions.elementwise import relu
from planish.targets.expressions.vector_math import sigmoid, tanh
from planish.targets.expressions.view import Expr


@dataclass(frozen=True, slots=True)
class _Cell:
    """Extents of a recurrence: steps, batch, hidden units; vector lanes; direction."""

    steps: int
    batch: int
    hidden: int
    lanes: int
    dtype: str
    reverse: bool

    def time(self, step: Expr) -> Expr:
        """The time index of a step."""
        return (self.steps - 1) - step if self.reverse else step


def _cell(node: Node, kernel: Node, state: int) -> _Cell:
    steps, batch, _ = node.inputs[0].type.static_shape
    hidden = node.inputs[state].type.static_shape[1]
    lanes = int(choice(kernel, "lanes"))
    dtype = node.inputs[0].type.dtype.value
    return _Cell(steps, batch, hidden, lanes, dtype, node.attrs["reverse"])


def lstm(kernel: Node) -> tirx.PrimFunc:
    """gates in the order i, o, f, c; peepholes i, o, f."""

    def build(
        node: Node, x: Buffer, r: Buffer, h0: Buffer, c0: Buffer, p: Buffer,
        y: Buffer, h: Buffer, c: Buffer,
    ) -> None:  # fmt: skip
        cell = _cell(node, kernel, 2)
        n = cell.hidden
        gates = T.alloc_buffer((4 * n,), cell.dtype)
        _copy_state(cell, h0, h)
        _copy_state(cell, c0, c)
        with T.serial(0, cell.steps) as step:
            t = cell.time(step)
            with T.serial(0, cell.batch) as b:
                _rows(cell, gates, r, 4 * n, 0, lambda k: h[b, k], lambda j: x[t, b, j])
                with T.serial(0, n) as j:
                    old = c[b, j]
                    i = sigmoid(gates[j] + p[j] * old)
                    f = sigmoid(gates[2 * n + j] + p[2 * n + j] * old)
                    T.buffer_store(c, f * old + i * tanh(gates[3 * n + j]), [b, j])
                with T.serial(0, n) as j:
                    o = sigmoid(gates[n + j] + p[n + j] * c[b, j])
                    T.buffer_store(h, o * tanh(c[b, j]), [b, j])
                with T.serial(0, n) as j:
                    T.buffer_store(y, h[b, j], [t, b, j])

    return function(kernel, build)


def gru(kernel: Node) -> tirx.PrimFunc:
    """gates in the order z, r, h."""

    def build(
        node: Node, x: Buffer, r: Buffer, rb: Buffer, h0: Buffer, y: Buffer, h: Buffer
    ) -> None:
        cell = _cell(node, kernel, 3)
        n = cell.hidden
        linear = node.attrs["linear_before_reset"]
        gates = T.alloc_buffer((3 * n,), cell.dtype)
        reset = T.alloc_buffer((n,), cell.dtype)
        _copy_state(cell, h0, h)
        with T.serial(0, cell.steps) as step:
            t = cell.time(step)
            with T.serial(0, cell.batch) as b:
                if linear:
                    _rows(cell, gates, r, 3 * n, 0, lambda k: h[b, k], lambda j: rb[j])
                    with T.serial(0, n) as j:
                        gate = sigmoid(x[t, b, n + j] + gates[n + j])
                        T.buffer_store(reset, gate * gates[2 * n + j], [j])
                else:
                    _rows(cell, gates, r, 2 * n, 0, lambda k: h[b, k], lambda j: rb[j])
                    with T.serial(0, n) as j:
                        gate = sigmoid(x[t, b, n + j] + gates[n + j])
                        T.buffer_store(reset, gate * h[b, j], [j])
                    _rows(
                        cell, gates, r, n, 2 * n,
                        lambda k: reset[k], lambda j: rb[2 * n + j],
                    )  # fmt: skip
                    with T.serial(0, n) as j:
                        T.buffer_store(reset, gates[2 * n + j], [j])
                with T.serial(0, n) as j:
                    z = sigmoid(x[t, b, j] + gates[j])
                    new = tanh(x[t, b, 2 * n + j] + reset[j])
                    one = tirx.const(1, cell.dtype)
                    T.buffer_store(h, (one - z) * new + z * h[b, j], [b, j])
                with T.serial(0, n) as j:
                    T.buffer_store(y, h[b, j], [t, b, j])

    return function(kernel, build)


def rnn(kernel: Node) -> tirx.PrimFunc:
    """One gate, tanh or relu."""

    def build(node: Node, x: Buffer, r: Buffer, h0: Buffer, y: Buffer, h: Buffer) -> None:
        cell = _cell(node, kernel, 2)
        activation = {"tanh": tanh, "relu": relu}[node.attrs["activation"]]
        gates = T.alloc_buffer((cell.hidden,), cell.dtype)
        _copy_state(cell, h0, h)
        with T.serial(0, cell.steps) as step:
            t = cell.time(step)
            with T.serial(0, cell.batch) as b:
                _rows(cell, gates, r, cell.hidden, 0, lambda k: h[b, k], lambda j: x[t, b, j])
                with T.serial(0, cell.hidden) as j:
                    T.buffer_store(h, activation(gates[j]), [b, j])
                with T.serial(0, cell.hidden) as j:
                    T.buffer_store(y, h[b, j], [t, b, j])

    return function(kernel, build)


def _copy_state(cell: _Cell, source: Buffer, target: Buffer) -> None:
    with T.serial(0, cell.batch) as b, T.serial(0, cell.hidden) as j:
        T.buffer_store(target, source[b, j], [b, j])


def _rows(
    cell: _Cell,
    out: Buffer,
    weights: Buffer,
    count: int,
    first: int,
    state: Callable[[Expr], Expr],
    start: Callable[[Expr], Expr],
) -> None:
    """out[first + j] = start(j) + Σ_k weights[first + j, k] · state(k), for j < count."""
    lanes = cell.lanes
    whole = cell.hidden // lanes * lanes
    group = next(g for g in (4, 3, 2, 1) if count % g == 0)  # independent sums hide latency
    zero = tirx.const(0, cell.dtype)
    with T.serial(0, count // group) as block:
        partial = T.alloc_buffer((group, lanes), cell.dtype)
        with T.unroll(0, group) as g, T.vectorized(0, lanes) as v:
            T.buffer_store(partial, zero, [g, v])
        if whole:
            block_of_lanes = T.serial(0, whole // lanes)
            with block_of_lanes as k, T.unroll(0, group) as g, T.vectorized(0, lanes) as v:
                at = k * lanes + v
                product = weights[first + block * group + g, at] * state(at)
                T.buffer_store(partial, partial[g, v] + product, [g, v])
        with T.unroll(0, group) as g:
            row = block * group + g
            total = start(row)
            for lane in range(lanes):
                total = total + partial[g, lane]
            for k in range(whole, cell.hidden):
                total = total + weights[first + row, k] * state(tirx.const(k, "int32"))
            T.buffer_store(out, total, [first + row])
