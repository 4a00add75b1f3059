"""Local passes extend a kernel's schedule, and refuse with a reason what is not legal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from planish.ir.builder import emit
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Input, Node
from planish.ir.schedule import Schedule
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes import local
from planish.passes.fuse import fuse
from planish.passes.local import loop_nest
from planish.passes.rewrite import Refusal

TARGET = Target("test", "x86_64", "x86_64-linux-gnu", "", (), 32, 16, 32768, 1 << 20, 1 << 24, 2)


def _kernel(op: str, *shapes: tuple[int, ...], choices: dict[str, object], **attrs: object) -> Node:
    inputs = tuple(Input(tensor("float32", s), f"x{i}") for i, s in enumerate(shapes))
    value = emit("relu", emit(op, *inputs, provenance=("Node_0",), **attrs))
    (kernel,) = fuse(Graph(inputs, (value,)), TARGET).nodes
    return local.with_schedule(kernel, Schedule.of("test", choices.items()))


MATMUL = _kernel("matmul", (12, 20), (20, 24), choices={"m": 4, "chunk": 20})
SOFTMAX = _kernel("softmax", (6, 5, 32), choices={"lanes": 8}, axis=2)
POOL = _kernel(
    "pool", (1, 4, 9, 9), choices={}, kind="max", window=(1, 1, 3, 3), strides=(1, 1, 1, 1),
    dilations=(1,) * 4, before=(0,) * 4, after=(0,) * 4,
)  # fmt: skip


def _shown(kernel: Node) -> list[str]:
    """Stages with loops and extents; ‖parallel‖, |vectorized|, unrolled*, (reduced)."""
    marks = {"serial": "{}", "parallel": "‖{}‖", "vectorized": "|{}|", "unrolled": "{}*"}
    lines = []
    for stage in loop_nest(kernel).stages.values():
        loops = [
            marks[loop.kind].format(f"({loop.name})" if loop.reduced else loop.name)
            + f":{loop.extent}"
            for loop in stage.loops
        ]
        place = f" @{stage.place.stage}.{stage.place.axis}" if stage.place else ""
        scope = " local" if stage.scope == "local" else ""
        lines.append(f"{stage.name}{place}{scope}: {' '.join(loops)}")
    return lines


def _then(kernel: Node, *steps: Callable[[Node], Node]) -> Node:
    for step in steps:
        kernel = step(kernel)
    return kernel


def test_a_register_tile_of_a_matmul() -> None:
    """The default schedule's shape, written by hand."""
    kernel = _then(
        MATMUL,
        lambda k: local.split(k, "acc", "n", 8, "n.o", "n.v"),
        lambda k: local.reorder(k, "acc", ["m", "n.o", "k", "m.i", "n.v"]),
        lambda k: local.fuse(k, "acc", ["m", "n.o"], "task"),
        lambda k: local.reverse_compute_at(k, "out", "acc", "task"),
        lambda k: local.set_scope(k, "acc", "local"),
        lambda k: local.vectorize(k, "out", "n"),
        lambda k: local.parallelize(k, "acc", "task"),
        lambda k: local.vectorize(k, "acc", "n.v"),
        lambda k: local.unroll(k, "acc", "m.i"),
        lambda k: local.decompose_reduction(k, "acc", "k"),
    )
    assert _shown(kernel) == [
        "acc local: ‖task‖:9 (k):20 m.i*:4 |n.v|:8",
        "out @acc.task: m:1 m.i:4 |n|:8",
        "acc.init @acc.task local: m.i*:4 |n.v|:8",
    ]
    assert [step.name for step in kernel.attrs["schedule"].directives][:2] == ["split", "reorder"]
    assert MATMUL.attrs["schedule"].directives == ()
    assert _shown(local.unscheduled(kernel)) == _shown(MATMUL)


def test_stages_of_rows_under_one_loop() -> None:
    kernel = local.fuse(SOFTMAX, "out", ["d0", "d1"])
    for stage in ("sum", "sum_2", "sum_part", "exp", "max", "max_2", "max_part"):
        kernel = local.compute_at(kernel, stage, "out", "d0_d1")
    kernel = local.reorder(kernel, "max_part", ["ko", "lane"])
    kernel = local.vectorize(kernel, "max_part", "lane")
    kernel = local.vectorize(kernel, "exp", "k", lanes=8)
    assert _shown(kernel) == [
        "max_part @out.d0_d1: d0:1 d1:1 (ko):4 |lane|:8",
        "max_2 @out.d0_d1: d0:1 d1:1 lane:2",
        "max @out.d0_d1: d0:1 d1:1",
        "exp @out.d0_d1: d0:1 d1:1 k.o:4 |k.v|:8",
        "sum_part @out.d0_d1: d0:1 d1:1 lane:8 (ko):4",
        "sum_2 @out.d0_d1: d0:1 d1:1 lane:2",
        "sum @out.d0_d1: d0:1 d1:1",
        "out: d0_d1:30 d2:32",
    ]


def test_tile_and_inline() -> None:
    tiled = local.tile(MATMUL, "acc", {"n": 8, "k": 5})
    assert _shown(tiled)[0] == "acc: m:3 m.i:4 n.o:3 (k.o):4 n.i:8 (k.i):5"
    inlined = local.inline(SOFTMAX, "exp")
    assert not [line for line in _shown(inlined) if line.startswith("exp")]
    assert loop_nest(inlined).stages["out"].reads.keys() == {"max", "sum"}


def test_loops_of_one_step_may_lie_inside_a_vector() -> None:
    x = Input(tensor("float32", (3, 6, 16, 1)), "x")
    (kernel,) = fuse(Graph((x,), (emit("relu", x),)), TARGET).nodes
    kernel = local.with_schedule(kernel, Schedule.of("test", ()))
    kernel = local.vectorize(kernel, "out", "d2")
    kernel = local.reorder(kernel, "out", ["d1", "d0"])
    assert _shown(kernel) == ["out: d1:6 d0:3 |d2|:16 d3:1"]
    with pytest.raises(ScheduleError, match="the vector loop 'd2' must stay innermost"):
        local.reorder(kernel, "out", ["d2", "d0"])


def test_a_refusal_as_a_value() -> None:
    refused = local.scheduled(MATMUL, lambda k: local.vectorize(k, "acc", "k"))
    assert isinstance(refused, Refusal)
    assert "'k' is a reduction loop" in refused.reason
    plan = local.scheduled(MATMUL, lambda k: local.parallelize(k, "acc", "m"))
    assert isinstance(plan, Schedule)
    assert str(plan.directives[0]) == "parallel(acc, m)"


def _reduced_outside(kernel: Node) -> Node:
    return local.reorder(kernel, "acc", ["k", "m", "m.i", "n"])


def _decomposed(kernel: Node) -> Node:
    return local.decompose_reduction(kernel, "acc", "k")


REFUSALS: dict[str, tuple[Node, Callable[[Node], Node], str]] = {
    "unknown stage": (
        MATMUL, lambda k: local.unroll(k, "acc2", "m"), "no stage 'acc2'; there are acc, out"
    ),
    "unknown axis": (
        MATMUL,
        lambda k: local.unroll(k, "acc", "x"),
        "stage 'acc' has no loop 'x'; it has m, m.i, n, k",
    ),
    "large factor": (
        MATMUL, lambda k: local.split(k, "acc", "m", 5), "factor 5 exceeds the 3 steps of 'm'"
    ),
    "negative factor": (
        MATMUL, lambda k: local.split(k, "acc", "m", 0), "the factor must be positive, got 0"
    ),
    "name taken": (
        MATMUL, lambda k: local.split(k, "acc", "n", 8, "k", "n"), "has a loop 'k' already"
    ),
    "one name twice": (
        MATMUL, lambda k: local.split(k, "acc", "n", 8, "a", "a"), "has a loop 'a' already"
    ),
    "tile with a rest": (
        MATMUL, lambda k: local.tile(k, "acc", {"n": 7}), "tiles of 7 do not divide the 24 steps"
    ),
    "fuse apart": (
        MATMUL, lambda k: local.fuse(k, "acc", ["m", "n"]), "m, n do not follow each other"
    ),
    "fuse backwards": (
        MATMUL, lambda k: local.fuse(k, "acc", ["m.i", "m"]), "m.i, m do not follow each other"
    ),
    "fuse with a reduction": (
        MATMUL, lambda k: local.fuse(k, "acc", ["n", "k"]), "a reduction loop cannot be fused"
    ),
    "fuse around a stage": (
        local.compute_at(MATMUL, "acc", "out", "m"),
        lambda k: local.fuse(k, "out", ["m", "m.i"]),
        "stage 'acc' is computed under the loop 'm'",
    ),
    "reorder twice": (
        MATMUL, lambda k: local.reorder(k, "acc", ["m", "k", "m"]), "a loop is named twice"
    ),
    "reorder a vector": (
        local.vectorize(MATMUL, "out", "n"),
        lambda k: local.reorder(k, "out", ["n", "m"]),
        "the vector loop 'n' must stay innermost",
    ),
    "vector of a sum": (
        MATMUL, lambda k: local.vectorize(k, "acc", "k"), "its iterations add to one element"
    ),
    "vector outside": (
        MATMUL,
        lambda k: local.vectorize(k, "out", "m"),
        "'m' is not the innermost loop, which is 'n'",
    ),
    "vector with a rest": (
        MATMUL, lambda k: local.vectorize(k, "out", "n", lanes=16), "vectors of 16 do not divide 24"
    ),
    "vector with a guard": (
        local.split(MATMUL, "out", "n", 16),
        lambda k: local.vectorize(k, "out", "n.i"),
        "'n.i' comes from a factor that leaves a remainder",
    ),
    "vector twice": (
        local.vectorize(MATMUL, "out", "n"),
        lambda k: local.split(k, "out", "n", 8),
        "loop 'n' is vectorized already",
    ),
    "parallel sum": (
        MATMUL, lambda k: local.parallelize(k, "acc", "k"), "its iterations add to one element"
    ),
    "parallel inside parallel": (
        local.parallelize(MATMUL, "out", "m"),
        lambda k: local.parallelize(k, "out", "m.i"),
        "the loop 'm' around or inside it is parallel already",
    ),
    "parallel around parallel": (
        local.parallelize(local.compute_at(MATMUL, "acc", "out", "m"), "acc", "n"),
        lambda k: local.parallelize(k, "out", "m"),
        "the loop 'n' around or inside it is parallel already",
    ),
    "unrolled twice": (
        local.parallelize(MATMUL, "acc", "n"),
        lambda k: local.unroll(k, "acc", "n"),
        "loop 'n' is parallel already",
    ),
    "long unroll": (
        local.fuse(SOFTMAX, "out", ["d1", "d2"]),
        lambda k: local.unroll(k, "out", "d1_d2"),
        "'d1_d2' has 160 steps, at most 64",
    ),
    "inline a sum": (MATMUL, lambda k: local.inline(k, "acc"), "'acc' is a reduction"),
    "inline the result": (MATMUL, lambda k: local.inline(k, "out"), "no stage reads 'out'"),
    "compute the result at": (
        MATMUL, lambda k: local.compute_at(k, "out", "acc", "m"), "no stage reads 'out'"
    ),
    "compute at itself": (
        MATMUL, lambda k: local.compute_at(k, "acc", "acc", "m"), "under its own loop"
    ),
    "reader elsewhere": (
        SOFTMAX,
        lambda k: local.compute_at(k, "exp", "out", "d0"),
        "'sum_part' reads 'exp', but is not computed under that loop",
    ),
    "move twice": (
        local.compute_at(MATMUL, "acc", "out", "m"),
        lambda k: local.compute_at(k, "acc", "out", "m.i"),
        "'acc' is computed under another loop already",
    ),
    "move too late": (
        local.unroll(MATMUL, "acc", "m"),
        lambda k: local.compute_at(k, "acc", "out", "m"),
        "the loops of 'acc' are scheduled already; move it first",
    ),
    "under a vector": (
        local.vectorize(MATMUL, "out", "n"),
        lambda k: local.compute_at(k, "acc", "out", "n"),
        "'n' is a vector loop",
    ),
    "result not complete": (
        _reduced_outside(MATMUL),
        lambda k: local.reverse_compute_at(k, "out", "acc", "m"),
        "'acc' is complete only after its loop 'k'",
    ),
    "reverse without reading": (
        SOFTMAX,
        lambda k: local.reverse_compute_at(k, "out", "max", "d0"),
        "'out' does not read 'max'",
    ),
    "reverse with other sources": (
        SOFTMAX,
        lambda k: local.reverse_compute_at(k, "out", "exp", "d0"),
        "'out' reads 'sum' too, which is not computed under that loop",
    ),
    "inline partial results": (
        SOFTMAX,
        lambda k: local.inline(k, "max_2"),
        "'max_2' has partial results, each of them read once more",
    ),
    "reverse needs all": (
        SOFTMAX,
        lambda k: local.reverse_compute_at(k, "max_2", "max_part", "lane"),
        "'max_2' needs all of axis 'lane' of 'max_part' at once",
    ),
    "scope": (
        MATMUL,
        lambda k: local.set_scope(k, "acc", "shared"),
        "no scope 'shared'; there are global, local",
    ),
    "scope of the result": (
        MATMUL, lambda k: local.set_scope(k, "out", "local"), "not a buffer of the kernel's own"
    ),
    "large local buffer": (
        _kernel("matmul", (256, 8), (8, 256), choices={"m": 4, "chunk": 8}),
        lambda k: local.set_scope(k, "acc", "local"),
        "'acc' holds 262144 bytes at once, at most 65536 can be local",
    ),
    "decompose no reduction": (
        POOL, lambda k: local.decompose_reduction(k, "out", "d0"), "'out' is not a reduction"
    ),
    "decompose twice": (_decomposed(MATMUL), _decomposed, "'acc' is decomposed already"),
    "decompose inside": (
        _reduced_outside(MATMUL),
        lambda k: local.decompose_reduction(k, "acc", "n"),
        "'n' is inside the reduction loop 'k', where the sum has begun",
    ),
    "move after decomposing": (
        _decomposed(MATMUL),
        lambda k: local.reverse_compute_at(k, "out", "acc", "m"),
        "'acc' is decomposed: stages move before that",
    ),
    "mark after decomposing": (
        _decomposed(MATMUL),
        lambda k: local.parallelize(k, "acc", "m"),
        "'acc' is decomposed: do this before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    kernel, change, reason = REFUSALS[case]
    with pytest.raises(ScheduleError) as caught:
        change(kernel)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(kernel.where())


def test_kernels_without_loops_to_name() -> None:
    bare = local.with_schedule(MATMUL, None)  # type: ignore[arg-type]
    for change in (local.unscheduled, loop_nest):
        with pytest.raises(ScheduleError, match="no schedule; assign a default one first"):
            change(bare)
    emitted = local.with_schedule(MATMUL, Schedule.of("test", emitter="tiles"))
    with pytest.raises(ScheduleError, match="written by the emitter 'tiles'"):
        loop_nest(emitted)
    index = _kernel("softmax", (4, 8), choices={}, axis=1)
    with pytest.raises(ScheduleError, match="has no choice 'lanes'"):
        loop_nest(index)
