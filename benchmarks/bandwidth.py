"""Kernels that are bound by memory, against copying: `python benchmarks/bandwidth.py [--cpu N]`.

For each kernel, on one pinned thread: the GB/s that it reads and writes, and what part that is of
what the machine reaches from the level of memory that holds the kernel's tensors. For kernels that
write about as much as they read that is a copy in C (-O3 -march=native) of the same bytes; for
those that mostly read it is reading, as `planish.bench.peaks` measures it. The two are timed in
turn, and the best of the rounds counts. The last line is the geometric mean of each kind.

Softmax computes more than it moves: for it the last column says what part of its time exponentials
would take alone, in L1.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tvm import s_tir, te

from planish.autotune.default_schedules import assign_default_schedules
from planish.autotune.measure.problem import kernel_text
from planish.bench.peaks import memory_levels, run_peak
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Value, constant
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.pipeline import run_pipeline
from planish.targets.codegen import build_object
from planish.targets.expressions.vector_math import exp_nonpositive
from planish.targets.hardware import detect_host
from planish.targets.linking import find_toolchain
from planish.targets.lowering import LoweredKernel
from planish.targets.trials.kernel import build_kernel

WINDOW_SECONDS = 0.01
_RNG = np.random.default_rng(0)


@dataclass(frozen=True, slots=True)
class Case:
    """A graph of one kernel, and what its kind is called."""

    kind: str
    name: str
    graph: Graph


def _input(*shape: int) -> Input:
    return Input(tensor("float32", shape), "x")


def _weights(*shape: int) -> Value:
    return constant(_RNG.standard_normal(shape).astype("float32"))


def cases() -> Iterator[Case]:
    """All kernels, in tensors of the second and the third level of caches."""

    def case(kind: str, name: str, value: Value) -> Case:
        inputs = tuple(v for v in Graph((), (value,)).values() if isinstance(v, Input))
        return Case(kind, name, Graph(inputs, (value,)))

    for n in (128, 1024):
        x = _input(n, 1024)
        bias, scale = _weights(1024), _weights(1024)
        yield case("element-wise", f"relu {n}x1024", emit("relu", x))
        yield case("element-wise", f"add a row {n}x1024", emit("add", x, bias))
        yield case("exp alone", f"{n}x1024", emit("exp", x))  # what bounds softmax
        yield case("softmax", f"{n}x1024", emit("softmax", x, axis=1))
        normal = emit("layer_norm", x, scale, bias, axis=1, epsilon=1e-5)
        yield case("layer_norm", f"{n}x1024", normal)
        yield case("rms_norm", f"{n}x1024", emit("rms_norm", x, scale, axis=1, epsilon=1e-5))
        for axis, name in ((1, "rows"), (0, "columns")):
            total = emit("reduce_sum", x, axes=(axis,), keepdims=False)
            yield case("reductions", f"sum of {name} {n}x1024", total)
        yield case("arg_max", f"{n}x1024", emit("arg_max", x, axis=1, keepdims=False))
        yield case("transposes", f"{n}x1024", emit("transpose", x, perm=(1, 0)))
    for size in (28, 112):
        nchw, nhwc = _input(1, 64, size, size), _input(1, size, size, 64)
        blocked = _input(1, 4, size, size, 16)
        name = f"64x{size}x{size}"
        yield case("transposes", f"to NHWC {name}", emit("transpose", nchw, perm=(0, 2, 3, 1)))
        yield case("transposes", f"to NCHW {name}", emit("transpose", nhwc, perm=(0, 3, 1, 2)))
        yield case("transposes", f"pack {name}", emit("pack", nchw, axis=1, block=16))
        unpacked = emit("unpack", blocked, axis=1, block=16, size=64)
        yield case("transposes", f"unpack {name}", unpacked)
    for n in (77, 197, 1001):
        x = _input(1024, n)
        yield case("odd rows", f"softmax 1024x{n}", emit("softmax", x, axis=1))
        yield case("odd rows", f"add a row 1024x{n}", emit("add", x, _weights(n)))
    for depth, columns in ((1024, 1000), (2048, 1000), (4096, 4096)):
        product = emit("matmul", _input(1, depth), _weights(depth, columns))
        yield case("batch-1 dense", f"{depth}x{columns}", product)


def the_kernel(graph: Graph, target: Target) -> Node:
    """The one kernel of a graph at its analytic pick.

    Only products need the passes, which pack their weights, and which cut long reductions in two.
    """
    is_product = any(node.op == "matmul" for node in graph.nodes)
    kernels = run_pipeline(graph, target) if is_product else fuse(graph, target)
    found = assign_default_schedules(kernels, target)
    (kernel,) = [node for node in found.nodes if node.op == "kernel"]
    return kernel


class Timer:
    """Calls kernels and copies through bandwidth.c."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder, self.count = target, folder, 0
        source, library = Path(__file__).with_name("bandwidth.c"), folder / "bandwidth.so"
        command = [*find_toolchain(target.triple).command, "-O3", "-march=native"]
        # A loop that copies stays one: memcpy may write past the caches.
        command += ["-fno-tree-loop-distribute-patterns", "-shared", "-fPIC"]
        subprocess.run([*command, str(source), "-o", str(library)], check=True)
        self.library = ctypes.CDLL(str(library))
        self.library.time_kernel.restype = self.library.time_copy.restype = ctypes.c_double

    def load(self, kernel: Node) -> ctypes.CDLL:
        """The library of a kernel, its hooks set."""
        self.count += 1
        path = self.folder / f"kernel{self.count}.so"
        build_kernel(kernel_text(kernel), self.target, path)
        library = ctypes.CDLL(str(path))
        for hook, function in (("Alloc", "allocate"), ("Free", "release")):
            name = f"__TVMBackend{hook}Workspace"
            try:
                place = ctypes.c_void_p.in_dll(library, name)
            except ValueError:
                continue  # it needs none
            place.value = ctypes.cast(getattr(self.library, function), ctypes.c_void_p).value
        return library

    def exponential(self, rounds: int) -> float:
        """Seconds of one exponential as softmax takes it of whole vectors, in L1."""
        count, lanes = 2048, self.target.lanes(4)
        x = te.placeholder((count,), "float32", "x")
        y = te.compute((count,), lambda i: exp_nonpositive(x(i)), "y")
        schedule = s_tir.Schedule(te.create_prim_func([x, y]))
        (loop,) = schedule.get_loops(schedule.get_sblock("y"))
        schedule.vectorize(schedule.split(loop, [None, lanes])[1])
        built = {"powers": LoweredKernel(schedule.mod["main"])}
        (self.folder / "powers.o").write_bytes(build_object(built, self.target).code)
        (self.folder / "powers.c").write_text(
            "int powers(void *, void *);\n"
            "int planish_trial_kernel(void *const *p) { return powers(p[0], p[1]); }\n"
        )
        parts = [str(self.folder / name) for name in ("powers.c", "powers.o")]
        library = self.folder / "powers.so"
        command = [*find_toolchain(self.target.triple).command, "-O2", "-shared", "-fPIC"]
        subprocess.run([*command, *parts, "-o", str(library)], check=True)
        arrays = [_aligned(4 * count), _aligned(4 * count)]
        arrays[0].view(np.float32)[:] = -np.abs(_RNG.standard_normal(count))
        loaded = ctypes.CDLL(str(library))
        return min(self.kernel(loaded, arrays) for _ in range(rounds)) / count

    def kernel(self, library: ctypes.CDLL, arrays: list[np.ndarray]) -> float:
        """Seconds of one call."""
        places = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        window = ctypes.c_double(WINDOW_SECONDS)
        return float(self.library.time_kernel(library.planish_trial_kernel, places, window))

    def copy(self, nbytes: int) -> float:
        """Seconds of a copy that reads and writes so many bytes together."""
        half = nbytes // 2
        source, result = _aligned(half), _aligned(half)
        window, size = ctypes.c_double(WINDOW_SECONDS), ctypes.c_size_t(half)
        places = (ctypes.c_void_p(array.ctypes.data) for array in (result, source))
        return float(self.library.time_copy(*places, size, window))


def _aligned(nbytes: int) -> np.ndarray:
    """Bytes that begin with a page, and are there.

    All tensors begin alike: a load waits for stores before it whose addresses have the same last
    twelve bits, so that a copy (or a kernel) is up to a third slower where its result begins a
    line or two behind its operand.
    """
    raw = np.ones(nbytes + 4096, np.uint8)
    begin = -raw.ctypes.data % 4096
    return raw[begin : begin + nbytes]


def _arrays(kernel: Node) -> list[np.ndarray]:
    """Memory of the kernel's inputs, which are random, and outputs."""
    arrays = []
    for value in (*kernel.inputs, *kernel.outputs):
        memory = _aligned(value.type.nbytes)
        if value in kernel.inputs:
            numbers = _RNG.standard_normal(value.type.elements).astype("float32")
            memory[:] = numbers.view(np.uint8)
        arrays.append(memory)
    return arrays


def measure(timer: Timer, case: Case, rounds: int, cpu: int) -> tuple[float, float, str]:
    """GB/s of the kernel, GB/s that the machine reaches, and how that was found."""
    target = timer.target
    kernel = the_kernel(case.graph, target)
    library, arrays = timer.load(kernel), _arrays(kernel)
    inputs = sum(v.type.nbytes for v in kernel.inputs)
    outputs = sum(v.type.nbytes for v in kernel.outputs)
    moved = inputs + outputs
    copies = outputs * 4 > inputs
    level = next(x for x in memory_levels(target) if x.capacity is None or moved <= x.capacity)
    ours, best = math.inf, 0.0
    for _ in range(rounds):
        ours = min(ours, timer.kernel(library, arrays))
        if copies:
            best = max(best, moved / timer.copy(moved))
        else:
            size = -(-moved // 4096) * 4096
            best = max(best, run_peak(target, [cpu], size, WINDOW_SECONDS, 1))
    return moved / ours / 1e9, best / 1e9, f"{'copy' if copies else 'read'} {level.name}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cpu", type=int, default=min(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="cases whose kind or name contains this")
    options = parser.parse_args()
    os.sched_setaffinity(0, [options.cpu])
    target = dataclasses.replace(detect_host(), cores=1)
    shares: dict[str, list[float]] = {}
    power = 0.0  # seconds of an exponential, once measured
    with tempfile.TemporaryDirectory(prefix="planish-bandwidth-") as folder:
        timer = Timer(target, Path(folder))
        for case in cases():
            if options.only not in f"{case.kind} {case.name}":
                continue
            ours, best, how = measure(timer, case, options.rounds, options.cpu)
            shares.setdefault(case.kind, []).append(ours / best)
            bound = ""
            if "softmax" in f"{case.kind} {case.name}":
                power = power or timer.exponential(options.rounds)
                # Eight bytes of an element are moved: its argument and its result.
                bound = f", its exponentials alone take {power * ours * 1e9 / 8:.0%} of its time"
            print(
                f"{case.kind:<14} {case.name:<26} {ours:6.1f} GB/s of {best:6.1f} ({how})"
                f" {ours / best:5.0%}{bound}",
                flush=True,
            )
    means = {kind: math.exp(sum(map(math.log, all_)) / len(all_)) for kind, all_ in shares.items()}
    print(", ".join(f"{kind} {mean:.0%}" for kind, mean in means.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
