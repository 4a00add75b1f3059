"""How programs on the same CPUs slow each other; part of runtime.py.

Two artefacts, then two of each peer, compete with an OpenMP program for the CPUs. What that loses
beside busy loops, which neither wait nor wake anybody, is the scheduler's doing and its own: its
barriers spin, and while both of its threads share one CPU, each barrier costs a time slice. With
OMP_WAIT_POLICY=passive they sleep: what it loses then is its neighbours' doing.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from planish.targets.linking import find_toolchain

HERE = Path(__file__).parent
THREADS = 2
ROWS, COLUMNS, LAYERS = 256, 512, 8


@dataclass(frozen=True, slots=True)
class Program:
    """A program that says "ready", goes when told, and prints a count (and CPU seconds of one)."""

    name: str
    command: tuple[str, ...]
    threads: int = THREADS


@dataclass(frozen=True, slots=True)
class Together:
    """In one round: times slower than alone, by program, and CPU seconds of a run of the first."""

    slower: tuple[float, ...]
    cpu: tuple[float, float] | None


def busy_model() -> onnx.ModelProto:
    """Some milliseconds of products on all threads, with small operators between."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(*shape: int) -> str:
        values = rng.standard_normal(shape) / 16
        weights.append(numpy_helper.from_array(values.astype("float32"), f"w{len(weights)}"))
        return f"w{len(weights) - 1}"

    def emit(op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op}{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    value = "x"
    for _ in range(LAYERS):
        product = emit("Relu", emit("MatMul", value, constant(COLUMNS, COLUMNS)))
        small = emit("ReduceMean", product, axes=[0], keepdims=1)
        for _ in range(3):
            spread = emit("Softmax", emit("Add", small, constant(30, COLUMNS)), axis=1)
            small = emit("ReduceMean", spread, axes=[0], keepdims=1)
        value = emit("Softmax", emit("Sub", product, small), axis=1)
    ends = [helper.make_tensor_value_info(n, 1, (ROWS, COLUMNS)) for n in ("x", value)]
    graph = helper.make_graph(nodes, "busy", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def build_loops(folder: Path, triple: str) -> Path:
    """The program of runtime_openmp.c."""
    program = folder / "loops"
    command = [*find_toolchain(triple).command, "-O2", "-fopenmp"]
    subprocess.run([*command, str(HERE / "runtime_openmp.c"), "-o", program], check=True)
    return program


def repeat(name: str, model: Path, seconds: float) -> Program:
    """The program of runtime_repeat.py on an artefact, or on a model for onnxruntime."""
    script = str(HERE / "runtime_repeat.py")
    return Program(name, (sys.executable, script, str(model), str(seconds), str(THREADS)))


def courses(folder: Path, triple: str, seconds: float) -> Iterator[tuple[Program, ...]]:
    """Which programs run at once: two alike, the artefact in `folder`/busy first, and a third.

    onnxruntime, of the extra `bench`, is left out where it is not installed.
    """
    loops = (str(build_loops(folder, triple)), str(seconds))
    openmp = Program("OpenMP", (*loops, str(THREADS)))
    patient = Program("OpenMP, passive", ("env", "OMP_WAIT_POLICY=passive", *openmp.command))
    artefact = repeat("artefact", folder / "busy", seconds)
    yield artefact, artefact
    yield artefact, artefact, patient
    yield artefact, artefact, openmp
    if importlib.util.find_spec("onnxruntime") is not None:
        onnxruntime = repeat("onnxruntime", folder / "busy.onnx", seconds)
        yield onnxruntime, onnxruntime, patient
        yield onnxruntime, onnxruntime, openmp
    yield openmp, openmp, openmp
    loop = Program("busy loop", (*loops, "1"), threads=1)
    yield loop, loop, openmp


@contextmanager
def _started(program: Program) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(program.command, stdin=pipe, stdout=pipe, text=True) as process:
        yield process


def count(*together: Program) -> list[list[float]]:
    """What each program prints, all run at once: they wait until the last one is ready."""
    with ExitStack() as stack:
        running = [stack.enter_context(_started(program)) for program in together]
        for program, process in zip(together, running):
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{program.name} did not start: {' '.join(program.command)}")
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [[float(word) for word in process.communicate()[0].split()] for process in running]


def compare(alone: Mapping[Program, Sequence[float]], together: Sequence[Program]) -> Together:
    """One round of programs at once."""
    counts = count(*together)
    slower = tuple(alone[p][0] / max(1.0, c[0]) for p, c in zip(together, counts))
    first = alone[together[0]]
    return Together(slower, (first[1], counts[0][1]) if len(first) > 1 else None)


def report_neighbours(folder: Path, triple: str, seconds: float, rounds: int) -> None:
    """Prints how two artefacts, and two of each peer, share the CPUs with an OpenMP program.

    Expects the artefact of `busy_model` in `folder`/busy, the model in `folder`/busy.onnx.
    """
    all_courses = tuple(courses(folder, triple, seconds))
    results: list[list[Together]] = [[] for _ in all_courses]
    for _ in range(rounds):
        alone = {p: count(p)[0] for p in dict.fromkeys(chain(*all_courses))}
        for course, result in zip(all_courses, results):
            result.append(compare(alone, course))
    cpus = len(os.sched_getaffinity(0))
    print(f"times slower than alone on {cpus} CPUs, median of {rounds} rounds (least to most):")
    for course, result in zip(all_courses, results):
        print(describe(course, result, cpus))


def describe(course: Sequence[Program], rounds: Sequence[Together], cpus: int) -> str:
    """A line: the two alike, the third, what would be fair, and CPU time of a run.

    CPU time of a run tells of spinning even where the machine has other work: it should not grow.
    """
    fair = max(1.0, sum(program.threads for program in course) / cpus)
    pair = [slower for one in rounds for slower in one.slower[:2]]
    parts = [f"  {course[0].name}, two {_spread(pair)}"]
    if len(course) > 2:
        parts.append(f"{course[2].name} {_spread([one.slower[2] for one in rounds])}")
    parts.append(f"fair {fair:.1f}")
    used = [one.cpu for one in rounds if one.cpu is not None]
    if used:
        before, after = (1e3 * statistics.median(times) for times in zip(*used))
        parts.append(f"CPU time of a run {before:.2f} -> {after:.2f} ms")
    return "; ".join(parts)


def _spread(slower: Sequence[float]) -> str:
    return f"{statistics.median(slower):.2f} ({min(slower):.1f} to {max(slower):.1f})"
