"""planish against other engines on a folder of models: `python benchmarks/peers.py FOLDER`.

The folder is as for zoo.py. Each model is compiled for each number of threads, untuned or, with
--budget 10m, tuned (--log has what was measured, and none of it is measured again), and the engines
take turns (A B C A B C …), each in a process that is stopped while another is timed. Speed
is the better peer's latency by planish's: above 1, planish is faster than both. The error is of
planish's outputs against the reference, as a part of their largest magnitude.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo import (
    check_outputs,
    compile_model,
    find_models,
    print_table_head,
    print_table_line,
    read_meta,
    read_reference,
    run_planish,
)

from planish.bench.contest import OURS, Contest, Course, compete
from planish.bench.turns import PEERS, EngineFailed, check_peers, warn_of_load
from planish.ir.errors import PlanishError

Record = dict[str, Any]


def measure(folder: Path, threads: int, options: argparse.Namespace) -> Record:
    """One row; EngineFailed if planish does not take the model."""
    model = folder / f"{folder.name}.onnx"
    inputs, expected = read_reference(folder)
    with tempfile.TemporaryDirectory(prefix="planish-peers-") as scratch:
        work = Path(scratch)
        artefact = work / folder.name
        built = build(model, artefact, inputs, threads, options)
        course = Course(threads, options.rounds, options.seconds)
        contest = compete(model, artefact, inputs, options.against, course, work)
    check = check_outputs(model, inputs, contest.outputs[OURS], expected, read_meta(folder))
    judged = judge(contest, check)
    return {"model": folder.name, "threads": threads, **built, **judged}


def build(
    model: Path,
    artefact: Path,
    inputs: Mapping[str, np.ndarray],
    threads: int,
    options: argparse.Namespace,
) -> Record:
    """Compiles a model, or tunes it; what came of the tuning."""
    if options.budget is None:
        compile_model(model, artefact, inputs, threads)
        return {}
    words = ["tune", str(model), "-o", str(artefact), "--budget", options.budget]
    words += ["--log", str(options.log)] if options.log else []
    told = run_planish(words, inputs, threads)
    tuning, race = told["tuning"], told["race"]
    return {
        "shipped": told["shipped"],
        "trials": tuning["trials"],
        "tuned_for": tuning["seconds"],
        "kernels": tuning["default"] / tuning["best"] if tuning["best"] else None,
        "against_untuned": race["speed"] if race else 1.0,
    }


def judge(contest: Contest, check: Record) -> Record:
    """Seconds by engine, the speed against the better peer, and planish's error."""
    peers = {name: timing for name, timing in contest.timings.items() if name != OURS}
    return {
        "seconds": {name: timing.median for name, timing in contest.timings.items()},
        "speeds": {name: timing.speed for name, timing in peers.items()},
        "speed": min((timing.speed for timing in peers.values()), default=None),
        "refused": dict(contest.refused),
        "others": contest.others,
        "check": check,
    }


def summarise(records: Sequence[Record], threads: int) -> Record:
    """The geometric mean and the least of the speeds with so many threads."""
    speeds = {
        record["model"]: record["speed"]
        for record in records
        if record["threads"] == threads and record.get("speed") is not None
    }
    return {
        "threads": threads,
        "models": len(speeds),
        "geometric_mean": statistics.geometric_mean(speeds.values()) if speeds else None,
        "least": min(speeds.values(), default=None),
        "slowest": min(speeds, key=lambda name: speeds[name], default=None),
    }


def headings(peers: Sequence[str], tuned: bool) -> list[str]:
    """The table's first line."""
    return [
        "model",
        "threads",
        "planish ms",
        *(f"{p} ms" for p in peers),
        "speed",
        "of largest",
        "within",
        *(("trials", "of untuned") if tuned else ()),
    ]


def cells(record: Record, peers: Sequence[str]) -> list[str]:
    """A record as text; two cells for a failure."""
    if "failed" in record:
        return [record["model"], record["failed"]]
    seconds, check = record["seconds"], record["check"]
    times = [f"{seconds[p] * 1e3:.3f}" if p in seconds else "-" for p in (OURS, *peers)]
    speed = "-" if record["speed"] is None else f"{record['speed']:.2f}"
    verdict = "yes" if check["ok"] else "NO"
    return [
        record["model"],
        str(record["threads"]),
        *times,
        speed,
        f"{check['relative']:.2g}",
        verdict,
        *_cells_of_tuning(record),
    ]


def _cells_of_tuning(record: Record) -> list[str]:
    """Trials, and the tuned artefact's speed against the untuned one in their own race."""
    if "trials" not in record:
        return []
    speed = f"{record['against_untuned']:.3f}"
    return [str(record["trials"]), speed if record["shipped"] == "tuned" else f"({speed})"]


def notes(record: Record) -> list[str]:
    """What makes a line of the table less than it seems."""
    told = [f"{peer} did not take it: {why}" for peer, why in record.get("refused", {}).items()]
    told += record.get("check", {}).get("reasons", ())
    loaded = warn_of_load(record.get("others", 0.0))
    return [*told, loaded] if loaded else told


def print_summary(found: Record) -> None:
    """The line under the table."""
    course = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    if found["geometric_mean"] is None:
        print(f"{course}: no model was timed against a peer")
        return
    print(
        f"{course}, {found['models']} models: geometric mean "
        f"{found['geometric_mean']:.2f}, least {found['least']:.2f} ({found['slowest']})"
    )


def run(options: argparse.Namespace) -> int:
    """Prints the table; 1 if a model failed or is out of tolerance."""
    models = find_models(options.folder, options.models)
    heads = headings(options.against, options.budget is not None)
    wide = max(len(path.name) for path in models)
    if not options.json:
        print_table_head(heads, wide)
    records = []
    for folder in models:
        for threads in options.threads:
            try:
                record = measure(folder, threads, options)
            except EngineFailed as error:
                told = " ".join(str(error).split())
                record = {"model": folder.name, "threads": threads, "failed": told}
            records.append(record)
            if options.json:
                print(json.dumps(record), flush=True)
                continue
            print_table_line(cells(record, options.against), heads, wide)
            for note in notes(record):
                print(f"{folder.name}: {note}", file=sys.stderr)
    for threads in options.threads:
        found = summarise(records, threads)
        if options.json:
            print(json.dumps(found))
        else:
            print_summary(found)
    return int(any(not record.get("check", {}).get("ok", False) for record in records))


def parse_options() -> argparse.Namespace:
    """The command line."""

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    def counts(text: str) -> list[int]:
        return [int(count) for count in names(text)]

    parser = argparse.ArgumentParser(
        description="Compile a folder of models and time it against other engines, in turn."
    )
    parser.add_argument("folder", type=Path, help="folder of models, a folder each")
    parser.add_argument("--models", default="", help="only these, separated by commas")
    parser.add_argument("--threads", type=counts, default=[2, 1], help="of all engines (2,1)")
    parser.add_argument("--against", type=names, default=list(PEERS), help=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=5, help="turns of timing (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="a turn's length (0.5)")
    parser.add_argument("--budget", help="tune each model for so long first, as `planish tune`")
    parser.add_argument("--log", type=Path, help="the tuning log (default: the user's store)")
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead")
    return parser.parse_args()


def main() -> int:
    """The command."""
    options = parse_options()
    try:
        check_peers(options.against)
    except PlanishError as error:
        sys.exit(str(error))
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
