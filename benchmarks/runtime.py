"""What the runtime costs: `python benchmarks/runtime.py [--seconds S] [--rounds N]`.

Prints, for this machine and as it is loaded now: nanoseconds that a kernel's call costs beyond its
work, microseconds of a parallel launch, CPU time of an idle artefact, and how much two artefacts
and an OpenMP program at once slow each other, against their fair share of the cores and against
what onnxruntime, OpenMP and busy loops do in the artefacts' place (runtime_neighbours.py). Not for
real-time priority, under which the scheduler does not share the cores.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from runtime_neighbours import THREADS, busy_model, repeat, report_neighbours

from planish.autotune.default_schedules import assign_default_schedules
from planish.driver import compile
from planish.ir.builder import emit as op
from planish.ir.graph import Graph, Input, Value
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


def tiny_graph(target: Target) -> Graph:
    """Fifty kernels of a few nanoseconds each, on one thread."""
    x = Input(tensor("float32", (1, 16)), "x")
    value: Value = x
    for _ in range(TINY_KERNELS):
        value = op("softmax", value, axis=1)
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


def report_idle(artefact: Path) -> None:
    """Prints the CPU time of an artefact's threads between runs, the caller's left out."""
    command = [*repeat("artefact", artefact, seconds=1.0).command, "--idle"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = f"{1e6 * float(done.stdout):.0f} µs of CPU time a second, from 10 ms after a run"
    print(f"threads of an idle artefact: {told}")


def main() -> None:
    """All four reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measured program")
    parser.add_argument("--rounds", type=int, default=3, help="of all programs in turn")
    given = parser.parse_args()
    target = detect_host()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report_calls(folder, target)
        model = folder / "busy.onnx"
        model.write_bytes(busy_model().SerializeToString())
        compile(model, folder / "busy", target=target, threads=THREADS, log=False)
        report_idle(folder / "busy")
        report_neighbours(folder, target.triple, given.seconds, given.rounds)


if __name__ == "__main__":
    main()
