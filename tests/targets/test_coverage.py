"""Every op of the table is lowered, or it is known what becomes of it before."""

from __future__ import annotations

from planish.ir.op import OpKind
from planish.ir.ops import OPS
from planish.passes.pipeline import PIPELINE
from planish.targets.lowering import LOWERED

#: Ops that no kernel holds, and the pass of the pipeline that replaces them.
REPLACED = {
    "batch_norm": "fold_batch_norm",
    "conv_transpose": "lower_conv_transpose",
    "resize": "lower_resize",
}

#: Ops that hold graphs: `kernel` is what is lowered; the others are refused (docs/unsupported.md).
REGIONS = {"if", "loop", "scan", "kernel"}


def test_every_op_is_lowered_or_replaced() -> None:
    missing = OPS.keys() - LOWERED - REPLACED.keys() - REGIONS
    assert not missing, f"ops without a lowering in planish.targets: {sorted(missing)}"


def test_no_op_is_listed_twice_or_without_need() -> None:
    lists = (LOWERED, REPLACED.keys(), REGIONS)
    assert sum(map(len, lists)) == len(OPS)
    assert not LOWERED & REPLACED.keys()
    assert frozenset(op for op, d in OPS.items() if d.kind is OpKind.REGION) == REGIONS
    for names in lists:
        assert names <= OPS.keys(), f"no such ops: {sorted(names - OPS.keys())}"


def test_replacing_passes_run() -> None:
    assert set(REPLACED.values()) <= {step.name for step in PIPELINE}
