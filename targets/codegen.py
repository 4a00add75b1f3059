"""Scheduled functions to one object file with plain C functions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import tvm
from tvm import s_tir, tirx
from tvm_ffi.structural import structural_map, structural_walk

from planish.ir.target import Target
from planish.targets.bindings import store_bindings
from planish.targets.expressions.opaque import reveal
from planish.targets.feature_use import allowed, element_families, forbidden, is_gated, used
from planish.targets.lowering import LoweredKernel
from planish.targets.row_loops import fetch_rows_ahead, store_rows_together

#: Bytes of buffers that one function may keep on the stack; the largest beyond come from the
#: runtime. The caller's thread runs kernels too, and the header promises it to need 64 KiB at most.
STACK_BYTES = 40 * 1024


def tvm_target(target: Target) -> tvm.target.Target:
    """TVM's description of a target: generic CPU, every feature spelled out."""
    return tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": target.triple,
            "mcpu": target.cpu,
            "mattr": [
                *(f"+{feature}" for feature in target.features),
                *(f"-{feature}" for feature in forbidden(target)),
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class ObjectCode:
    """A relocatable object, and the features of the target that its instructions need."""

    code: bytes
    features: tuple[str, ...]


def build_object(kernels: Mapping[str, LoweredKernel], target: Target) -> ObjectCode:
    """Compile kernels (symbol → scheduled function) into one relocatable object.

    Each becomes `int32_t SYMBOL(void *…)` over the data pointers of its parameters. TVM's packed
    calling convention is left out: its argument checks cost more than a small kernel.
    """
    given = _given(kernels, target)
    module = _built(kernels, given)
    features = given.features
    if is_gated(given):
        features = used(given, str(module.inspect_source("asm")))
    return ObjectCode(_object_bytes(module), features)


def build_assembly(kernels: Mapping[str, LoweredKernel], target: Target) -> str:
    """The same code as text, in LLVM's syntax for the target's assembler."""
    return str(_built(kernels, _given(kernels, target)).inspect_source("asm"))


def _given(kernels: Mapping[str, LoweredKernel], target: Target) -> Target:
    """The target with the features that LLVM may use for these kernels."""
    families = frozenset[str]().union(*(element_families(k.func) for k in kernels.values()))
    return allowed(target, families)


def _object_bytes(module: tvm.runtime.Module) -> bytes:
    """The module as an object file, by way of memory: on a full disk LLVM would end the process."""
    descriptor = os.memfd_create("kernels.o", os.MFD_CLOEXEC)
    with open(descriptor, "rb") as file:
        module.write_to_file(f"/proc/self/fd/{descriptor}", "o")
        return file.read()


def build_llvm(kernels: Mapping[str, LoweredKernel], target: Target) -> str:
    """The same code as LLVM's intermediate representation, optimised."""
    return str(_built(kernels, _given(kernels, target)).inspect_source("ll"))


def print_tir(kernels: Mapping[str, LoweredKernel], target: Target) -> str:
    """The scheduled functions as TVMScript, before anything is made of them for the target."""
    del target
    named = {name: k.func.with_attr("global_symbol", name) for name, k in kernels.items()}
    return str(tvm.IRModule(named).script())


def _built(kernels: Mapping[str, LoweredKernel], target: Target) -> tvm.runtime.Module:
    described = tvm_target(target)
    named = {name: k.func.with_attr("global_symbol", name) for name, k in kernels.items()}
    module = tirx.transform.BindTarget(described)(tvm.IRModule(named))
    module = _block_passes()(module)
    loops = {}
    for var, func in module.functions.items():
        kernel = kernels[var.name_hint]
        if kernel.ahead:
            func = fetch_rows_ahead(func)
        if kernel.together:
            func = store_rows_together(func)
        placed = kernel.placement.apply(func)
        loops[var] = placed.with_body(store_bindings(placed.body))
    module = _loop_passes()(tvm.IRModule(loops))
    plain = {
        var: _plain_signature(func, kernels[var.name_hint].overwrites)
        for var, func in module.functions.items()
    }
    module = tirx.transform.LowerTVMBuiltin()(tvm.IRModule(plain))
    plain = {var: func.with_body(reveal(func.body)) for var, func in module.functions.items()}
    module = tirx.transform.LowerIntrin()(tvm.IRModule(plain))
    return tvm.get_global_func("target.build.llvm")(module, described)


def _block_passes() -> tvm.ir.transform.Pass:
    """From schedulable blocks to plain loops."""
    s, t = s_tir.transform, tirx.transform
    return tvm.ir.transform.Sequential(
        [
            s.CanonicalizeLoop(),
            s.LowerInitBlock(),
            s.PlanAndUpdateBufferAllocationLocation(),
            s.ConvertBlocksToOpaque(),
            s.CompactBufferAllocation(),
            s.LowerMatchBuffer(),
            t.StmtSimplify(),
            s.LowerOpaqueBlock(),
        ]
    )


def _loop_passes() -> tvm.ir.transform.Pass:
    """Flat buffers, vectors, unrolled loops."""
    s, t = s_tir.transform, tirx.transform
    return tvm.ir.transform.Sequential(
        [
            t.FlattenBuffer(),
            t.BF16ComputeLegalize(),
            t.NarrowDataType(32),
            s.LoopPartition(),
            t.ConvertSSA(),  # copies of a guarded value bind the same variables
            t.VectorizeLoop(),
            t.StorageRewrite(),
            s.HoistIfThenElse(),
            t.UnrollLoop(),
            t.ConvertSSA(),
            t.StmtSimplify(),
            t.RemoveNoOp(),
            s.RewriteUnsafeSelect(),
        ]
    )


def _plain_signature(func: tirx.PrimFunc, overwrites: int | None) -> tirx.PrimFunc:
    """The function over raw pointers, returning 0.

    Where the result takes the memory of the parameter `overwrites`, both are reached through the
    result's pointer: that no two pointers alias is then true of those that are used.
    """
    zero = tirx.const(0, "int32")
    body = _keep_on_stack(func.body)
    pointers = [
        tirx.Var(f"{buffer.name}_data", tirx.buffer_data_pointer_type(buffer))
        for buffer in func.params
    ]
    declared = []
    for number, buffer in enumerate(func.params):
        data = pointers[-1 if number == overwrites else number]
        declared.append(tirx.DeclBuffer(buffer, data=data))
        body = tirx.AttrStmt(buffer, "storage_alignment", tirx.const(64, "int32"), body)
    body = tirx.AttrStmt(zero, "device_id", zero, body)
    body = tirx.AttrStmt(zero, "device_type", tirx.const(1, "int32"), body)  # kDLCPU
    sequence = tirx.SeqStmt([*declared, body, tirx.Return(zero)])
    plain = tirx.PrimFunc(pointers, sequence, tvm.ir.PrimType("int32"), func.attrs)
    return plain.with_attr("tirx.noalias", True).with_attr("calling_conv", 0)


def _keep_on_stack(body: tirx.Stmt) -> tirx.Stmt:
    """TVM would ask the runtime for each buffer of 1 KiB; register tiles must be stack slots.

    The smallest buffers stay, as many as fit in STACK_BYTES together.
    """
    found: list[tirx.AllocBuffer] = []
    structural_walk(body, (tirx.AllocBuffer, found.append), order="pre")
    sizes = sorted(size for size in map(_bytes, found) if size is not None)
    fitting = [size for size, end in zip(sizes, accumulate(sizes)) if end <= STACK_BYTES]
    # Of several as large as the largest that fits, all stay or none.
    if len(fitting) < len(sizes):
        fitting = [size for size in fitting if size < sizes[len(fitting)]]
    largest = fitting[-1] if fitting else -1

    def keep(allocation: tirx.AllocBuffer) -> tirx.AllocBuffer:
        size = _bytes(allocation)
        if size is None or size > largest:
            return allocation
        told = {"disable_lower_builtin": tirx.IntImm("int32", 1)}
        return tirx.AllocBuffer(allocation.buffer, told)

    return structural_map(body, (tirx.AllocBuffer, keep))


def _bytes(allocation: tirx.AllocBuffer) -> int | None:
    """Size of a buffer; None if it is not fixed."""
    buffer = allocation.buffer
    size = 1
    for extent in buffer.shape:
        if not isinstance(extent, tirx.IntImm):
            return None
        size *= int(extent)
    lanes = tvm.DataType(str(buffer.dtype))
    return size * int(lanes.bits) * int(lanes.lanes) // 8
