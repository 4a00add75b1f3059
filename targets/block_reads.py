"""What a block says that it reads, where its expressions bind variables."""

from __future__ import annotations

from typing import Any

from tvm import ir, s_tir, tirx
from tvm_ffi.structural import structural_map, structural_walk


def with_known_reads(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """`func`, whose blocks read all of a tensor where the place depends on a bound variable.

    TVM takes the regions that a block reads from its expressions. What stands under a binding is
    out of scope there: the function would be ill-formed.
    """
    return func.with_body(structural_map(func.body, (s_tir.SBlock, _known)))


def _known(block: s_tir.SBlock) -> s_tir.SBlock:
    own = [axis.var for axis in block.iter_vars]
    reads = [_whole(region) if _is_bound(region, own) else region for region in block.reads]
    if all(new.same_as(old) for new, old in zip(reads, block.reads)):
        return block
    return s_tir.SBlock(
        block.iter_vars,
        reads,
        block.writes,
        block.name_hint,
        block.body,
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )


def _is_bound(region: ir.TensorRegion, own: list[Any]) -> bool:
    """True if the region depends on more than the block's axes, or binds variables itself."""
    found: list[Any] = []
    for extent in region.region:
        for expr in (extent.min, extent.extent):
            structural_walk(expr, (tirx.Let, found.append))
            structural_walk(expr, (tirx.Var, found.append))
    return not all(_is_known(node, own) for node in found)


def _is_known(node: Any, own: list[Any]) -> bool:
    """True for a block's axis, and for a tensor."""
    if isinstance(node, tirx.Let):
        return False
    return not isinstance(node.ty, ir.PrimType) or any(node.same_as(axis) for axis in own)


def _whole(region: ir.TensorRegion) -> ir.TensorRegion:
    everything = [ir.Range(0, extent) for extent in region.source.shape]
    return ir.TensorRegion(region.source, everything, region.ty)
