"""Chooses blocked layouts for convolutions and packs constant weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.builder import emit, make_node
from planish.ir.graph import Attrs, Constant, Graph, Node, Result, Value, constant
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.ir.types import DType

#: Input channels up to this many are read in place: packing three channels gains nothing.
_UNBLOCKED_CHANNELS = 4


def assign_layout(graph: Graph, target: Target) -> Graph:
    """Lower 2-D float convolutions to blocked layout, and matmuls by constants to packed panels.

    before: %1 = conv(%x, @w)            # N C H W
    after:  %1 = pack(%x, axis=1)        # N C/16 H W 16
            %2 = blocked_conv(%1, @w2)   # weights O/16 I KH KW 16 16
            %3 = unpack(%2, axis=1)

    Going forward, `unpack` sinks below ops that work on blocked tensors as well (element-wise,
    pooling, spatial reductions, padding, channel concat), and meets the next convolution's `pack`,
    where both vanish: whole networks stay blocked. Surplus channels of the last block hold
    arbitrary finite values there; the next convolution's weights for them are zero.
    """
    layout = _Layout(target)
    return graph.rebuild(layout.rewrite)


class _Layout:
    def __init__(self, target: Target) -> None:
        self.block = target.lanes(4)

    def rewrite(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if node.op == "conv" and self._is_blockable(node, inputs):
            return [self._conv(node, inputs)]
        if node.op == "matmul" and self._is_packable(node, inputs):
            return [self._matmul(node, inputs)]
        if any(self._blocked(value) is not None for value in inputs):
            sunk = self._sink(node, inputs)
            return None if sunk is None else [sunk]
        return None

    # --- convolutions

    def _is_blockable(self, node: Node, inputs: tuple[Value, ...]) -> bool:
        x, w = inputs
        if x.type.rank != 4 or x.type.dtype is not DType.FLOAT32 or not isinstance(w, Constant):
            return False
        return node.attrs["groups"] == 1 or _is_depthwise(node, inputs)

    def _conv(self, node: Node, inputs: tuple[Value, ...]) -> Value:
        x, w = inputs
        assert isinstance(w, Constant)
        a = node.attrs
        depthwise = _is_depthwise(node, inputs)
        small = not depthwise and x.type.static_shape[1] <= _UNBLOCKED_CHANNELS
        source = self._as_blocks(x, 1 if small else self.block, node)
        source = _padded(source, a["before"], a["after"], node)
        attrs = {"strides": a["strides"], "dilations": a["dilations"]}
        if depthwise:
            weights = pack_depthwise(np.asarray(w.data), self.block)
            op = "blocked_depthwise_conv"
        else:
            weights = pack_conv(np.asarray(w.data), source.type.static_shape[-1], self.block)
            op = "blocked_conv"
        blocks = make_node(op, [source, constant(weights, w.name)], attrs, (), node.provenance)
        return self._unpack(blocks.output, node)

    def _as_blocks(self, x: Value, block: int, node: Node) -> Value:
        found = self._blocked(x)
        if found is not None and found.type.static_shape[-1] == block:
            return found
        if block == 1:
            return make_node(
                "reshape", [x], {"shape": (*x.type.shape, 1)}, (), node.provenance
            ).output
        attrs = {"axis": 1, "block": block}
        return make_node("pack", [x], attrs, (), node.provenance).output

    def _unpack(self, blocks: Value, node: Node) -> Value:
        size = node.output.type.static_shape[1]
        attrs = {"axis": 1, "block": self.block, "size": size}
        names = [node.output.name]
        return make_node("unpack", [blocks], attrs, (), node.provenance, names).output

    # --- matmuls

    def _is_packable(self, node: Node, inputs: tuple[Value, ...]) -> bool:
        b = inputs[1]
        return isinstance(b, Constant) and b.type.rank == 2 and b.type.dtype.is_float

    def _matmul(self, node: Node, inputs: tuple[Value, ...]) -> Value:
        a, b = inputs
        assert isinstance(b, Constant)
        columns = b.type.static_shape[1]
        block = panel_width(columns, self.block)
        weights = constant(pack_panels(np.asarray(b.data), block), b.name)
        attrs = {"size": columns}
        names = [node.output.name]
        return make_node("packed_matmul", [a, weights], attrs, (), node.provenance, names).output

    # --- sinking unpack

    def _blocked(self, value: Value) -> Value | None:
        """The blocked tensor behind `value`, if an unpack of channels made it."""
        if isinstance(value, Result) and value.node.op == "unpack":
            return value.node.inputs[0]
        return None

    def _sink(self, node: Node, inputs: tuple[Value, ...]) -> Value | None:
        """The node on blocked operands, then unpacked; None where it needs plain layout."""
        if len(node.outputs) != 1 or node.output.type.rank != 4:
            return None
        operands: list[Value | None]
        attrs: Attrs | None = node.attrs
        if op_def(node.op).kind is OpKind.ELEMENTWISE:
            operands = self._elementwise_operands(node, inputs)
        elif node.op == "concat":
            operands = self._concat_operands(node, inputs)
        elif node.op in _SPATIAL:
            operands = [self._blocked(inputs[0]), *inputs[1:]]
            attrs = _SPATIAL[node.op](node)
        elif node.op == "slice":
            operands, attrs = [self._blocked(inputs[0])], self._slice_attrs(node)
        else:
            return None
        known = [value for value in operands if value is not None]
        if attrs is None or len(known) < len(node.inputs):
            return None
        result = make_node(node.op, known, attrs, (), node.provenance)
        return self._unpack(result.output, node)

    def _slice_attrs(self, node: Node) -> Attrs | None:
        """The attributes over blocks, if the channels that are kept are whole blocks."""
        starts, stops, steps = (node.attrs[name] for name in ("starts", "stops", "steps"))
        size = node.inputs[0].type.static_shape[1]
        ends = starts[1] % self.block == 0 and (stops[1] % self.block == 0 or stops[1] == size)
        if steps[1] != 1 or not ends:
            return None
        first, last = starts[1] // self.block, -(-stops[1] // self.block)
        return {
            "starts": (starts[0], first, *starts[2:], 0),
            "stops": (stops[0], last, *stops[2:], self.block),
            "steps": (*steps, 1),
        }

    def _elementwise_operands(self, node: Node, inputs: tuple[Value, ...]) -> list[Value | None]:
        channels = node.output.type.static_shape[1]
        if channels % self.block and node.op not in _FINITE:
            return []
        return [self._operand(value, channels, node) for value in inputs]

    def _operand(self, value: Value, channels: int, node: Node) -> Value | None:
        """An element-wise operand beside blocked ones; None if it does not fit."""
        found = self._blocked(value)
        if found is not None:
            return found if value.type.static_shape[1] == channels else None
        if value.type.elements == 1:
            return _reshaped(value, ())
        shape = (1,) * (4 - value.type.rank) + value.type.static_shape
        if shape[1] == 1:
            return _reshaped(value, (*shape, 1))
        if shape[1] != channels:
            return None
        if isinstance(value, Constant):
            return constant(pack_channels(np.asarray(value.data).reshape(shape), self.block))
        attrs = {"axis": 1, "block": self.block}
        return make_node("pack", [_reshaped(value, shape)], attrs, (), node.provenance).output

    def _concat_operands(self, node: Node, inputs: tuple[Value, ...]) -> list[Value | None]:
        if node.attrs["axis"] % 4 == 1 and any(
            value.type.static_shape[1] % self.block for value in inputs[:-1]
        ):
            return []
        return [self._blocked(value) for value in inputs]


def _is_depthwise(node: Node, inputs: tuple[Value, ...]) -> bool:
    channels, (out, per_group) = inputs[0].type.static_shape[1], inputs[1].type.static_shape[:2]
    return bool(node.attrs["groups"] == channels == out and per_group == 1 and channels > 1)


def _padded(x: Value, before: tuple[int, ...], after: tuple[int, ...], node: Node) -> Value:
    """Zero padding of H and W as a node of its own: convolution loops stay free of guards."""
    if not any((*before, *after)):
        return x
    attrs = {"before": (0, 0, *before, 0), "after": (0, 0, *after, 0)}
    return make_node("pad", [x], attrs, (), node.provenance).output


def _pool_attrs(node: Node) -> Attrs | None:
    if node.attrs["window"][1] != 1 or node.attrs["strides"][1] != 1:
        return None
    extend = {
        "window": 1,
        "strides": 1,
        "dilations": 1,
        "before": 0,
        "after": 0,
        "counted_after": 0,
    }
    attrs = dict(node.attrs)
    for name, value in extend.items():
        if attrs.get(name) is not None:
            attrs[name] = (*attrs[name], value)
    return attrs


def _reduce_attrs(node: Node) -> Attrs | None:
    spatial = set(node.attrs["axes"]) <= {2, 3}
    return dict(node.attrs) if spatial and node.attrs["keepdims"] else None


def _pad_attrs(node: Node) -> Attrs | None:
    before, after = node.attrs["before"], node.attrs["after"]
    if before[1] or after[1]:
        return None
    return {**node.attrs, "before": (*before, 0), "after": (*after, 0)}


def _gather_attrs(node: Node) -> Attrs | None:
    one_row = node.attrs["axis"] % 4 in (2, 3) and node.inputs[1].type.rank == 1
    return {"axis": node.attrs["axis"] % 4} if one_row else None


def _reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    if value.type.static_shape == shape:
        return value
    if isinstance(value, Constant):
        return constant(np.asarray(value.data).reshape(shape), value.name)
    return emit("reshape", value, shape=shape)


#: Ops on H and W only → their attributes over the blocked tensor, or None where C is touched.
_SPATIAL = {
    "pool": _pool_attrs,
    "reduce_sum": _reduce_attrs,
    "reduce_mean": _reduce_attrs,
    "reduce_max": _reduce_attrs,
    "reduce_min": _reduce_attrs,
    "pad": _pad_attrs,
    "gather": _gather_attrs,
}

#: Element-wise ops whose result stays finite on the arbitrary values of surplus channels.
_FINITE = frozenset(
    (
        *("add", "sub", "mul", "neg", "abs", "sign", "floor", "ceil", "round"),
        *("maximum", "minimum", "clip", "relu", "sigmoid", "tanh", "erf"),
        *("equal", "less", "less_equal", "greater", "greater_equal", "not", "and", "or", "where"),
    )
)


def panel_width(columns: int, lanes: int) -> int:
    """Columns of one packed panel: a few vectors that divide the matrix, else whole vectors.

    A width that divides `columns` leaves no masked tail to store.
    """
    for vector in (lanes, lanes // 2, lanes // 4):
        for count in (4, 3, 2, 5, 6, 1):
            if vector >= 2 and columns % (vector * count) == 0:
                return vector * count
    return lanes * min(4, -(-columns // lanes))


def pack_channels(x: np.ndarray, block: int) -> np.ndarray:
    """[N,C,H,W] → [N,C/b,H,W,b], zero padded."""
    n, c, h, w = x.shape
    full = np.zeros((n, -(-c // block) * block, h, w), x.dtype)
    full[:, :c] = x
    return np.ascontiguousarray(full.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2))


def pack_conv(w: np.ndarray, ib: int, ob: int) -> np.ndarray:
    """[O,I,KH,KW] → [O/ob,I/ib,KH,KW,ib,ob], zero padded."""
    o, i, kh, kw = w.shape
    full = np.zeros((-(-o // ob) * ob, -(-i // ib) * ib, kh, kw), w.dtype)
    full[:o, :i] = w
    blocks = full.reshape(-1, ob, full.shape[1] // ib, ib, kh, kw)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 5, 3, 1))


def pack_depthwise(w: np.ndarray, block: int) -> np.ndarray:
    """[C,1,KH,KW] → [C/b,KH,KW,b], zero padded."""
    c, _, kh, kw = w.shape
    full = np.zeros((-(-c // block) * block, kh, kw), w.dtype)
    full[:c] = w[:, 0]
    return np.ascontiguousarray(full.reshape(-1, block, kh, kw).transpose(0, 2, 3, 1))


def pack_panels(b: np.ndarray, block: int) -> np.ndarray:
    """[K,N] → [N/block,K,block], zero padded."""
    k, n = b.shape
    full = np.zeros((k, -(-n // block) * block), b.dtype)
    full[:, :n] = b
    return np.ascontiguousarray(full.reshape(k, -1, block).transpose(1, 0, 2))
