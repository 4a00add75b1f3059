"""Winograd's convolution: patches transformed for many channels, a register tile of patches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from planish.autotune.analytic import L2_BYTES, Numbers, Work, again_from_l2, reads
from planish.autotune.spaces.register_tiles import keeps_broadcasts, written_out_registers
from planish.autotune.spaces.space import (
    Choices,
    Points,
    Space,
    Steps,
    finishing,
    moving,
    required_anchor,
    tile_candidates,
)
from planish.ir.graph import Node
from planish.ir.ops.winograd import INPUT_ADDITIONS, OUTPUT_ADDITIONS, PATCH, STEP, patches
from planish.ir.target import Target

#: Positions of a patch: each has products, sums and weights of its own.
_POSITIONS = PATCH * PATCH
#: Tiles whose patches are transformed together, at most.
_GROUPS = (1, 2, 4, 8, 16)


def _patches(kernel: Node) -> int:
    return patches(*required_anchor(kernel).output.type.static_shape[2:4])


def _blocks(kernel: Node) -> int:
    return required_anchor(kernel).output.type.static_shape[1]


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `p` (patches in a tile), `oc` (channel blocks in a tile), `group` (tiles that are
    transformed together, so that weights are read once for all of them), `share` (what cores take
    of the work: rows of patches, or channels, where each transforms all patches), `parallel`."""
    most = target.vector_registers - 3
    return {
        "p": tile_candidates(_patches(kernel), most),
        "oc": tuple(u for u in (1, 2, 3, 4) if _blocks(kernel) % u == 0),
        "group": _GROUPS,
        "share": ("rows", "channels"),
        "parallel": (False, True),
    }


def _legal(kernel: Node, target: Target, points: Points) -> np.ndarray:
    """No tile needs twice the registers there are; channels are shared evenly, and by cores."""
    fits = points["p"] * points["oc"] <= 2 * target.vector_registers
    even = (_blocks(kernel) // points["oc"]) % target.cores == 0
    return np.asarray(fits & ((points["share"] == "rows") | (points["parallel"] & even)))


def _group(count: int, most: int) -> int:
    """Tiles of a group: as many as allowed, and divide all."""
    return max(n for n in range(1, min(count, most) + 1) if count % n == 0)


def _work(kernel: Node, target: Target, points: Points) -> Work:
    anchor = required_anchor(kernel)
    x, u = (value.type for value in anchor.inputs[:2])
    batch, blocks, _, _, lanes = anchor.output.type.static_shape
    size, channels, cores = points["p"], points["oc"], float(target.cores)
    count = -(-_patches(kernel) // size)
    groups = count // np.vectorize(_group)(count, points["group"])
    again, depth = blocks // channels, x.static_shape[1]
    split = (points["share"] == "channels") & points["parallel"]
    tiles = batch * count * again
    # Loads and stores run beside the additions, as long as a tile's sums at all positions stay in
    # L1 until they are transformed. Cores that share channels transform each patch for itself.
    there = size * depth * INPUT_ADDITIONS * np.where(split, cores, 1.0) / again
    back = size * channels * (OUTPUT_ADDITIONS + STEP * STEP * finishing(kernel))
    sums = size * channels * _POSITIONS * lanes * x.dtype.itemsize
    back = back + again_from_l2(target, sums, 2) / L2_BYTES
    l2, l3 = _reads(anchor, target, points, count, groups)
    moved = moving(kernel, target)
    return Work(
        multiplies=size * channels,
        sums=size * channels,
        loads=size + channels,
        registers=written_out_registers(target, size, channels, u.static_shape[4]),
        steps=_POSITIONS * depth * u.static_shape[4],
        tiles=tiles,
        finish=there + back,
        l2=l2 + moved[0],
        l3=l3 + moved[1],
        shares=np.where(split, again, batch * groups),
        parallel=points["parallel"],
        vector_bytes=lanes * x.dtype.itemsize,
        foreign=np.where(split, float(x.nbytes), 0.0),
        common=np.where(split, 0.0, float(u.nbytes)),
    )


def _reads(
    anchor: Node, target: Target, points: Points, count: np.ndarray, groups: np.ndarray
) -> tuple[Numbers, Numbers]:
    """Bytes from L2 and L3: weights once for each group, panels and patches again for each tile."""
    x, u = (value.type for value in anchor.inputs[:2])
    batch, blocks = anchor.output.type.static_shape[:2]
    again = blocks // points["oc"]
    input_l2, input_l3 = reads(target, x.nbytes, 1)
    weight_l2, weight_l3 = reads(target, u.nbytes, batch * groups)
    panel = again_from_l2(target, u.nbytes / again, batch * (count - groups) * again)
    pixels = x.static_shape[0] * x.static_shape[2] * x.static_shape[3]
    patch = x.nbytes / pixels * _POSITIONS * points["p"]
    # A group's patches that outgrow L2 come from L3 again for each tile of channels.
    fits = patch * (count / groups) + np.where(groups < count, u.nbytes / again, 0.0)
    far = fits > 0.75 * target.l2
    near = again_from_l2(target, patch, batch * count * again)
    l2 = input_l2 + weight_l2 + panel + np.where(far, 0.0, near)
    return l2, input_l3 + weight_l3 + np.where(far, near, 0.0)


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """n, tiles (parallel) | v | oc.o, tiles of a group | acc: i, j, ic, ici, p, oc.i | out."""
    count, blocks = -(-_patches(kernel) // choices["p"]), _blocks(kernel) // choices["oc"]
    steps: Steps = [
        ("split", "out", "t", _group(count, choices["group"]), "t.o", "t.i"),
        ("split", "out", "oc", choices["oc"], "oc.o", "oc.i"),
    ]
    inside = ("oc.o", "t.i", "p", "oc.i", "i", "j", "oci")
    if choices["share"] == "channels":
        cores = math.gcd(blocks, target.cores)
        steps += [
            ("split", "out", "oc.o", blocks // cores, "core", "oc.o"),
            ("reorder", "out", ("n", "core", "t.o", *inside)),
            ("fuse", "out", ("n", "core"), "task"),
        ]
        group = "t.o"
    else:
        steps += [
            ("reorder", "out", ("n", "t.o", *inside)),
            ("fuse", "out", ("n", "t.o"), "task"),
        ]
        group = "task"
    steps += [
        ("compute_at", "acc", "out", "t.i"),
        ("compute_at", "v", "out", group),
        ("set_scope", "v", "local"),
        ("set_scope", "acc", "local"),
    ]
    if choices["parallel"]:
        steps.append(("parallel", "out", "task"))
    by_vectors = bool(keeps_broadcasts(target, choices["p"], choices["oc"]))
    return [*steps, *_transforms(), *_products(("oc", "p") if by_vectors else ("p", "oc"))]


def _transforms() -> Steps:
    """Each patch at once, in vectors of channels: its 16 loads and 32 additions are shared."""
    return [
        ("reorder", "v", ("n", "t", "p", "ic", "i", "j", "ici")),
        ("vectorize", "v", "ici"),
        *(("unroll", "v", axis) for axis in ("i", "j")),
        ("vectorize", "out", "oci"),
        *(("unroll", "out", axis) for axis in ("oc.i", "i", "j")),
    ]


def _products(tile: tuple[str, str]) -> Steps:
    """The inner loop is that of a direct convolution, over one stream of patches."""
    steps: Steps = [("reorder", "acc", ("n", "t", "i", "j", "ic", "ici", *tile, "oci"))]
    steps += _in_registers("acc")
    steps.append(("decompose_reduction", "acc", "ic"))
    return steps + _in_registers("acc.init")


def _in_registers(stage: str) -> Steps:
    return [("vectorize", stage, "oci"), ("unroll", stage, "p"), ("unroll", stage, "oc")]


SPACE = Space(
    "winograd",
    ("winograd_conv",),
    options,
    None,
    directives,
    version=2,
    legal=_legal,
    work=_work,
)
