"""planish against onnxruntime on a folder of models: `python benchmarks/zoo.py FOLDER`.

A model is a folder NAME with NAME.onnx, reference.npz (arrays `in:NAME` and `out:NAME`, "/" written
"|") and perhaps meta.json. Each engine runs in a process of its own, which is stopped (SIGSTOP)
while the other one is timed: idle thread pools spin, and would halve the other's speed. The engines
are timed in turn, A B A B, with equal threads; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from planish.bench.contest import save_arrays
from planish.bench.turns import (
    EngineFailed,
    foreign_load,
    summarise,
    take_turns,
    warn_of_load,
    workers,
)
from planish.ir.onnx import import_model
from planish.tolerances import compare
from planish.verify import is_right

ENGINES = ("planish", "onnxruntime")

Record = dict[str, Any]


def read_reference(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and expected outputs of a model, by their ONNX names."""
    inputs: dict[str, np.ndarray] = {}
    outputs: dict[str, np.ndarray] = {}
    with np.load(folder / "reference.npz") as arrays:
        for key in arrays:
            side, name = key.split(":", 1)
            (inputs if side == "in" else outputs)[name.replace("|", "/")] = arrays[key]
    return inputs, outputs


def read_meta(folder: Path) -> Record:
    """What is told of a model beside it; nothing where there is no meta.json."""
    path = folder / "meta.json"
    meta: Record = json.loads(path.read_text()) if path.exists() else {}
    return meta


def compile_model(
    model: Path,
    artefact: Path,
    inputs: Mapping[str, np.ndarray],
    threads: int,
    environ: Mapping[str, str] | None = None,
) -> Record:
    """Runs `planish compile` at the reference's shapes; its report, and the command's seconds.

    `environ` is added to the environment. EngineFailed with the command's message if it fails.
    """
    return run_planish(
        ["compile", str(model), "-o", str(artefact), "--no-verify"], inputs, threads, environ
    )


def run_planish(
    words: Sequence[str],
    inputs: Mapping[str, np.ndarray],
    threads: int,
    environ: Mapping[str, str] | None = None,
) -> Record:
    """Runs a command that compiles, at the shapes of `inputs`: what it tells, and its seconds.

    EngineFailed with the command's message if it fails.
    """
    command = [sys.executable, "-c", "from planish.cli import main; main()", *words]
    command += ["--json", "--threads", str(threads)]
    for name, array in inputs.items():
        command += ["--shape", f"{name}={','.join(map(str, array.shape))}"]
    begin = time.perf_counter()
    environ = {**os.environ, **(environ or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        told = done.stderr.strip().splitlines()[-1:] or ["no message"]
        try:
            raise EngineFailed(json.loads(told[0])["error"]["message"])
        except (ValueError, KeyError):
            raise EngineFailed(told[0]) from None
    return {**json.loads(done.stdout), "wall": seconds}


def check_outputs(
    model: Path,
    inputs: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    meta: Record,
) -> Record:
    """The largest error against the reference, and whether all outputs are right.

    onnxruntime's own difference between its optimised and its plain form is a floor: the reference
    is no better than that. Beyond it, outputs and reference are judged as a compilation judges its
    outputs, by running `model`.
    """
    floors = meta.get("ort_opt_vs_noopt_maxdiff", {})
    found = {
        name: compare(actual[name], value, floor=float(floors.get(name, 0.0)))
        for name, value in expected.items()
    }
    reasons = [f"{name}: {entry.reason}" for name, entry in found.items() if not entry.ok]
    if reasons:
        shapes = {name: array.shape for name, array in inputs.items()}
        graph = import_model(model, shapes=shapes)
        if all(is_right(outputs, graph, model, inputs) for outputs in (actual, expected)):
            reasons = []
    return {
        "error": max(entry.max_abs for entry in found.values()),
        "relative": max(entry.max_rel for entry in found.values()),
        "ok": not reasons,
        "reasons": reasons,
    }


def measure(folder: Path, work: Path, options: argparse.Namespace) -> Record:
    """Everything about one model."""
    name = folder.name
    inputs, expected = read_reference(folder)
    artefact = work / name
    compiled = compile_model(folder / f"{name}.onnx", artefact, inputs, options.threads)
    feeds = work / "inputs.npz"
    save_arrays(feeds, inputs)
    models = {"planish": str(artefact), "onnxruntime": str(folder / f"{name}.onnx")}
    start = {"do": "start", "inputs": str(feeds), "threads": options.threads}
    cold: list[dict[str, Record]] = []
    with ExitStack() as stack:
        for _ in range(options.cold_rounds):
            stack.close()
            started = stack.enter_context(workers({key: (key, {}) for key in ENGINES}))
            cold.append({key: started[key].ask(model=models[key], **start) for key in ENGINES})
        warm = take_turns(started, options.rounds, options.seconds)
        saved = work / "outputs.npz"
        started["planish"].ask(do="save", path=str(saved))
    with np.load(saved) as actual:
        check = check_outputs(folder / f"{name}.onnx", inputs, actual, expected, read_meta(folder))
    shutil.rmtree(artefact)
    return {"model": name, "compile": compiled, "check": check, **summary(cold, warm)}


def summary(cold: list[dict[str, Record]], warm: list[dict[str, Record]]) -> Record:
    """Medians over the rounds, seconds and bytes; ratios are planish's figure by onnxruntime's."""

    def median_cold(read: Callable[[dict[str, Record]], float]) -> float:
        return statistics.median(read(entry) for entry in cold)

    timings = summarise(warm)
    found: Record = {
        "latency_ratio": 1 / timings["onnxruntime"].speed,
        "others": foreign_load(warm),
        "cold_ratio": median_cold(lambda r: r["planish"]["cold"] / r["onnxruntime"]["cold"]),
    }
    for key in ENGINES:
        found[key] = {
            "latency": timings[key].median,
            **{
                figure: median_cold(lambda r, key=key, figure=figure: r[key][figure])  # type: ignore[misc]
                for figure in ("load", "cold", "resident", "grown")
            },
        }
    return found


HEADINGS = (
    "model",
    "compile s",
    "artefact MB",
    "over weights kB",
    "load ms",
    "latency ms",
    "ORT ms",
    "ratio",
    "largest error",
    "of largest",
    "within",
    "cold ms",
    "ORT cold ms",
    "ratio",
    "memory MB",
    "ORT MB",
)


def row(record: Record) -> list[str]:
    """A model's line of the table."""
    if "failed" in record:
        return [record["model"], record["failed"]]
    compiled, check = record["compile"], record["check"]
    ours, theirs = record["planish"], record["onnxruntime"]
    over = compiled["artefact_bytes"] - compiled["weights_bytes"]
    return [
        record["model"],
        f"{compiled['wall']:.1f}",
        f"{compiled['artefact_bytes'] / 1e6:.2f}",
        f"{over / 1e3:.0f}",
        f"{ours['load'] * 1e3:.2f}",
        f"{ours['latency'] * 1e3:.3f}",
        f"{theirs['latency'] * 1e3:.3f}",
        f"{record['latency_ratio']:.2f}",
        f"{check['error']:.2g}",
        f"{check['relative']:.2g}",
        "yes" if check["ok"] else "NO",
        f"{ours['cold'] * 1e3:.1f}",
        f"{theirs['cold'] * 1e3:.1f}",
        f"{record['cold_ratio']:.2f}",
        f"{ours['resident'] / 1e6:.0f}",
        f"{theirs['resident'] / 1e6:.0f}",
    ]


def print_table_head(heads: Sequence[str], wide: int) -> None:
    """The first two lines of a Markdown table."""
    print_table_line(heads, heads, wide)
    rule = ["-" * wide, *("-" * (len(head) - 1) + ":" for head in heads[1:])]
    print_table_line(rule, heads, wide)


def print_table_line(cells: Sequence[str], heads: Sequence[str], wide: int) -> None:
    """A line of a Markdown table; numbers to the right, or a model's name and one remark."""
    if len(cells) == 2:
        print(f"| {cells[0]:<{wide}} | {cells[1]} |", flush=True)
        return
    aligned = [f"{cell:>{len(head)}}" for cell, head in zip(cells[1:], heads[1:])]
    print(f"| {cells[0]:<{wide}} | {' | '.join(aligned)} |", flush=True)


def notes(record: Record) -> list[str]:
    """What makes a line of the table less than it seems."""
    told = list(record.get("check", {}).get("reasons", ()))
    loaded = warn_of_load(record.get("others", 0.0))
    return [*told, loaded] if loaded else told


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Compile, check and time a folder of models against onnxruntime, in turn."
    )
    parser.add_argument("folder", type=Path, help="folder of models, a folder each")
    parser.add_argument("--models", default="", help="only these, separated by commas")
    parser.add_argument("--threads", type=int, default=2, help="of both engines (2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of timing (5)")
    parser.add_argument("--cold-rounds", type=int, default=3, help="fresh processes (3)")
    parser.add_argument("--seconds", type=float, default=0.5, help="a turn's length (0.5)")
    parser.add_argument("--json", action="store_true", help="one JSON object a model instead")
    return parser.parse_args()


def find_models(folder: Path, wanted: str) -> list[Path]:
    """The model folders; exits with a message if one that is wanted is missing."""
    found = {
        path.name: path for path in sorted(folder.iterdir()) if (path / "reference.npz").exists()
    }
    names = wanted.split(",") if wanted else list(found)
    missing = [name for name in names if name not in found]
    if missing or not names:
        sys.exit(f"no model {', '.join(missing)} in {folder}; there are {', '.join(found)}")
    return [found[name] for name in names]


def main() -> int:
    """Prints the table; 1 if a model failed or is out of tolerance."""
    options = parse_options()
    models = find_models(options.folder, options.models)
    wide = max(len(path.name) for path in models)
    if not options.json:
        print_table_head(HEADINGS, wide)
    failed = False
    for folder in models:
        with tempfile.TemporaryDirectory(prefix="planish-zoo-") as work:
            try:
                record = measure(folder, Path(work), options)
            except EngineFailed as error:
                record = {"model": folder.name, "failed": " ".join(str(error).split())}
        failed |= not record.get("check", {}).get("ok", False)
        if options.json:
            print(json.dumps(record), flush=True)
        else:
            print_table_line(row(record), HEADINGS, wide)
            for note in notes(record):
                print(f"{folder.name}: {note}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
