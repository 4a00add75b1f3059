"""Direct convolution in blocked layout: a register tile of output columns by output channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planish.autotune.spaces.space import (
    Choices,
    Space,
    Steps,
    is_parallel,
    padded_share,
    required_anchor,
    tile_candidates,
)
from planish.ir.graph import Node
from planish.ir.target import Target


def _is_dense(kernel: Node) -> bool:
    return required_anchor(kernel).op == "blocked_conv"


def _may_flatten(kernel: Node) -> bool:
    """1x1 with stride 1: rows follow each other in memory, so H and W are one axis."""
    anchor = required_anchor(kernel)
    return (
        _is_dense(kernel)
        and anchor.inputs[1].type.static_shape[2:4] == (1, 1)
        and anchor.attrs["strides"] == (1, 1)
    )


def _columns(kernel: Node, flatten: bool) -> int:
    _, _, oh, ow, _ = required_anchor(kernel).output.type.static_shape
    return oh * ow if flatten else ow


def accumulators(target: Target, channels: int, columns: int) -> bool:
    """True if a tile of `columns` by `channels` vectors leaves registers for its operands."""
    # AVX-512 multiplies straight by a broadcast from memory; others load it into a register.
    operands = channels + (0 if target.vector_bytes == 64 else 1)
    return columns * channels + operands <= target.vector_registers - 1


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `flatten`, `oc` (channel blocks in a tile), `ow` (columns in a tile), `parallel`."""
    flatten = (True, False) if _may_flatten(kernel) else (False,)
    blocks = required_anchor(kernel).output.type.static_shape[1]
    channels = tuple(u for u in (1, 2, 3, 4) if blocks % u == 0) if _is_dense(kernel) else (1,)
    columns = tile_candidates(_columns(kernel, flatten[0]), target.vector_registers - 3)
    return {"flatten": flatten, "oc": channels, "ow": columns, "parallel": (False, True)}


def pick(kernel: Node, target: Target) -> Choices:
    """The tile with the least wasted work, then the fewest loads for each multiply-add."""
    choices = options(kernel, target)
    flatten = choices["flatten"][0]
    extent = _columns(kernel, flatten)
    best, chosen = float("inf"), (1, 1)
    for channels in choices["oc"]:
        for columns in choices["ow"]:
            if not accumulators(target, channels, columns):
                continue
            cost = _tile_cost(target, extent, channels, columns)
            if cost < best:
                best, chosen = cost, (channels, columns)
    return {
        "flatten": flatten,
        "oc": chosen[0],
        "ow": chosen[1],
        "parallel": is_parallel(kernel, target),
    }


def _tile_cost(target: Target, extent: int, channels: int, columns: int) -> float:
    """Cycles for each useful multiply-add, from waste, loads and the latency of the adders."""
    tile = channels * columns
    loads = (channels + columns) / tile  # vectors and broadcasts for each multiply-add
    latency = max(1.0, 8.0 / tile)  # 4 cycles deep, two a cycle: fewer sums leave adders idle
    return padded_share(extent, columns) * latency * (1.0 + 0.25 * loads)


def _reduction_order(kernel: Node) -> list[str]:
    """Channels innermost: LLVM unrolls the innermost loop, and sharing overlapping columns
    between unrolled `kw` would keep more values alive than there are registers."""
    if not _is_dense(kernel):
        return ["kh", "kw"]
    if required_anchor(kernel).inputs[0].type.static_shape[-1] == 1:
        return ["kh", "kw", "ic", "ici"]
    return ["ic", "kh", "kw", "ici"]


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """n, oc.o, oh, ow (parallel) | ic, kh, kw, ici | oc.i, ow.i unrolled | oci vector."""
    flatten, dense = choices["flatten"], _is_dense(kernel)
    lead = ("n", "oc.o", "ow") if flatten else ("n", "oc.o", "oh", "ow")
    reduced = _reduction_order(kernel)
    outer, inner = (reduced, []) if dense else (reduced[:1], reduced[1:])
    steps: Steps = [
        ("split", "acc", "oc", choices["oc"], "oc.o", "oc.i"),
        ("reorder", "acc", (*lead, *outer, "ow.i", "oc.i", *inner, "oci")),
        ("fuse", "acc", lead, "task"),
        ("reverse_compute_at", "out", "acc", "task"),
        ("set_scope", "acc", "local"),
        ("vectorize", "out", "oci"),
        ("unroll", "out", "ow.i"),
        ("unroll", "out", "oc"),
    ]
    if choices["parallel"]:
        steps.append(("parallel", "acc", "task"))
    steps += [("vectorize", "acc", "oci"), ("unroll", "acc", "ow.i"), ("unroll", "acc", "oc.i")]
    if not dense:
        steps.append(("unroll", "acc", "kw"))  # neighbouring columns share their loads
    steps.append(("decompose_reduction", "acc", reduced[0]))
    steps += [
        ("vectorize", "acc.init", "oci"),
        ("unroll", "acc.init", "ow.i"),
        ("unroll", "acc.init", "oc.i"),
    ]
    return steps


SPACE = Space("conv", ("blocked_conv", "blocked_depthwise_conv"), options, pick, directives)
