"""What the graph optimiser does to a folder of models: `python benchmarks/optimiser.py FOLDER`.

A row for each model: ONNX nodes in the file, nodes as imported, kernels launched, and the nodes
that onnxruntime launches after its own optimisation; bytes that one inference moves if every
imported node were a kernel, and as compiled; the arena, the largest set of bytes alive at once,
which no plan can undercut, and what onnxruntime's arena takes; seconds in the passes.

`--before CHECKOUT` compiles each model with the planish of another checkout as well, and times both
artefacts in turn: latencies, and the earlier one's by this one's (above 1: this one is faster).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime_arena import arena_bytes
from zoo import compile_model, find_models, print_table_head, print_table_line, read_reference

from planish.bench.contest import save_arrays
from planish.bench.turns import foreign_load, summarise, take_turns, warn_of_load, workers
from planish.ir.cost import node_cost
from planish.ir.graph import Graph
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.passes.pipeline import run_pipeline
from planish.passes.views import VIEWS
from planish.targets.hardware import detect_host, usable_cores
from planish.targets.memory import plan_memory

Record = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


def moved(graph: Graph) -> int:
    """Bytes that the nodes of a graph read and write, views left out."""
    return sum(node_cost(node).bytes for node in graph.nodes if node.op != "reshape")


def examine(path: Path, inputs: Arrays, target: Target) -> Record:
    """One row: the graph before and after the passes."""
    graph = import_model(path, shapes={name: array.shape for name, array in inputs.items()})
    start = time.perf_counter()
    fused = run_pipeline(graph, target)
    seconds = time.perf_counter() - start
    memory = plan_memory(fused)
    kernels = [node for node in fused.nodes if node.op not in VIEWS]
    return {
        "onnx_nodes": len(onnx.load(path, load_external_data=False).graph.node),
        "imported": len(graph.nodes),
        "kernels": len(kernels),
        "moved_before": moved(graph),
        "moved_after": sum(node_cost(node).bytes for node in kernels),
        "arena": memory.arena_bytes,
        "bound": memory.lower_bound,
        "seconds": seconds,
    }


def examine_onnxruntime(path: Path, inputs: Arrays, work: Path) -> Record:
    """Nodes of the model as onnxruntime runs it, and its arena; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return {"onnxruntime": None, "onnxruntime_arena": None}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(work / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = work / "inputs.npz"
    save_arrays(feeds, inputs)
    return {
        "onnxruntime": len(onnx.load(options.optimized_model_filepath).graph.node),
        "onnxruntime_arena": arena_bytes(path, feeds),
    }


def package_tree(checkout: Path, folder: Path) -> dict[str, str]:
    """The environment in which `import planish` finds a checkout: `folder` gets links to it."""
    package = folder / "planish"
    package.mkdir()
    layers = [checkout / name for name in ("ir", "passes", "autotune", "targets")]
    for path in (*(checkout / "compiler").iterdir(), *layers):
        (package / path.name).symlink_to(path.resolve())
    return {"PYTHONPATH": str(folder)}


def race(path: Path, inputs: Arrays, work: Path, options: argparse.Namespace) -> Record:
    """Latencies of the artefacts of this checkout and of --before, in turn."""
    tree = work / "before-tree"
    tree.mkdir()
    environs = {"planish": {}, "before": package_tree(options.before, tree)}
    feeds = work / "inputs.npz"
    save_arrays(feeds, inputs)
    for label, environ in environs.items():
        compile_model(path, work / label, inputs, options.threads, environ)
    with workers({label: ("planish", environ) for label, environ in environs.items()}) as started:
        for label, worker in started.items():
            worker.ask(
                do="start",
                model=str(work / label),
                inputs=str(feeds),
                threads=options.threads,
            )
        rounds = take_turns(started, options.rounds, options.seconds)
    timings = summarise(rounds)
    return {
        "latency_before": timings["before"].median,
        "latency": timings["planish"].median,
        "speed": timings["before"].speed,
        "others": foreign_load(rounds),
    }


HEADER = (
    *("model", "ONNX nodes", "imported", "kernels", "ORT nodes"),
    *("moved before", "     after", "     arena", "     bound", " ORT arena", "passes"),
)
HEADER_BEFORE = ("latency before", "      now", "speed")


def cells(record: Record) -> list[str]:
    """A record as text."""

    def size(key: str) -> str:
        return "-" if record[key] is None else f"{record[key] / 1e6:.3f} MB"

    counts = [record[key] for key in ("onnx_nodes", "imported", "kernels", "onnxruntime")]
    told = [
        record["model"],
        *("-" if count is None else str(count) for count in counts),
        *map(size, ("moved_before", "moved_after", "arena", "bound", "onnxruntime_arena")),
        f"{record['seconds']:.2f} s",
    ]
    if "speed" in record:
        told += [f"{record[key] * 1e3:.3f} ms" for key in ("latency_before", "latency")]
        told.append(f"{record['speed']:.2f}")
    return told


def measure(folder: Path, target: Target, options: argparse.Namespace) -> Record:
    """Everything about one model."""
    path = folder / f"{folder.name}.onnx"
    inputs, _ = read_reference(folder)
    with tempfile.TemporaryDirectory(prefix="planish-optimiser-") as scratch:
        work = Path(scratch)
        record = {"model": folder.name, **examine(path, inputs, target)}
        record |= examine_onnxruntime(path, inputs, work)
        if options.before is not None:
            record |= race(path, inputs, work, options)
    return record


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="", help="comma-separated names (default: all)")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="planish to time against")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of both (all CPUs)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of timing (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="a turn's length (0.5)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.before is not None and not (options.before / "compiler/__init__.py").exists():
        parser.error(f"--before {options.before} is no checkout of planish")
    return options


def main() -> int:
    """Print the table; 1 if a model failed."""
    options = parse_options()
    target = detect_host()
    failed = False
    heads: Sequence[str] = HEADER + (HEADER_BEFORE if options.before else ())
    models = find_models(options.folder, options.models)
    wide = max(len(folder.name) for folder in models)
    if not options.json:
        print_table_head(heads, wide)
    for folder in models:
        try:
            record = measure(folder, target, options)
        except Exception as error:
            failed = True
            print(f"{folder.name}: {error}", file=sys.stderr)
            continue
        if options.json:
            print(json.dumps(record), flush=True)
            continue
        print_table_line(cells(record), heads, wide)
        note = warn_of_load(record.get("others", 0.0))
        if note:
            print(f"{folder.name}: {note}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
