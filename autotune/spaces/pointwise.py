"""Kernels of element-wise ops and movement: flat or row loops, vector innermost.

Where a kernel only permutes and source and result have other innermost dimensions: register tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planish.autotune.spaces.space import Choices, Space, Steps, is_parallel, widest_vector
from planish.ir.graph import Node
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.fuse import inner_root, is_padded
from planish.passes.local.permutation import permutation, turned

#: Movement ops that choose between sources by index: a vector of them would become lane by lane
#: code, while LLVM unrolls the scalar loop well.
_BRANCHING = frozenset(("concat", "pad", "gather", "gather_elements", "gather_nd"))


def _is_flat(kernel: Node) -> bool:
    """True if every tensor is read in the order in which it lies in memory."""
    (body,) = kernel.regions
    shape = kernel.output.type.shape
    if is_padded(body):
        return False
    return all(
        op_def(node.op).kind is OpKind.ELEMENTWISE or node.op == "reshape" for node in body.nodes
    ) and all(value.type.shape == shape or value.type.elements == 1 for value in body.inputs)


def _innermost(kernel: Node) -> int:
    """The last axis of the result that has more than one element."""
    shape = inner_root(kernel.regions[0]).type.static_shape
    return max((d for d, n in enumerate(shape) if n > 1), default=max(0, len(shape) - 1))


def _is_vectorizable(kernel: Node) -> bool:
    """True if a vector of the last axis is read from one place in each source."""
    (body,) = kernel.regions
    behind = kernel.output.type.rank - 1 - _innermost(kernel)  # axes of one element after it
    for node in body.nodes:
        last = node.output.type.rank - 1 - behind
        if node.output is body.outputs[0] and is_padded(body):
            continue
        if node.op == "pad" and not (node.attrs["before"][last] or node.attrs["after"][last]):
            continue
        if node.op == "concat" and node.attrs["axis"] % node.output.type.rank != last:
            continue
        if node.op == "gather" and node.attrs["axis"] % node.inputs[0].type.rank != (
            node.inputs[0].type.rank - 1 - behind
        ):
            continue
        if node.op in _BRANCHING or node.op in ("pack", "unpack", "reshape"):
            return False
        if node.op == "transpose" and node.attrs["perm"][last] != last:
            return False
    return True


def _lanes(kernel: Node, target: Target) -> int:
    sizes = [node.output.type.dtype.itemsize for node in kernel.regions[0].nodes]
    return target.lanes(max(sizes))


def _tiles(kernel: Node, target: Target) -> tuple[int, ...]:
    """Sizes of square register tiles that turn the source's innermost digit; none if none does."""
    digits = permutation(kernel.regions[0])
    column = turned(digits) if digits else None
    if not digits or column is None:
        return ()
    most = min(_lanes(kernel, target), column.extent, digits[-1].extent)
    return tuple(size for size in (4, 8, 16) if size <= most)


def options(kernel: Node, target: Target) -> Mapping[str, tuple[Any, ...]]:
    """Choices: `flat` (one loop), `vector` (lanes), `tile` (0, or the size of register tiles, which
    take the place of both), `parallel`."""
    lanes = _lanes(kernel, target)
    vectors = tuple(v for v in (1, 4, 8, 16, 32) if v <= 2 * lanes)
    return {
        "flat": (False, True),
        "vector": vectors,
        "tile": (0, *_tiles(kernel, target)),
        "parallel": (False, True),
    }


def pick(kernel: Node, target: Target) -> Choices:
    """Register tiles or flat where possible; the widest vector that leaves no tail."""
    shape = inner_root(kernel.regions[0]).type.static_shape
    flat = _is_flat(kernel)
    vector = 1
    if flat:
        vector = widest_vector(kernel.output.type.elements, _lanes(kernel, target))
    elif shape and _is_vectorizable(kernel):
        vector = widest_vector(shape[_innermost(kernel)], _lanes(kernel, target))
    return {
        "flat": flat,
        "vector": vector,
        "tile": max(_tiles(kernel, target), default=0),
        "parallel": is_parallel(kernel, target),
    }


def directives(kernel: Node, target: Target, choices: Choices) -> Steps:
    """out: (all but the last axis) parallel | last axis in vectors; trailing ones left out."""
    if choices["tile"]:
        return []
    rank = max(1, kernel.output.type.rank)
    axes = tuple(f"d{i}" for i in range(rank if choices["flat"] else _innermost(kernel) + 1))
    steps: Steps = []
    if choices["flat"] and rank > 1:
        steps.append(("fuse", "out", axes, "i"))
        axes = ("i",)
    last, outer = axes[-1], list(axes[:-1])
    if choices["vector"] > 1:
        steps.append(("split", "out", last, choices["vector"], f"{last}.o", f"{last}.v"))
        steps.append(("vectorize", "out", f"{last}.v"))
        if choices["flat"] or not outer:
            outer.append(f"{last}.o")
    elif not outer:
        outer = [last]
    if choices["parallel"]:
        if len(outer) > 1:
            steps.append(("fuse", "out", tuple(outer), "task"))
        steps.append(("parallel", "out", "task" if len(outer) > 1 else outer[0]))
    return steps


def emitter(choices: Choices) -> str | None:
    """Register tiles are written by an emitter."""
    return "permute" if choices["tile"] else None


SPACE = Space("pointwise", (), options, pick, directives, version=2, emitter=emitter)
