"""What the graph optimiser does to a folder of models: `python benchmarks/optimiser.py FOLDER`.

A row for each model: ONNX nodes in the file, nodes as imported, kernels launched, and the nodes
that onnxruntime launches after its own optimisation; bytes that one inference moves if every
imported node were a kernel, and as compiled; the arena, and the largest set of bytes alive at once,
which no plan can undercut; seconds in the passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from zoo import find_models, read_reference

from planish.ir.cost import node_cost
from planish.ir.graph import Graph
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.passes.pipeline import run_pipeline
from planish.passes.views import VIEWS
from planish.targets.hardware import detect_host
from planish.targets.memory import plan_memory

Record = dict[str, Any]


def moved(graph: Graph) -> int:
    """Bytes that the nodes of a graph read and write, views left out."""
    return sum(node_cost(node).bytes for node in graph.nodes if node.op != "reshape")


def examine(folder: Path, target: Target) -> Record:
    """One row: the graph before and after the passes."""
    path = folder / f"{folder.name}.onnx"
    inputs, _ = read_reference(folder)
    graph = import_model(path, shapes={name: array.shape for name, array in inputs.items()})
    start = time.perf_counter()
    fused = run_pipeline(graph, target)
    seconds = time.perf_counter() - start
    memory = plan_memory(fused)
    kernels = [node for node in fused.nodes if node.op not in VIEWS]
    return {
        "model": folder.name,
        "onnx_nodes": len(onnx.load(path, load_external_data=False).graph.node),
        "imported": len(graph.nodes),
        "kernels": len(kernels),
        "onnxruntime": onnxruntime_nodes(path),
        "moved_before": moved(graph),
        "moved_after": sum(node_cost(node).bytes for node in kernels),
        "arena": memory.arena_bytes,
        "bound": memory.lower_bound,
        "seconds": seconds,
    }


def onnxruntime_nodes(path: Path) -> int | None:
    """Nodes of the model as onnxruntime runs it; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as scratch:
        options.optimized_model_filepath = str(Path(scratch, "optimised.onnx"))
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return len(onnx.load(options.optimized_model_filepath).graph.node)


HEADER = (
    *("model", "ONNX nodes", "imported", "kernels", "onnxruntime"),
    *("moved before", "after", "arena", "bound", "passes"),
)


def cells(record: Record) -> list[str]:
    """A record as text."""
    counts = [record[key] for key in ("onnx_nodes", "imported", "kernels", "onnxruntime")]
    sizes = [record[key] / 1e6 for key in ("moved_before", "moved_after", "arena", "bound")]
    return [
        record["model"],
        *("-" if count is None else str(count) for count in counts),
        *(f"{size:.2f} MB" for size in sizes),
        f"{record['seconds']:.2f} s",
    ]


def print_line(texts: Sequence[str]) -> None:
    """A line of a Markdown table; numbers to the right."""
    rest = (f"{text:>{max(9, len(head))}}" for text, head in zip(texts[1:], HEADER[1:]))
    print(f"| {texts[0]:<24} | {' | '.join(rest)} |", flush=True)


def main() -> int:
    """Print the table; 1 if a model failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="", help="comma-separated names (default: all)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    target = detect_host()
    failed = False
    if not options.json:
        print_line(HEADER)
    for folder in find_models(options.folder, options.models):
        try:
            record = examine(folder, target)
        except Exception as error:
            failed = True
            print(f"{folder.name}: {error}", file=sys.stderr)
            continue
        if options.json:
            print(json.dumps(record), flush=True)
        else:
            print_line(cells(record))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
