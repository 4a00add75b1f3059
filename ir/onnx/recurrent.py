"""Converters of LSTM, GRU and RNN: one input projection for all steps, one op a direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call

_Cell = Callable[[Call, Value, int, bool], tuple[Value, ...]]

_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def lstm(call: Call) -> list[Value | None]:
    """LSTM; gates in ONNX's order i, o, f, c."""
    if call.integer("input_forget", 0):
        raise UnsupportedModel("couples input and forget gates (input_forget)")
    _require_activations(call, ("Sigmoid", "Tanh", "Tanh"))
    return _recurrent(call, _lstm_cell)


def gru(call: Call) -> list[Value | None]:
    """GRU; gates in ONNX's order z, r, h."""
    _require_activations(call, ("Sigmoid", "Tanh"))
    return _recurrent(call, _gru_cell)


def rnn(call: Call) -> list[Value | None]:
    """RNN with Tanh or Relu."""
    names = [name.lower() for name in call.texts("activations")] or ["tanh"]
    if set(names) not in ({"tanh"}, {"relu"}):
        raise UnsupportedModel(f"its activations {names} are not all Tanh or all Relu")

    def cell(call: Call, gates: Value, d: int, backwards: bool) -> tuple[Value, ...]:
        hidden = call.static_shape(call.value(2))[-1]
        h0 = _state(call, 5, d, gates)
        shifted = _add_bias(call, gates, d, (0, 1), hidden)
        recurrent = _of_direction(call, call.value(2), d)
        return call.emit_all("rnn", shifted, recurrent, h0, reverse=backwards, activation=names[0])

    return _recurrent(call, cell)


def _lstm_cell(call: Call, gates: Value, d: int, backwards: bool) -> tuple[Value, ...]:
    hidden = call.static_shape(call.value(2))[-1]
    shifted = _add_bias(call, gates, d, (0, 1), 4 * hidden)
    operands = [shifted, _of_direction(call, call.value(2), d)]
    operands += [_state(call, 5, d, gates), _state(call, 6, d, gates)]
    peepholes = call.optional(7)
    if peepholes is None:
        operands.append(call.broadcast(call.like(0, gates), (3 * hidden,)))
    else:
        operands.append(_of_direction(call, peepholes, d))
    return call.emit_all("lstm", *operands, reverse=backwards)


def _gru_cell(call: Call, gates: Value, d: int, backwards: bool) -> tuple[Value, ...]:
    """The recurrent bias stays apart: with linear_before_reset it is multiplied by a gate."""
    hidden = call.static_shape(call.value(2))[-1]
    recurrent = _of_direction(call, call.value(2), d)
    shifted = _add_bias(call, gates, d, (0,), 3 * hidden)
    bias = call.optional(3)
    if bias is None:
        recurrent_bias = call.broadcast(call.like(0, gates), (3 * hidden,))
    else:
        recurrent_bias = call.crop(_of_direction(call, bias, d), 0, 3 * hidden, 6 * hidden)
    return call.emit_all(
        "gru",
        shifted,
        recurrent,
        recurrent_bias,
        _state(call, 5, d, gates),
        reverse=backwards,
        linear_before_reset=bool(call.integer("linear_before_reset", 0)),
    )


def _recurrent(call: Call, cell: _Cell) -> list[Value | None]:
    """Y [T, directions, B, H] and the last states [directions, B, H], batch first if layout=1."""
    call.ignore("hidden_size")  # R has it
    if call.has("clip"):
        raise UnsupportedModel(f"clips its gates to ±{call.number('clip'):g}")
    batch_first = bool(call.integer("layout", 0))
    x = call.transpose(call.value(0), (1, 0, 2)) if batch_first else call.value(0)
    _require_full_length(call, x)
    direction = call.text("direction", "forward")
    if direction not in _DIRECTIONS:
        raise UnsupportedModel(f"its direction '{direction}' is not known")
    results = []
    for d, backwards in enumerate(_DIRECTIONS[direction]):
        weights = call.transpose(_of_direction(call, call.value(1), d), (1, 0))
        results.append(cell(call, call.emit("matmul", x, weights), d, backwards))
    outputs = []
    for index, parts in enumerate(zip(*results)):
        axis = 1 if index == 0 else 0
        stacked = _stack(call, parts, axis)
        if batch_first:
            stacked = call.transpose(stacked, (2, 0, 1, 3) if index == 0 else (1, 0, 2))
        outputs.append(stacked)
    return list(outputs)


def _stack(call: Call, values: Sequence[Value], axis: int) -> Value:
    shape = values[0].type.shape
    apart = [call.reshape(value, (*shape[:axis], 1, *shape[axis:])) for value in values]
    return apart[0] if len(apart) == 1 else call.emit("concat", *apart, axis=axis)


def _of_direction(call: Call, value: Value, d: int) -> Value:
    """The part of [directions, ..] that belongs to one direction."""
    return call.reshape(call.crop(value, 0, d, d + 1), value.type.shape[1:])


def _add_bias(call: Call, gates: Value, d: int, halves: Sequence[int], size: int) -> Value:
    """`gates` plus the input bias (half 0 of B) or both (the recurrent one is half 1)."""
    bias = call.optional(3)
    if bias is None:
        return gates
    whole = _of_direction(call, bias, d)
    parts = [call.crop(whole, 0, half * size, (half + 1) * size) for half in halves]
    total = parts[0] if len(parts) == 1 else call.emit("add", parts[0], parts[1])
    return call.emit("add", gates, total)


def _state(call: Call, index: int, d: int, gates: Value) -> Value:
    """An initial state [B, H], zero if it is not given."""
    given = call.optional(index)
    if given is None:
        shape = (gates.type.shape[1], call.value(2).type.shape[-1])
        return call.broadcast(call.like(0, gates), shape)
    if call.integer("layout", 0):
        given = call.transpose(given, (1, 0, 2))
    return _of_direction(call, given, d)


def _require_activations(call: Call, default: tuple[str, ...]) -> None:
    names = call.texts("activations")
    call.ignore("activation_alpha", "activation_beta")  # the default activations take none
    expected = [name.lower() for name in default]
    for start in range(0, len(names), len(default)):
        if [name.lower() for name in names[start : start + len(default)]] != expected:
            raise UnsupportedModel(
                f"its activations {', '.join(names)} are not {', '.join(default)}"
            )


def _require_full_length(call: Call, x: Value) -> None:
    """Sequences of different lengths need masks, which the cells of the IR do not have."""
    lengths = call.optional(4)
    if lengths is None:
        return
    known = call.contents(lengths)
    steps = x.type.shape[0]
    if known is None or any(length != steps for length in known.reshape(-1)):
        raise UnsupportedModel("its sequence_lens are not all known to be the whole length")
