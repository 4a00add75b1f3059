"""What the runtime costs: `python benchmarks/runtime.py [--seconds S]`.

Prints, for this machine and as it is loaded now: nanoseconds that a kernel's call costs beyond its
work, microseconds of a parallel launch, CPU time of an idle artefact, and how much two artefacts
and an OpenMP program at once slow each other, against their fair share of the cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from planish.artefact.loading import load
from planish.autotune.default_schedules import assign_default_schedules
from planish.driver import compile_graph
from planish.ir.builder import emit as op
from planish.ir.graph import Graph, Input, Value, constant
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.targets.emit import emit
from planish.targets.hardware import detect_host
from planish.targets.linking import find_toolchain
from planish.targets.model_source import RUNTIME, render_header, render_source
from planish.targets.plan import Arg, ModelPlan

HERE = Path(__file__).parent
TINY_KERNELS = 50
THREADS = 2


def tiny_graph(target: Target) -> Graph:
    """Fifty kernels of a few nanoseconds each, on one thread."""
    x = Input(tensor("float32", (1, 16)), "x")
    value: Value = x
    for _ in range(TINY_KERNELS):
        value = op("softmax", value, axis=1)
    return _scheduled(Graph((x,), (value,)), target)


def busy_graph(target: Target) -> Graph:
    """Some milliseconds of products on all threads, with small kernels on one thread between."""
    rng = np.random.default_rng(0)
    x = Input(tensor("float32", (256, 512)), "x")
    value: Value = x
    for _ in range(8):
        weight = constant((rng.standard_normal((512, 512)) / 16).astype("float32"))
        product = op("relu", op("matmul", value, weight))
        small = op("reduce_mean", product, axes=(0,), keepdims=True)
        for _ in range(3):
            spread = op("add", small, constant(rng.standard_normal((30, 512)).astype("float32")))
            small = op("reduce_mean", op("softmax", spread, axis=1), axes=(0,), keepdims=True)
        value = op("softmax", op("sub", product, small), axis=1)
    return _scheduled(Graph((x,), (value,)), target)


def _scheduled(graph: Graph, target: Target) -> Graph:
    return assign_default_schedules(fuse(graph, target), target)


def _pointer(arg: Arg) -> str:
    if arg.space in ("input", "output"):
        return f"frame->{arg.space}s[{arg.offset_or_index}]"
    return f"frame->{arg.space} + {arg.offset_or_index}"


def direct_calls(plan: ModelPlan) -> str:
    """A C function that makes a plan's calls and nothing else."""
    declared = {
        call.symbol: f"int32_t {call.symbol}({', '.join(['void *'] * len(call.args))});"
        for call in plan.calls
    }
    calls = [f"    {c.symbol}({', '.join(map(_pointer, c.args))});" for c in plan.calls]
    head = "void call_directly(const planish_frame *frame) {"
    return "\n".join(['#include "runtime.h"', *declared.values(), head, *calls, "}", ""])


def build_calls(folder: Path, target: Target) -> tuple[Path, ModelPlan]:
    """The program of runtime_calls.c: runtime, tiny model and the direct calls in one file."""
    emitted = emit(tiny_graph(target), target, "tiny")
    folder.mkdir()
    (folder / "tiny.h").write_text(render_header(emitted.plan))
    (folder / "model.c").write_text(render_source(emitted.plan, target.arch))
    (folder / "direct.c").write_text(direct_calls(emitted.plan))
    objects = []
    for i, code in enumerate(emitted.objects):
        objects.append(folder / f"kernels{i}.o")
        objects[-1].write_bytes(code)
    sources = [HERE / "runtime_calls.c", *sorted(RUNTIME.glob("*.c"))]
    sources += [folder / "model.c", folder / "direct.c"]
    program = folder / "calls"
    command = [*find_toolchain(target.triple).command, "-std=gnu11", "-O2"]
    command += [f"-I{folder}", f"-I{RUNTIME}", *map(str, [*sources, *objects])]
    subprocess.run([*command, "-lm", "-lpthread", "-o", program], check=True)
    return program, emitted.plan


def report_calls(folder: Path, target: Target) -> None:
    """Prints the costs of calls and launches."""
    program, plan = build_calls(folder / "calls", target)
    weights = folder / "no_weights"
    weights.touch()
    command = [program, weights, str(plan.arena_bytes), *map(str, range(2, THREADS + 1))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    run, direct, *launches = map(float, done.stdout.split())
    print(f"{len(plan.calls)} tiny kernels, 1 thread: {run:.0f} ns each, {direct:.0f} ns called")
    print(f"  from C directly: the runtime adds {run - direct:.0f} ns a kernel")
    for threads, launch in enumerate(launches, 2):
        print(f"parallel launch, {threads} threads: {launch / 1000:.2f} µs")


def idle_cpu(artefact: Path) -> None:
    """In a process of its own: prints the CPU seconds of a second without runs."""
    model = load(artefact, threads=THREADS)
    model.run(_inputs())
    time.sleep(0.01)
    begin = time.process_time()
    time.sleep(1)
    print(time.process_time() - begin)


def count_runs(artefact: Path, seconds: float) -> None:
    """In a process of its own: prints how many runs were made, and CPU seconds of each."""
    model = load(artefact, threads=THREADS)
    inputs = _inputs()
    model.run(inputs)
    runs, end, used = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end:
        model.run(inputs)
        runs += 1
    print(runs, (time.process_time() - used) / max(1, runs))


def _inputs() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((256, 512)).astype("float32")}


def _numbers(*commands: Sequence[str]) -> list[list[float]]:
    """What each program prints, all run at once."""
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    return [[float(word) for word in process.communicate()[0].split()] for process in running]


def build_neighbour(folder: Path, target: Target) -> Path:
    """The program of runtime_openmp.c."""
    program = folder / "neighbour"
    command = [*find_toolchain(target.triple).command, "-O2", "-fopenmp"]
    subprocess.run([*command, str(HERE / "runtime_openmp.c"), "-o", program], check=True)
    return program


def report_neighbours(folder: Path, target: Target, seconds: float) -> None:
    """Prints how programs slow each other down."""
    mine = [sys.executable, __file__, "--count", str(folder / "busy"), "--seconds", str(seconds)]
    openmp = [str(build_neighbour(folder, target)), str(seconds)]
    report_together({"artefact 1": mine, "artefact 2": mine})
    report_together({"artefact 1": mine, "artefact 2": mine, "OpenMP": openmp})


def report_together(programs: Mapping[str, Sequence[str]]) -> None:
    """Prints how much slower each program is beside the others than alone.

    CPU time of a run tells of spinning even where the machine has other work: it should not grow.
    """
    cpus = len(os.sched_getaffinity(0))
    fair = max(1.0, len(programs) * THREADS / cpus)
    alone = [_numbers(command)[0] for command in programs.values()]
    together = _numbers(*programs.values())
    print(f"{' + '.join(programs)} at once, {THREADS} threads each on {cpus} CPUs:")
    for name, before, after in zip(programs, alone, together):
        slower = before[0] / max(1.0, after[0])
        told = f"{slower:.2f} times slower than alone, {slower / fair:.2f} of its fair {fair:.1f}"
        if len(before) > 1:
            told += f"; CPU time of a run {1e3 * before[1]:.2f} -> {1e3 * after[1]:.2f} ms"
        print(f"  {name}: {told}")


def main() -> None:
    """All four reports; `--count` and `--idle` are its own processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measured program")
    parser.add_argument("--count", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--idle", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        count_runs(given.count, given.seconds)
        return
    if given.idle:
        idle_cpu(given.idle)
        return
    target = detect_host()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report_calls(folder, target)
        compile_graph(busy_graph(target), folder / "busy", target, "busy")
        ((idle,),) = _numbers([sys.executable, __file__, "--idle", str(folder / "busy")])
        print(f"idle artefact: {1000 * idle:.2f} ms of CPU time a second, from 10 ms after a run")
        report_neighbours(folder, target, given.seconds)


if __name__ == "__main__":
    main()
