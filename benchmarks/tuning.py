"""How soon tuning pays: `python benchmarks/tuning.py MODEL_FOLDER PART --work FOLDER`.

MODEL_FOLDER is as a folder of zoo.py; what is tuned stays in --work. Artefacts and onnxruntime are
timed in turn, each in a process of its own. The parts:

    result   a minute of tuning from an empty log, against onnxruntime
    trials   64 trials a task against 640 (--few, --many)
    again    a compilation with the log against the first tuning: trials, bytes, seconds
    seeds    the log of other hardware (an edited copy) as seeds, against no log: trials until
             the kernels are within 1 % of the best that either finds
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo import read_reference, run_planish

from planish.bench.contest import save_arrays
from planish.bench.turns import summarise, take_turns, workers

Record = dict[str, Any]
Engines = Mapping[str, tuple[str, Path]]


class Bench:
    """A model, its inputs, and where to work."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.model = folder / f"{folder.name}.onnx"
        self.inputs, _ = read_reference(folder)
        self.work: Path = options.work
        self.threads: int = options.threads
        self.options = options
        self.work.mkdir(parents=True, exist_ok=True)

    def tune(self, label: str, log: Path, *limits: str, seed: int = 0) -> Record:
        """Runs `planish tune` into the artefact `label`; what it tells, which is also kept."""
        words = ["tune", str(self.model), "-o", str(self.work / label), "--log", str(log)]
        told = run_planish([*words, "--seed", str(seed), *limits], self.inputs, self.threads)
        (self.work / f"{label}.json").write_text(json.dumps(told))
        return told

    def compile(self, label: str, *words: str) -> Record:
        """Runs `planish compile` into the artefact `label`."""
        command = ["compile", str(self.model), "-o", str(self.work / label), *words]
        return run_planish(command, self.inputs, self.threads)

    def race(self, engines: Engines) -> dict[str, float]:
        """Median latencies in turn: label → (engine, artefact or model)."""
        feeds = self.work / "inputs.npz"
        save_arrays(feeds, self.inputs)
        with workers({label: (engine, {}) for label, (engine, _) in engines.items()}) as started:
            for label, (_, path) in engines.items():
                started[label].ask(
                    do="start", model=str(path), inputs=str(feeds), threads=self.threads
                )
            rounds = take_turns(started, self.options.rounds, self.options.seconds)
        first = next(iter(engines))
        found = summarise(rounds, first)
        for label, timing in found.items():
            print(f"  {label}: {timing.median * 1e3:.3f} ms, {timing.speed:.3f} of {first}'s")
        return {label: timing.speed for label, timing in found.items()}


def _show(told: Record) -> str:
    tuning = told["tuning"]
    gain = tuning["default"] / tuning["best"] if tuning["best"] else float("nan")
    return (
        f"{tuning['trials']} trials of {len(tuning['tasks'])} tasks in {tuning['seconds']:.0f} s, "
        f"kernels alone {gain:.3f} times as fast, {told['shipped']} shipped: {told['verdict']}"
    )


def result(bench: Bench) -> None:
    """The latency that a minute buys."""
    log = bench.work / "result.jsonl"
    log.unlink(missing_ok=True)
    begin = time.monotonic()
    told = bench.tune("minute", log, "--budget", bench.options.budget)
    print(
        f"--budget {bench.options.budget}, {time.monotonic() - begin:.0f} s in all: {_show(told)}"
    )
    curve = told["tuning"]["curve"]
    print(f"  all defaults measured after {curve[0]['elapsed']:.1f} s")
    bench.race({"tuned": ("planish", bench.work / "minute"), "onnxruntime": _peer(bench)})


def _peer(bench: Bench) -> tuple[str, Path]:
    return "onnxruntime", bench.model


def trials(bench: Bench) -> None:
    """Few trials a task against many, the second going on where the first ended."""
    log = bench.work / "trials.jsonl"
    log.unlink(missing_ok=True)
    few, many = bench.options.few, bench.options.many
    count = len(bench.tune("probe", log, "--trials", "1")["tuning"]["tasks"])
    for label, number in (("few", few * count - 1), ("many", (many - few) * count)):
        told = bench.tune(label, log, "--trials", str(number))
        shutil.copy(log, bench.work / f"{label}.jsonl")
        print(f"{label}: {_show(told)}", flush=True)
    bench.race(
        {
            "many": ("planish", bench.work / "many"),
            "few": ("planish", bench.work / "few"),
            "onnxruntime": _peer(bench),
        }
    )


def again(bench: Bench) -> None:
    """What the log saves the second time; the first is the minute of `result`."""
    log, first = bench.work / "result.jsonl", bench.work / "minute"
    if not log.exists():
        result(bench)
    told = json.loads((bench.work / "minute.json").read_text())
    before = log.read_bytes()
    seconds = statistics.median(_compile_again(bench, log) for _ in range(3))
    same = all(
        (bench.work / "again" / path.name).read_bytes() == path.read_bytes()
        for path in first.iterdir()
    )
    tuned = told["wall"]
    print(
        f"compiled again in {seconds:.1f} s, after {tuned:.1f} s: {tuned / seconds:.1f} times "
        f"quicker, {'the same bytes' if same else 'OTHER BYTES'}, "
        f"{'no trial' if log.read_bytes() == before else 'TRIALS WERE MADE'}"
    )


def _compile_again(bench: Bench, log: Path) -> float:
    return float(bench.compile("again", "--log", str(log))["wall"])


def seeds(bench: Bench) -> None:
    """Trials with another device's log, and without."""
    if not (bench.work / "result.jsonl").exists():
        result(bench)
    for seed in range(bench.options.seeds):
        curves: dict[str, list[float]] = {}
        for label in ("seeded", "alone"):
            log = bench.work / f"{label}-{seed}.jsonl"
            log.write_bytes(b"")
            if label == "seeded":
                _elsewhere(bench.work / "result.jsonl", log)
            given = len(log.read_text().splitlines())
            limits = ("--trials", str(bench.options.limit))
            told = bench.tune(label, log, *limits, seed=seed)["tuning"]
            curves[label] = _curve(log.read_text().splitlines()[given:], told["tasks"])
        aim = 1.01 * min(curve[-1] for curve in curves.values())
        needed = {label: _trials_to(curve, aim) for label, curve in curves.items()}
        ends = {label: round(curve[-1], 3) for label, curve in curves.items()}
        print(
            f"seed {seed}: trials to {aim:.3f} of the defaults' time: {needed}, in the end {ends}"
        )


def _curve(lines: list[str], tasks: list[Record]) -> list[float]:
    """The kernels' time by their defaults', trial by trial; times of a task are on one scale."""
    weights = {task["task"]: len(task["kernels"]) * (task["default"] or 0.0) for task in tasks}
    default: dict[str, float] = {}
    best: dict[str, float] = {}
    curve = []
    for entry in map(json.loads, lines):
        if entry["kind"] != "trial":
            continue
        task, seconds = entry["task"], entry.get("median")
        if seconds is not None:
            default.setdefault(task, seconds)  # which is measured first
            best[task] = min(seconds, best.get(task, seconds))
        spent = sum(w * best.get(t, 1.0) / default.get(t, 1.0) for t, w in weights.items())
        curve.append(spent / sum(weights.values()))
    return curve


def _elsewhere(log: Path, copy: Path) -> None:
    """A copy of a log as if measured on a CPU of less cache."""
    lines = []
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "header":
            entry["hardware"]["l2"] //= 2
        lines.append(json.dumps(entry))
    copy.write_text("\n".join(lines) + "\n")


def _trials_to(curve: list[float], aim: float) -> int | None:
    return next((trials for trials, spent in enumerate(curve, 1) if spent <= aim), None)


PARTS = {"result": result, "trials": trials, "again": again, "seeds": seeds}


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How soon tuning pays.")
    parser.add_argument("folder", type=Path, help="a model's folder, with reference.npz")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--work", type=Path, required=True, help="a folder to work in")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", default="60s", help="of `result` (60s)")
    parser.add_argument("--few", type=int, default=64, help="trials a task (64)")
    parser.add_argument("--many", type=int, default=640, help="trials a task (640)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of `seeds` (3)")
    parser.add_argument("--limit", type=int, default=200, help="trials of each in `seeds` (200)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of timing (9)")
    parser.add_argument("--seconds", type=float, default=0.5, help="a turn's length (0.5)")
    return parser.parse_args()


def main() -> int:
    """The command."""
    options = parse_options()
    PARTS[options.part](Bench(options.folder, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
