"""A graph of scheduled kernels to object code, a call plan and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np

from planish.ir.cost import node_cost
from planish.ir.digest import digest
from planish.ir.errors import PlanishError, TargetError
from planish.ir.graph import Graph, Node, Value
from planish.ir.target import Target
from planish.passes.views import VIEWS
from planish.targets.codegen import ObjectCode, build_object
from planish.targets.feature_use import element_families
from planish.targets.grouping import Launch, alone, launches
from planish.targets.lowering import LoweredKernel, lower_kernel
from planish.targets.memory import MemoryPlan, plan_memory
from planish.targets.plan import Call, Group, ModelPlan, TensorSpec, symbol_prefix

Progress = Callable[[str, int, int], None]
#: Spells lowered kernels for a target: see codegen.
Spell = Callable[[Mapping[str, LoweredKernel], Target], str]
Built = TypeVar("Built")

#: Kernels in one object file.
BATCH = 8


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """One call of the plan in the user's words: where it came from and what it costs.

    `lane` is (group, lane) for a call in a launch group.
    """

    name: str
    provenance: tuple[str, ...]
    ops: tuple[str, ...]
    flops: int
    bytes: int
    schedule: str
    lane: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Emitted:
    """What linking needs: the plan, object files, and weights as (offset, array)."""

    plan: ModelPlan
    objects: tuple[bytes, ...]
    weights: tuple[tuple[int, np.ndarray], ...]
    kernels: tuple[KernelInfo, ...]


def emit(
    graph: Graph,
    target: Target,
    name: str,
    *,
    progress: Progress | None = None,
    keep_subnormals: bool = False,
) -> Emitted:
    """Compile every distinct kernel of `graph` and plan the calls.

    `progress(stage, done, total)` is told of each kernel. Raises TargetError or ScheduleError
    that names the ONNX nodes of a kernel that cannot be compiled.
    """
    memory, order = _plan(graph, target)
    called = [kernel for launch in order for kernel in launch.kernels if _writes(kernel)]
    symbols = _symbols(called, memory)
    distinct = {symbols[node]: node for node in reversed(called)}
    groups = tuple(_groups(order))
    objects = tuple(_objects(distinct, memory.in_place, target, progress))
    plan = ModelPlan(
        name=symbol_prefix(name),
        inputs=tuple(_spec(value, value.name) for value in graph.inputs),
        outputs=tuple(_spec(v, n) for v, n in zip(graph.outputs, graph.output_names)),
        calls=tuple(_call(node, symbols[node], memory) for node in called),
        arena_bytes=memory.arena_bytes,
        weights_bytes=memory.weights_bytes,
        features=tuple(sorted({name for made in objects for name in made.features})),
        groups=groups,
        keep_subnormals=keep_subnormals,
    )
    lanes = _lanes(groups)
    kernels = tuple(_info(node, lanes.get(number)) for number, node in enumerate(called))
    return Emitted(plan, tuple(made.code for made in objects), memory.weights, kernels)


@dataclass(frozen=True, slots=True)
class KernelCode:
    """The code of one function of an artefact as text, and the kernels that call it."""

    symbol: str
    names: tuple[str, ...]
    onnx_nodes: tuple[str, ...]
    text: str


def kernel_code(
    graph: Graph, target: Target, spell: Spell, wanted: str = ""
) -> Iterator[KernelCode]:
    """The code of each distinct kernel of `graph`, in the order of the calls, spelled by a function
    of `targets.codegen`: `print_tir`, `build_llvm` or `build_assembly`.

    `wanted` is the name or symbol of a kernel, or an ONNX node that it computes; then there is code
    of those alone. Raises TargetError for what none is called, and otherwise what `emit` does.
    """
    memory, order = _plan(graph, target)
    called = [kernel for launch in order for kernel in launch.kernels if _writes(kernel)]
    by_symbol: dict[str, list[Node]] = {}
    for node, symbol in _symbols(called, memory).items():
        by_symbol.setdefault(symbol, []).append(node)
    chosen = {
        symbol: nodes
        for symbol, nodes in by_symbol.items()
        if not wanted
        or wanted == symbol
        or any(wanted in (node.attrs["name"], *node.provenance) for node in nodes)
    }
    if wanted and not chosen:
        known = ", ".join(dict.fromkeys(node.attrs["name"] for node in called)) or "none"
        raise TargetError(
            f"no kernel is called '{wanted}' or computes a node of that name; kernels are {known}"
        )
    for symbol, nodes in chosen.items():
        kernels = {symbol: nodes[0]}
        text = _tried(kernels, memory.in_place, lambda made: spell(made, target))
        names = tuple(dict.fromkeys(node.attrs["name"] for node in nodes))
        onnx_nodes = tuple(dict.fromkeys(name for node in nodes for name in node.provenance))
        yield KernelCode(symbol, names, onnx_nodes, text)


def _plan(graph: Graph, target: Target) -> tuple[MemoryPlan, list[Launch]]:
    """Places, and the order of the kernels: with groups unless these would take memory."""
    for node in graph.nodes:
        if node.op not in VIEWS and node.op != "kernel":
            raise TargetError(f"{node.where()} is outside every kernel; run the fuse pass first")
    wanted = launches(graph, target)
    steps = [launch.kernels for launch in wanted]
    if all(len(step) == 1 for step in steps):
        return plan_memory(graph), wanted
    memory = plan_memory(graph, steps)
    return memory, wanted if memory.steps is steps else alone(memory.steps)


def _groups(order: Iterable[Launch]) -> Iterator[Group]:
    """Where the lanes of each group are among the calls."""
    call = 0
    for launch in order:
        if len(launch.lanes) > 1:
            yield Group(tuple(accumulate(map(len, launch.lanes), initial=call)))
        call += sum(map(_writes, launch.kernels))


def _lanes(groups: Iterable[Group]) -> dict[int, tuple[int, int]]:
    """(group, lane) of each call that is in one."""
    return {
        call: (number, lane)
        for number, group in enumerate(groups)
        for lane, (begin, end) in enumerate(pairwise(group.begins))
        for call in range(begin, end)
    }


def _objects(
    kernels: Mapping[str, Node],
    in_place: Mapping[Node, int],
    target: Target,
    progress: Progress | None,
) -> Iterator[ObjectCode]:
    """Object files of a few kernels each, so that there is progress to tell of."""
    symbols = sorted(kernels)
    for begin in range(0, len(symbols), BATCH):
        if progress is not None:
            progress("compile", begin, len(symbols))
        batch = {name: kernels[name] for name in symbols[begin : begin + BATCH]}
        yield from _tried(batch, in_place, lambda lowered: _by_types(lowered, target))


def _by_types(kernels: Mapping[str, LoweredKernel], target: Target) -> list[ObjectCode]:
    """Object files, one for kernels of the same element types: these decide on CPU features."""
    groups: dict[tuple[str, ...], dict[str, LoweredKernel]] = {}
    for name, kernel in kernels.items():
        families = tuple(sorted(element_families(kernel.func)))
        groups.setdefault(families, {})[name] = kernel
    return [build_object(group, target) for group in groups.values()]


def _tried(
    kernels: Mapping[str, Node],
    in_place: Mapping[Node, int],
    build: Callable[[Mapping[str, LoweredKernel]], Built],
) -> Built:
    """What `build` makes of the lowered kernels; its errors name the kernel they are about."""
    try:
        lowered = {name: _lowered(node, in_place.get(node)) for name, node in kernels.items()}
        return build(lowered)
    except PlanishError:
        raise
    except Exception as error:
        if len(kernels) > 1:
            for name, node in kernels.items():
                _tried({name: node}, in_place, build)
        lines = str(error).strip().splitlines() or [repr(error)]
        where = ", ".join(node.where() for node in kernels.values())
        raise TargetError(
            f"TVM cannot compile {where}: {lines[-1].strip()}; please report this"
        ) from error


def _lowered(kernel: Node, overwrites: int | None) -> LoweredKernel:
    return replace(lower_kernel(kernel), overwrites=overwrites)


def _writes(kernel: Node) -> bool:
    """False for a kernel whose outputs have no elements: it is never called."""
    return any(value.type.elements for value in kernel.outputs)


def _symbols(kernels: Iterable[Node], memory: MemoryPlan) -> dict[Node, str]:
    """A C name for each kernel; kernels that compute the same, as much in place, share one."""
    by_digest: dict[str, str] = {}
    symbols: dict[Node, str] = {}
    for node in kernels:
        key = digest(node.regions[0]) + node.attrs["schedule"].to_json()
        key += str(memory.in_place.get(node, ""))
        if key not in by_digest:
            by_digest[key] = f"k{len(by_digest)}_{symbol_prefix(node.attrs['name'])}"
        symbols[node] = by_digest[key]
    return symbols


def _spec(value: Value, name: str) -> TensorSpec:
    return TensorSpec(name, value.type.dtype.value, value.type.static_shape)


def _call(node: Node, symbol: str, memory: MemoryPlan) -> Call:
    args = tuple(memory.place(value) for value in (*node.inputs, *node.outputs))
    return Call(symbol, args, node.attrs["name"])


def _info(node: Node, lane: tuple[int, int] | None) -> KernelInfo:
    cost = node_cost(node)
    return KernelInfo(
        name=node.attrs["name"],
        provenance=node.provenance,
        ops=tuple(inner.op for inner in node.regions[0].nodes),
        flops=cost.flops,
        bytes=cost.bytes,
        schedule=node.attrs["schedule"].to_json(),
        lane=lane,
    )
