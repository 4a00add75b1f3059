"""Converters of what surrounds attention: rotary position embeddings."""

from __future__ import annotations

from planish.ir.dim import DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call


def rotary_embedding(call: Call) -> Value:
    """RotaryEmbedding of x[N,H,S,D] or [N,S,H·D]; tables [N,S,R/2], or [P,R/2] by position."""
    x, interleaved = call.value(0), bool(call.integer("interleaved", 0))
    heads, width = call.integer("num_heads", 0), call.integer("rotary_embedding_dim", 0)
    shape = call.static_shape(x)
    rows = x
    if x.type.rank == 3:
        if heads < 1 or shape[2] % heads:
            raise InvalidModel(
                f"node '{call.label}' ({call.op}) splits rows of {shape[2]} into {heads} heads"
            )
        rows = call.reshape(x, (*shape[:2], heads, shape[2] // heads))
    elif x.type.rank != 4:
        raise UnsupportedModel(f"rotates rows of {x.type}, expected rank 3 or 4")
    tables = [_by_position(call, call.value(index)) for index in (1, 2)]
    place = 2 if x.type.rank == 3 else 1  # of the dimension of heads
    spread = [call.reshape(t, _with_one(t, place)) for t in tables]
    attrs = {"width": width or rows.type.static_shape[-1], "interleaved": interleaved}
    return call.reshape(call.emit("rotary_embedding", rows, *spread, **attrs), shape)


def _by_position(call: Call, table: Value) -> Value:
    positions = call.optional(3)
    return table if positions is None else call.emit("gather", table, positions, axis=0)


def _with_one(table: Value, place: int) -> tuple[DimLike, ...]:
    shape = table.type.shape
    return (*shape[:place], 1, *shape[place:])
