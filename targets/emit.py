"""A graph of scheduled kernels to object code, a call plan and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from planish.ir.cost import node_cost
from planish.ir.digest import digest
from planish.ir.errors import PlanishError, TargetError
from planish.ir.graph import Graph, Node, Value
from planish.ir.target import Target
from planish.passes.views import VIEWS
from planish.targets.codegen import build_object
from planish.targets.lowering import lower_kernel
from planish.targets.memory import MemoryPlan, plan_memory
from planish.targets.plan import Call, ModelPlan, TensorSpec, symbol_prefix

Progress = Callable[[str, int, int], None]

#: Kernels in one object file.
BATCH = 8


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """One call of the plan in the user's words: where it came from and what it costs."""

    name: str
    provenance: tuple[str, ...]
    ops: tuple[str, ...]
    flops: int
    bytes: int
    schedule: str


@dataclass(frozen=True, slots=True)
class Emitted:
    """What linking needs: the plan, object files, and weights as (offset, array)."""

    plan: ModelPlan
    objects: tuple[bytes, ...]
    weights: tuple[tuple[int, np.ndarray], ...]
    kernels: tuple[KernelInfo, ...]


def emit(graph: Graph, target: Target, name: str, *, progress: Progress | None = None) -> Emitted:
    """Compile every distinct kernel of `graph` and plan the calls.

    `progress(stage, done, total)` is told of each kernel. Raises TargetError or ScheduleError
    that names the ONNX nodes of a kernel that cannot be compiled.
    """
    kernels = [node for node in graph.nodes if node.op not in VIEWS and _writes(node)]
    symbols = _symbols(kernels)
    distinct = {symbols[node]: node for node in reversed(kernels)}
    memory = plan_memory(graph)
    plan = ModelPlan(
        name=symbol_prefix(name),
        inputs=tuple(_spec(value, value.name) for value in graph.inputs),
        outputs=tuple(_spec(v, n) for v, n in zip(graph.outputs, graph.output_names)),
        calls=tuple(_call(node, symbols[node], memory) for node in kernels),
        arena_bytes=memory.arena_bytes,
        weights_bytes=memory.weights_bytes,
        features=target.features,
    )
    objects = tuple(_objects(distinct, target, progress))
    return Emitted(plan, objects, memory.weights, tuple(_info(node) for node in kernels))


def _objects(
    kernels: Mapping[str, Node], target: Target, progress: Progress | None
) -> Iterator[bytes]:
    """Object files of a few kernels each, so that there is progress to tell of."""
    symbols = sorted(kernels)
    for begin in range(0, len(symbols), BATCH):
        if progress is not None:
            progress("compile", begin, len(symbols))
        yield _object({name: kernels[name] for name in symbols[begin : begin + BATCH]}, target)


def _object(kernels: Mapping[str, Node], target: Target) -> bytes:
    """One object file; an error of TVM's becomes one that names the kernel it is about."""
    try:
        return build_object({name: lower_kernel(node) for name, node in kernels.items()}, target)
    except PlanishError:
        raise
    except Exception as error:
        if len(kernels) > 1:
            for name, node in kernels.items():
                _object({name: node}, target)
        lines = str(error).strip().splitlines() or [repr(error)]
        where = ", ".join(node.where() for node in kernels.values())
        raise TargetError(
            f"TVM cannot compile {where}: {lines[-1].strip()}; please report this"
        ) from error


def _writes(kernel: Node) -> bool:
    """False for a kernel whose outputs have no elements: it is never called."""
    return any(value.type.elements for value in kernel.outputs)


def _symbols(kernels: list[Node]) -> dict[Node, str]:
    """A C name for each kernel; kernels that compute the same share one."""
    by_digest: dict[str, str] = {}
    symbols: dict[Node, str] = {}
    for node in kernels:
        if node.op != "kernel":
            raise TargetError(f"{node.where()} is outside every kernel; run the fuse pass first")
        key = digest(node.regions[0]) + node.attrs["schedule"].to_json()
        if key not in by_digest:
            by_digest[key] = f"k{len(by_digest)}_{symbol_prefix(node.attrs['name'])}"
        symbols[node] = by_digest[key]
    return symbols


def _spec(value: Value, name: str) -> TensorSpec:
    return TensorSpec(name, value.type.dtype.value, value.type.static_shape)


def _call(node: Node, symbol: str, memory: MemoryPlan) -> Call:
    args = tuple(memory.place(value) for value in (*node.inputs, *node.outputs))
    return Call(symbol, args, node.attrs["name"])


def _info(node: Node) -> KernelInfo:
    cost = node_cost(node)
    return KernelInfo(
        name=node.attrs["name"],
        provenance=node.provenance,
        ops=tuple(inner.op for inner in node.regions[0].nodes),
        flops=cost.flops,
        bytes=cost.bytes,
        schedule=node.attrs["schedule"].to_json(),
    )
