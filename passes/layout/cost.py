"""The time model of layouts: cycles of one core, from bytes moved and arithmetic."""

from __future__ import annotations

import math

from planish.ir.cost import node_cost
from planish.ir.graph import Node, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.passes.layout.blocking import Blocking, is_depthwise, merged_groups
from planish.passes.layout.convolutions import depth_block, has_rows, holds_groups
from planish.passes.layout.packing import panel_width

#: Bytes a cycle between a core and the caches that tensors between kernels live in.
BYTES_PER_CYCLE = 8
#: The same of a kernel that only converts: it transposes vectors on the way.
_CONVERTED_PER_CYCLE = 4
#: Cycles until the threads of one more kernel have started and met again.
LAUNCH = 8192
#: A conversion that only gives memory another shape costs nothing; but none is better than one.
_VIEW = 1
#: Share of the peak that blocked convolutions and packed matmuls reach.
EFFICIENCY = 0.6
#: The same of plain convolutions along rows, which begin anywhere in a vector.
_ROWS_EFFICIENCY = 0.4
#: Multiply-adds a cycle of a convolution in plain layout without vectors: a sum waits for itself.
_SCALAR_RATE = 0.25
#: Sums in flight that hide the latency of one adder.
_ADDER_DEPTH = 4
#: Entering and leaving the loops over blocks and windows, which a product of a row has not.
_WINDOW_LOOPS = 64
#: A row of plain softmax is vectors; in blocks its elements lie a block apart.
_STRIDED_ROWS = 4
#: Windows and rows that begin anywhere cost plain kernels unaligned loads and scalar tails.
_PLAIN_WINDOWS = 2


class Costs:
    """What ops and conversions cost in cycles, in either layout."""

    def __init__(self, target: Target, blocking: Blocking) -> None:
        self.target = target
        self.blocking = blocking

    def conversion(self, value: Value, *, to_plain: bool) -> int:
        """A conversion of its own: the tensor read in one layout and written in the other."""
        if self.blocking.is_renaming(value) or (to_plain and self.blocking.is_beginning(value)):
            return _VIEW
        moved = value.type.nbytes + self.blocking.nbytes(value)
        return LAUNCH + moved // _CONVERTED_PER_CYCLE

    def extra_kernel(self, value: Value) -> int:
        """A kernel more: its launch, and a tensor written and read that would be in registers."""
        return LAUNCH + 2 * value.type.nbytes // BYTES_PER_CYCLE

    def absorbed_conversion(self, value: Value) -> int:
        """A conversion inside a kernel that moves the tensor anyway: its strides are worse."""
        if self.blocking.is_renaming(value):
            return _VIEW
        return _VIEW + value.type.nbytes // (4 * BYTES_PER_CYCLE)

    def plain_conv(self, node: Node) -> int:
        """A convolution in plain layout: vectors along rows of pixels, if its channels are few."""
        work = node_cost(node).flops // 2
        columns = node.output.type.static_shape[-1]
        beside = node.output.type.static_shape[1] // node.attrs["groups"]
        if not has_rows(node):
            return int(work / _SCALAR_RATE)
        vector = min(self.target.lanes(4), 1 << (columns.bit_length() - 1))
        vectors = -(-columns // vector)
        # Unaligned rows are two loads for all channels beside each other.
        loads = 1 / vectors + 2 / beside
        surplus = self.target.lanes(4) * vectors / columns
        slower = EFFICIENCY / _ROWS_EFFICIENCY * (1 + loads / 4)
        return int(self._at_peak(work, beside * vectors) * surplus * slower)

    def matmul(self, node: Node) -> int:
        """A convolution with one output pixel as a product with packed panels."""
        rows, columns = node.output.type.static_shape[:2]
        panel = panel_width(columns, self.target.lanes(4))
        depth = node.inputs[1].type.elements // columns
        work = rows * -(-columns // panel) * panel * depth
        return self._at_peak(work, -(-panel // self.target.lanes(4)) * rows)

    def blocked_conv(self, node: Node) -> int:
        """A convolution on blocks: surplus channels are computed as well."""
        x, w, out = *node.inputs, node.output
        block = self.blocking.block_of(out)
        pixels = out.type.elements // out.type.static_shape[1]
        taps = math.prod(w.type.static_shape[2:])
        if is_depthwise(node):
            return self._at_peak(pixels * self.blocking.blocks(out) * block * taps, pixels)
        blocks, groups = self.blocking.blocks(out), merged_groups(node, block)
        if groups > 1:
            blocks = groups * -(-out.type.static_shape[1] // (groups * block))
        depth = x.type.static_shape[1] // groups
        inner = self.blocking.block_of(x)
        if depth_block(depth, inner) == inner or self.blocking.segments(x) > 1 == groups:
            depth = -(-depth // inner) * inner
        sums = math.gcd(blocks // groups, 4) * out.type.static_shape[-1]
        cycles = self._at_peak(pixels * blocks * block * depth * taps, sums)
        if node.attrs["groups"] > 1:
            for value in (x, out):
                if not holds_groups(value, groups, self.blocking):
                    cycles += self.conversion(value, to_plain=value is out)
        return cycles + _WINDOW_LOOPS

    def _at_peak(self, work: int, sums: int) -> int:
        """Cycles of `work` multiply-adds in vectors, so many sums of them at a time."""
        units = self.target.fma_per_cycle
        busy = min(1.0, sums / (_ADDER_DEPTH * units))
        return int(work / (self.target.lanes(4) * units * busy * EFFICIENCY))

    def plain(self, node: Node) -> int:
        """Any other op in plain layout."""
        work = node_cost(node).flops // self.target.lanes(4)
        elementwise = op_def(node.op).kind is OpKind.ELEMENTWISE
        return work if elementwise or "softmax" in node.op else _PLAIN_WINDOWS * work

    def blocked(self, node: Node, *, is_epilogue: bool) -> int:
        """Any other op on blocks: more arithmetic, and more bytes, for surplus channels.

        An epilogue moves no more than the anchor, which writes surplus channels anyway.
        """
        out = node.output
        work = node_cost(node).flops // self.target.lanes(4)
        if "softmax" in node.op:
            work *= _STRIDED_ROWS
        if out.type.rank < 3:
            return work
        padded = self.blocking.nbytes(out)
        surplus = 0 if is_epilogue else padded - out.type.nbytes
        return work * padded // max(1, out.type.nbytes) + 2 * surplus // BYTES_PER_CYCLE
