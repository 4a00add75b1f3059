"""Direct convolution in blocked layout: a register tile of output columns by output channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import Numbers, Work, again_from_l2, reads
from planish.autotune.spaces.register_tiles import keeps_broadcasts, written_out_registers
from planish.autotune.spaces.space import (
    Choices,
    Points,
    Space,
    Steps,
    epilogues,
    finish_cost,
    moving,
    operand_registers,
    partial_sum,
    required_anchor,
    tile_candidates,
)
from planish.ir.graph import Node
from planish.ir.target import Target


def _is_dense(kernel: Node) -> bool:
    return required_anchor(kernel).op == "blocked_conv"


def _is_first(anchor: Node) -> bool:
    """True if it reads single channels: neighbouring columns then share them."""
    return anchor.inputs[0].type.static_shape[-1] == 1


def _repeats_blocks(anchor: Node) -> bool:
    """True if the loop over a block of channels lies in others, and is no part of the epilogue."""
    _, blocks, kh, kw, _, _ = anchor.inputs[1].type.static_shape
    return not _is_first(anchor) and blocks * kh * kw > 1


def _may_flatten(kernel: Node) -> bool:
    """1x1 with stride 1: rows follow each other in memory, so H and W are one axis."""
    anchor = required_anchor(kernel)
    return (
        _is_dense(kernel)
        and anchor.inputs[1].type.static_shape[2:4] == (1, 1)
        and anchor.attrs["strides"] == (1, 1)
    )


def _rows(kernel: Node, flatten: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Steps along H, or tiles of the image where rows are joined, for each point."""
    height = required_anchor(kernel).output.type.static_shape[2]
    return np.where(flatten, -(-_columns(kernel, True) // columns), height)


def _columns(kernel: Node, flatten: bool) -> int:
    _, _, oh, ow, _ = required_anchor(kernel).output.type.static_shape
    return oh * ow if flatten else ow


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `flatten`, `oc` (channel blocks in a tile), `ow` (columns in a tile), `outer`
    (what the outermost loop runs over: channels or pixels), `share` (what cores take of the work:
    a part of those loops, or of the rows, so that each keeps its part of an image), `chunk`
    (blocks of input channels in a partial sum), `epilogue` (its loops unrolled, or not where the
    sums are in memory), `parallel`.
    """
    flatten = (True, False) if _may_flatten(kernel) else (False,)
    blocks = required_anchor(kernel).output.type.static_shape[1]
    channels = tuple(u for u in (1, 2, 3, 4) if blocks % u == 0) if _is_dense(kernel) else (1,)
    columns = tile_candidates(_columns(kernel, flatten[0]), target.vector_registers - 3)
    outer = ("channels", "pixels") if _is_dense(kernel) else ("channels",)
    return {
        "flatten": flatten,
        "oc": channels,
        "ow": columns,
        "outer": outer,
        "share": ("loops", "rows"),
        "chunk": (_chunk(kernel),),
        "epilogue": epilogues(_is_partial(kernel)),
        "parallel": (False, True),
    }


def _chunk(kernel: Node) -> int:
    """Blocks of input channels in a partial sum; 0 for depthwise kernels, whose sums are short."""
    if not _is_dense(kernel):
        return 0
    _, blocks, kh, kw, inner, _ = required_anchor(kernel).inputs[1].type.static_shape
    return partial_sum(blocks, kh * kw * inner)


def _is_partial(kernel: Node) -> bool:
    """True if there is a stage `part`."""
    blocks = required_anchor(kernel).inputs[1].type.static_shape[1]
    return _is_dense(kernel) and _chunk(kernel) != blocks


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """Tiles are no wider than a row, or than the image where rows are joined; rows share evenly."""
    whole, row = _columns(kernel, True), _columns(kernel, False)
    flatten, share = points["flatten"], points["share"] == "rows"
    fits = points["ow"] <= np.where(flatten, whole, row)
    rows = _rows(kernel, flatten, points["ow"])
    return np.asarray(fits & (~share | (points["parallel"] & (rows % target.cores == 0))))


def _work(kernel: Node, target: Target, points: Points) -> Work:
    anchor = required_anchor(kernel)
    x = anchor.inputs[0].type
    batch, blocks, height, width, lanes = anchor.output.type.static_shape
    flatten, columns, channels = points["flatten"], points["ow"], points["oc"]
    pixels = batch * np.where(flatten, 1, height)
    pixels = pixels * -(-np.where(flatten, height * width, width) // columns)
    again = blocks // channels
    tiles = pixels * again
    moved = moving(kernel, target)
    if _is_dense(kernel):
        step = _dense_step(anchor, channels, columns, target)
        l2, l3 = _dense_reads(anchor, target, points, pixels)
    else:
        step = _taps(anchor, columns, target)
        l2, l3 = reads(target, x.nbytes, np.ones(len(tiles)))
    return Work(
        **step,
        tiles=tiles,
        finish=finish_cost(kernel, columns * channels, points["epilogue"]),
        l2=l2 + moved[0],
        l3=l3 + moved[1],
        shares=tiles,
        parallel=points["parallel"],
        vector_bytes=lanes * x.dtype.itemsize,
        **_sharing(kernel, points),
    )


def _sharing(kernel: Node, points: Points) -> dict[str, Numbers]:
    """Bytes that a core reads of what others made or need too.

    The kernel before is taken to have shared its rows. Cores that share channels then read all of
    the input, and those that share rows all of the weights.
    """
    x, w = (value.type for value in required_anchor(kernel).inputs[:2])
    rows = (points["share"] == "rows") | (points["outer"] == "pixels")
    if not _is_dense(kernel):
        return {"foreign": np.where(rows, 0.0, x.nbytes / 2), "common": 0.0}
    return {
        "foreign": np.where(rows, 0.0, float(x.nbytes)),
        "common": np.where(rows, float(w.nbytes), 0.0),
    }


def _dense_reads(
    anchor: Node, target: Target, points: Points, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes from L2 and L3: what the inner loop runs over is read again for each outer step."""
    x, w = (value.type for value in anchor.inputs[:2])
    again = anchor.output.type.static_shape[1] // points["oc"]
    by_channels = points["outer"] == "channels"
    input_l2, input_l3 = reads(target, x.nbytes, np.where(by_channels, again, 1))
    weight_l2, weight_l3 = reads(target, w.nbytes, np.where(by_channels, 1, pixels))
    panel = w.nbytes / again
    rows, columns = w.static_shape[2], points["ow"] * anchor.attrs["strides"][1]
    patch = x.nbytes / (x.static_shape[2] * x.static_shape[3]) * rows * columns
    inner = again_from_l2(target, np.where(by_channels, panel, patch), pixels * again)
    return input_l2 + weight_l2 + inner, input_l3 + weight_l3


def _dense_step(
    anchor: Node, channels: np.ndarray, columns: np.ndarray, target: Target
) -> dict[str, Numbers]:
    """One input channel: each pixel is broadcast to the vectors of channels."""
    tile, lanes = channels * columns, anchor.output.type.static_shape[4]
    return {
        "multiplies": tile,
        "sums": tile,
        "loads": channels + columns,
        "registers": _registers(anchor, channels, columns, target),
        "steps": anchor.inputs[1].type.elements // anchor.output.type.static_shape[1] // lanes,
    }


def _registers(
    anchor: Node, channels: np.ndarray, columns: np.ndarray, target: Target
) -> np.ndarray:
    if not _repeats_blocks(anchor):
        operands = operand_registers(target, columns, channels)
        return np.asarray(channels * columns + operands)
    block = anchor.inputs[1].type.static_shape[4]
    return written_out_registers(target, columns, channels, block)


def _taps(anchor: Node, columns: np.ndarray, target: Target) -> dict[str, Numbers]:
    """One row of a depthwise kernel: neighbouring pixels share what they read."""
    rows, taps = anchor.inputs[1].type.static_shape[1:3]
    step = min(anchor.attrs["strides"][1], taps)
    return {
        "multiplies": columns * taps,
        "sums": columns,
        "loads": columns * step + 2 * taps,
        "registers": columns + _beside_sums(rows, taps, step, target),
        "steps": rows,
    }


def _beside_sums(rows: int, taps: int, step: int, target: Target) -> int:
    """Registers of weights and pixels for a row of a depthwise kernel.

    LLVM unrolls small kernels where there are registers for their weights. With 16 registers it
    reads weights from memory, and pixels as far ahead as their columns lie apart.
    """
    if target.vector_registers < 32:
        return 3 * step + 3
    return (rows * taps if rows * taps <= 9 else taps - 2) + taps + 2


def _reduction_order(kernel: Node) -> list[str]:
    """Channels innermost: LLVM unrolls the innermost loop, and sharing overlapping columns
    between unrolled `kw` would keep more values alive than there are registers."""
    if not _is_dense(kernel):
        return ["kh", "kw"]
    if _is_first(required_anchor(kernel)):
        return ["kh", "kw", "ic", "ici"]
    return ["ic", "kh", "kw", "ici"]


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """n, oc.o, oh, ow (parallel) | ic, kh, kw, ici | ow.i, oc.i unrolled | oci vector."""
    flatten, dense = choices["flatten"], _is_dense(kernel)
    pixels = ("ow",) if flatten else ("oh", "ow")
    shared: tuple[str, ...] = ()
    steps: Steps = [("split", "acc", "oc", choices["oc"], "oc.o", "oc.i")]
    if choices["share"] == "rows":
        axis, rows = pixels[0], int(_rows(kernel, flatten, choices["ow"]))
        steps.append(("split", "acc", axis, rows // target.cores, "core", f"{axis}.c"))
        pixels, shared = (f"{axis}.c", *pixels[1:]), ("n", "core")
    lead = ("oc.o", *pixels) if choices["outer"] == "channels" else (*pixels, "oc.o")
    lead = lead if shared else ("n", *lead)
    reduced = _reduction_order(kernel)
    outer, inner = (reduced, []) if dense else (reduced[:1], reduced[1:])
    blocks = dense and _repeats_blocks(required_anchor(kernel))
    by_vectors = blocks and bool(keeps_broadcasts(target, choices["ow"], choices["oc"]))
    tile = [*_tile("oc.i", by_vectors), *inner, "oci"]
    partial = _is_partial(kernel)
    steps += [
        ("reorder", "acc", (*shared, *lead, *(["part"] if partial else outer), *tile)),
        ("fuse", "acc", lead, "task"),
        ("reverse_compute_at", "out", "acc", "task"),
        ("set_scope", "acc", "local"),
        *_unrolled("out", "oc", choices["epilogue"] == "unrolled"),
    ]
    if shared:
        steps.append(("fuse", "acc", shared, "share"))
    if choices["parallel"]:
        steps.append(("parallel", "acc", "share" if shared else "task"))
    if partial:
        steps += [
            ("compute_at", "part", "acc", "part"),
            ("set_scope", "part", "local"),
            ("reorder", "part", (*reduced, *_tile("oc", by_vectors), "oci")),
            *_unrolled("part", "oc"),
            ("decompose_reduction", "part", reduced[0]),
            *_unrolled("part.init", "oc"),
        ]
    steps += _unrolled("acc", "oc.i")
    if not dense:
        steps.append(("unroll", "acc", "kw"))  # neighbouring columns share their loads
    steps.append(("decompose_reduction", "acc", "part" if partial else reduced[0]))
    return [*steps, *_unrolled("acc.init", "oc.i")]


def _tile(channels: str, by_vectors: bool) -> tuple[str, str]:
    """The loops of a register tile: over vectors of channels, where all pixels are kept, or not."""
    return (channels, "ow.i") if by_vectors else ("ow.i", channels)


def _unrolled(stage: str, channels: str, written_out: bool = True) -> Steps:
    """A register tile: vectors along the block of channels, all else written out."""
    steps: Steps = [("unroll", stage, "ow.i"), ("unroll", stage, channels)] if written_out else []
    return [("vectorize", stage, "oci"), *steps]


SPACE = Space(
    "conv",
    ("blocked_conv", "blocked_depthwise_conv"),
    options,
    None,
    directives,
    version=3,
    legal=_legal,
    work=_work,
)
