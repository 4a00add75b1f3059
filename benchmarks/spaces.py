"""The analytic pick against the best point of each space: `python benchmarks/spaces.py FOLDER`.

Takes the heaviest kernels of the models of a folder (as for zoo.py), a few of each space, measures
all points of their spaces, or as many at random as --points says, and prints the pick's time beside
the best one's, and what part of the machine's peak the best reaches. The first line times the
ranking of the largest space. Candidates are measured as the tuner does: each is checked, and timed
in turn with the pick. `--share MODEL` instead takes all convolutions and products of one model and
weights them by their time in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo import find_models, read_reference

from planish.autotune.analytic import cycles
from planish.autotune.default_schedules import schedule_at
from planish.autotune.log.task import describe, task_digest
from planish.autotune.measure import Candidate, Incumbent, Measurer, Status, make_problem
from planish.autotune.spaces import anchor_of, space_of
from planish.autotune.spaces.space import Choices
from planish.bench.peaks import measure_peaks
from planish.ir.cost import node_cost
from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.onnx import import_model
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.target import Target
from planish.logged_schedules import fuse_kernels
from planish.measuring import BACKEND
from planish.passes.local import with_schedule
from planish.targets.hardware import detect_host

Record = dict[str, Any]


def kernels_of(folder: Path, target: Target) -> list[tuple[Node, int]]:
    """The distinct kernels of a model and how often each is in it."""
    inputs, _ = read_reference(folder)
    shapes = {name: array.shape for name, array in inputs.items()}
    graph = import_model(folder / f"{folder.name}.onnx", shapes=shapes)
    found: dict[str, tuple[Node, int]] = {}
    for kernel in fuse_kernels(graph, target):
        digest = task_digest(kernel)
        found[digest] = kernel, found.get(digest, (kernel, 0))[1] + 1
    return list(found.values())


def heaviest(kernels: Sequence[tuple[Node, int]], most: int, each: int) -> list[tuple[Node, int]]:
    """Kernels with more than one point by work, at most `each` of a space and anchor."""
    taken: dict[tuple[str, str], int] = {}
    chosen = []
    for kernel, count in sorted(kernels, key=lambda entry: -_weight(entry[0])):
        anchor = anchor_of(kernel)
        kind = space_of(kernel).name, "" if anchor is None else anchor.op
        if taken.get(kind, 0) < each:
            taken[kind] = taken.get(kind, 0) + 1
            chosen.append((kernel, count))
    return chosen[:most]


def _weight(kernel: Node) -> float:
    cost = node_cost(kernel)
    return cost.flops / 32 + cost.bytes / 8


def points_of(kernel: Node, target: Target, most: int, seed: int) -> list[Choices]:
    """The pick, then the other points, or so many of them at random; those refused are left out."""
    pick, *others = space_of(kernel).ranked(kernel, target)
    if len(others) >= most:
        others = random.Random(seed).sample(others, most - 1)
    return [pick, *others]


def measure(
    measurer: Measurer, kernel: Node, target: Target, points: Sequence[Choices]
) -> Iterator[tuple[int, float]]:
    """(index, seconds) of each point that can be measured; the first is what others go beside."""
    problem = make_problem(kernel, BACKEND)
    candidates: list[Candidate] = []
    for index, point in enumerate(points):
        try:
            schedule = schedule_at(kernel, target, point)
        except ScheduleError:
            continue
        candidates.append(Candidate(str(index), with_schedule(kernel, schedule)))
    (first,) = measurer.measure(problem, candidates[:1])
    if first.timing is None:
        raise SystemExit(f"{kernel.where()}: the pick fails: {first.status} {first.message}")
    seconds = first.timing.seconds.median
    yield 0, seconds
    incumbent = Incumbent(candidates[0], seconds)
    for result in measurer.measure(problem, candidates[1:], incumbent):
        if result.status is Status.WRONG:
            raise SystemExit(f"{kernel.where()}: point {result.candidate}: {result.message}")
        if result.timing is not None and result.status is Status.OK:
            yield int(result.candidate), result.timing.seconds.median


def row(
    measurer: Measurer, kernel: Node, count: int, target: Target, options: argparse.Namespace
) -> Record:
    """What came of one kernel."""
    points = points_of(kernel, target, options.points, options.seed)
    times = dict(measure(measurer, kernel, target, points))
    best = min(times, key=lambda index: times[index])
    cost = node_cost(kernel)
    anchor = anchor_of(kernel)
    contraction = anchor is not None and op_def(anchor.op).kind is OpKind.CONTRACTION
    return {
        "kernel": describe(kernel),
        "space": space_of(kernel).name,
        "points": len(times),
        "count": count,
        "pick": times[0],
        "best": times[best],
        "ratio": times[best] / times[0],
        "differs": {n: v for n, v in points[best].items() if points[0].get(n) != v},
        "gflops": cost.flops / times[best] / 1e9,
        "gbytes": cost.bytes / times[best] / 1e9,
        "contraction": contraction,
    }


def ranking_seconds(kernels: Sequence[tuple[Node, int]], target: Target) -> tuple[int, float]:
    """Points of the largest space repeated to 10,000, and the seconds that ranking them takes."""
    modelled = [kernel for kernel, _ in kernels if space_of(kernel).work is not None]
    kernel = max(modelled, key=lambda k: len(space_of(k).ranked(k, target)))
    space = space_of(kernel)
    points = {n: np.resize(v, 10_000) for n, v in space.points(kernel, target).items()}
    assert space.work is not None
    begin = time.perf_counter()
    order = np.argsort(cycles(space.work(kernel, target, points), target))
    return len(order), time.perf_counter() - begin


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="", help="only these, separated by commas")
    parser.add_argument("--share", action="store_true", help="all contractions, by their share")
    parser.add_argument("--kernels", type=int, default=25)
    parser.add_argument("--each", type=int, default=4, help="kernels of a space and anchor (4)")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> int:
    """Prints a line for each kernel, then the means."""
    options = parse_options()
    target = dataclasses.replace(detect_host(), cores=options.threads)
    folders = find_models(options.folder, options.models)
    kernels = [entry for folder in folders for entry in kernels_of(folder, target)]
    count, seconds = ranking_seconds(kernels, target)
    if options.share:
        kernels = [entry for entry in kernels if _is_contraction(entry[0])]
    else:
        kernels = heaviest(kernels, options.kernels, options.each)
    peak = measure_peaks(options.threads).flops[options.threads] / 1e9
    if not options.json:
        print(f"{count} points ranked in {seconds * 1e3:.1f} ms; peak {peak:.0f} GFLOPS")
    rows = []
    with Measurer(BACKEND, target) as measurer:
        for kernel, times in kernels:
            rows.append(row(measurer, kernel, times, target, options))
            report(rows[-1], peak, options.json)
    ratio = math.exp(sum(math.log(entry["ratio"]) for entry in rows) / len(rows))
    heavy = [entry for entry in rows if entry["contraction"]]
    spent = sum(entry["best"] * entry["count"] for entry in heavy)
    part = sum(entry["gflops"] * entry["best"] * entry["count"] for entry in heavy) / spent / peak
    summary = {"kernels": len(rows), "pick_of_best": ratio, "best_of_peak": part}
    if options.json:
        print(json.dumps(summary))
    else:
        print(f"{len(rows)} kernels: the pick reaches {ratio:.0%} of the best (geometric mean)")
        print(f"contractions, by time: the best reaches {part:.0%} of the peak")
    return 0


def _is_contraction(kernel: Node) -> bool:
    anchor = anchor_of(kernel)
    return anchor is not None and op_def(anchor.op).kind is OpKind.CONTRACTION


def report(entry: Record, peak: float, as_json: bool) -> None:
    """One kernel's line."""
    if as_json:
        print(json.dumps(entry), flush=True)
        return
    differs = " ".join(f"{name}={value}" for name, value in entry["differs"].items()) or "-"
    print(
        f"{entry['ratio']:5.0%}  {entry['pick'] * 1e6:9.1f} µs {entry['best'] * 1e6:9.1f} µs  "
        f"{entry['gflops']:6.1f} GFLOPS {entry['gflops'] / peak:4.0%} {entry['gbytes']:6.1f} GB/s "
        f"{entry['points']:4} points  {entry['space']:<10} {entry['kernel']}  [{differs}]",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
