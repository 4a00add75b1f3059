"""`planish bench`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer

from planish.artefact.loading import Model, load
from planish.bench.contest import OURS, Contest, Course, compete
from planish.bench.peaks import Peaks, measure_peaks
from planish.bench.precision import Error, error_of, exact_outputs
from planish.bench.roofline import (
    KernelFigure,
    achieved_overall,
    excess,
    judge_kernels,
    spell_achieved,
    time_kernels,
)
from planish.bench.turns import check_peers, warn_of_load
from planish.bench.worker import aligned
from planish.cli.options import parse_dims, parse_shapes
from planish.cli.printing import print_table, spell_bytes, spell_seconds
from planish.cli.progress import StageProgress
from planish.cli.running import read_npz
from planish.cli.terminal import say
from planish.driver import compile
from planish.inputs import random_inputs
from planish.ir.errors import PlanishError
from planish.ir.graph import Graph
from planish.ir.onnx import import_model
from planish.ir.scratch import scratch_folder
from planish.targets.hardware import usable_cores
from planish.verify import is_right

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    target: str
    dims: Sequence[str]
    shapes: Sequence[str]
    inputs: Path | None
    against: tuple[str, ...]
    threads: int | None
    rounds: int
    seconds: float
    top: int | None
    precision_check: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured; None where it was not asked for.

    `others` is the most CPUs that other processes used meanwhile. `wrong` has, by peer, what of
    planish's outputs differs from the peer's by more than the table of tolerances allows.
    """

    threads: int
    peaks: Peaks
    kernels: Sequence[KernelFigure] | None = None
    contest: Contest | None = None
    errors: Mapping[str, Error] | None = None
    others: float = 0.0
    wrong: Mapping[str, str] = field(default_factory=dict)


def run_bench(subject: Path | None, options: Options, *, as_json: bool) -> None:
    """Measures and prints; exits with 1 where planish's outputs differ from a peer's."""
    check_peers(options.against)
    _check_options(subject, options)
    with StageProgress(enabled=not as_json) as progress, ExitStack() as stack:
        scratch = Path(stack.enter_context(scratch_folder()))
        found = _measure(subject, options, scratch, progress)
    if as_json:
        say(json.dumps(findings_json(subject, found, options.top)))
    else:
        _print_findings(found, options.top)
    note = warn_of_load(found.others)
    if note:
        say(f"planish: {note}", file=sys.stderr)
    for peer, reasons in found.wrong.items():
        say(f"planish: out of tolerance of {peer}: {reasons}", file=sys.stderr)
    if found.wrong:
        raise typer.Exit(1)


def _check_options(subject: Path | None, options: Options) -> None:
    """PlanishError for options that need a model where there is none."""
    if subject is not None and not subject.is_dir():
        return
    given = {
        "--against": options.against,
        "--precision-check": options.precision_check,
        "--target": options.target != "host",
        "--dim": options.dims,
        "--shape": options.shapes,
    }
    unusable = [name for name, value in given.items() if value]
    if unusable:
        raise PlanishError(
            f"{' and '.join(unusable)} {'is' if len(unusable) == 1 else 'are'} of an ONNX model: "
            "give the .onnx file" + (f", not the artefact '{subject}'" if subject else "")
        )


def _measure(
    subject: Path | None, options: Options, scratch: Path, progress: StageProgress
) -> Findings:
    if subject is None:
        threads = options.threads or usable_cores()
        peaks = measure_peaks(threads, progress)
        return Findings(threads, peaks, others=peaks.others)
    given = read_npz(options.inputs) if options.inputs is not None else None
    artefact = subject
    if not subject.is_dir():
        artefact = scratch / "artefact"
        _compile(subject, artefact, options, given, progress)
    with load(artefact, threads=options.threads) as model:
        inputs = given if given is not None else _random(model)
        arrays = {name: aligned(array) for name, array in inputs.items()}
        seconds, others = time_kernels(model, arrays, options.seconds, progress)
        threads, infos = model.threads, model.kernels
    peaks = measure_peaks(threads, progress)
    # More threads than CPUs do not raise what the machine can do.
    figures = judge_kernels(infos, seconds, peaks, min(threads, max(peaks.flops)))
    others = max(others, peaks.others)
    found = Findings(threads, peaks, figures, others=others)
    if not options.against and not options.precision_check:
        return found
    course = Course(threads, options.rounds, options.seconds, progress)
    contest = compete(subject, artefact, inputs, options.against, course, scratch)
    graph = import_model(subject, dims=parse_dims(options.dims), shapes=_shapes(options, given))
    return dataclasses.replace(
        found,
        contest=contest,
        errors=_errors(graph, inputs, contest, progress) if options.precision_check else None,
        others=max(others, contest.others),
        wrong=_wrong(contest, lambda: is_right(contest.outputs[OURS], graph, subject, inputs)),
    )


def _wrong(contest: Contest, ours_are_right: Callable[[], bool]) -> dict[str, str]:
    """What differs from each peer, unless it is the peer that is off."""
    told: dict[str, str] = {}
    for peer in contest.timings:
        found = contest.differences(peer)
        reasons = [f"output '{name}': {d.reason}" for name, d in found.items() if not d.ok]
        if reasons:
            told[peer] = "; ".join(reasons)
    return {} if told and ours_are_right() else told


def _compile(
    model: Path, output: Path, options: Options, given: Arrays | None, progress: StageProgress
) -> None:
    # Not verified: the peers do that, and a time is a time.
    compile(
        model,
        output,
        target=options.target,
        dims=parse_dims(options.dims),
        shapes=_shapes(options, given),
        threads=options.threads,
        verify=False,
        progress=progress,
    )


def _shapes(options: Options, given: Arrays | None) -> dict[str, tuple[int, ...]]:
    """Shapes of --shape, which win, and of the arrays of --inputs."""
    of_arrays = {name: array.shape for name, array in (given or {}).items()}
    return of_arrays | parse_shapes(options.shapes)


def _random(model: Model) -> Arrays:
    """What `planish run --random` would take."""
    bounds: Mapping[str, int] = model.manifest.options.get("input_bounds", {})
    return random_inputs([(t.name, t.dtype, t.shape) for t in model.inputs], bounds)


def _errors(
    graph: Graph, inputs: Arrays, contest: Contest, progress: StageProgress
) -> dict[str, Error]:
    progress("float64 reference", 0, 0)
    exact = exact_outputs(graph, inputs)
    return {name: error_of(outputs, exact) for name, outputs in contest.outputs.items()}


def findings_json(subject: Path | None, found: Findings, top: int | None) -> dict[str, Any]:
    """The findings for programs: seconds, bytes, flops, and rates of them a second."""
    shown: dict[str, Any] = {
        "model": None if subject is None else os.fspath(subject),
        "threads": found.threads,
        "peaks": {
            "flops": {str(count): rate for count, rate in found.peaks.flops.items()},
            "bandwidths": [
                {"level": b.level.name, "threads": b.threads, "bytes": b.bytes, "rate": b.rate}
                for b in found.peaks.bandwidths
            ],
        },
    }
    if found.kernels is not None:
        shown["kernels"] = [
            _kernel_json(figure, found.peaks.others) for figure in found.kernels[:top]
        ]
        shown["seconds"] = sum(figure.seconds for figure in found.kernels)
        shown["others"] = found.others
        shown["achieved"] = achieved_overall(found.kernels) if found.kernels else None
    if found.contest is not None:
        shown["engines"] = {
            name: dataclasses.asdict(timing) for name, timing in found.contest.timings.items()
        }
        shown["refused"] = dict(found.contest.refused)
        shown["out_of_tolerance"] = dict(found.wrong)
    if found.errors is not None:
        shown["errors"] = {name: dataclasses.asdict(e) for name, e in found.errors.items()}
    return shown


def _kernel_json(figure: KernelFigure, others: float) -> dict[str, Any]:
    return {
        "name": figure.kernel.name,
        "onnx_nodes": list(figure.kernel.onnx_nodes),
        "seconds": figure.seconds,
        "share": figure.share,
        "flops": figure.kernel.flops,
        "bytes": figure.kernel.bytes,
        "level": figure.level,
        "bound": figure.bound,
        "roofline": figure.roofline,
        "achieved": figure.achieved,
        "excess": _excess(figure, others),
    }


def _print_findings(found: Findings, top: int | None) -> None:
    _print_peaks(found.peaks)
    if found.kernels is not None:
        _print_kernels(found.kernels, found, top)
    if found.contest is not None:
        _print_contest(found, found.contest)


def _print_peaks(peaks: Peaks) -> None:
    rows = [
        ("float32 multiply-add", count, "", f"{rate / 1e9:.0f} GFLOPS")
        for count, rate in peaks.flops.items()
    ]
    rows += [
        (f"reading {b.level.name}", b.threads, spell_bytes(b.bytes), f"{b.rate / 1e9:.0f} GB/s")
        for b in peaks.bandwidths
    ]
    print_table("This machine's peaks", ("", ">threads", ">of each", ">peak"), rows)


def _print_kernels(figures: Sequence[KernelFigure], found: Findings, top: int | None) -> None:
    threads = found.threads
    rows = [
        (
            f.kernel.name,
            spell_seconds(f.seconds),
            f"{f.share:.1%}",
            f"{f.gflops:.1f}",
            f"{f.gbs:.1f}",
            f.level,
            f.bound,
            spell_achieved(f.achieved),
            ", ".join(f.kernel.onnx_nodes),
        )
        for f in figures[:top]
    ]
    headings = ("kernel", ">time", ">share", ">GFLOPS", ">GB/s", "lives in", "bound by")
    print_table(
        f"Kernels, {threads} thread{'s' * (threads != 1)}",
        (*headings, ">of roofline", "ONNX nodes"),
        rows,
    )
    if not figures:
        say("the model has no kernels")
        return
    left = f", of which {len(rows)} are shown," if len(rows) < len(figures) else ""
    say(
        f"{len(figures)} kernels{left} take {spell_seconds(sum(f.seconds for f in figures))}, "
        f"{spell_achieved(achieved_overall(figures))} of their rooflines"
    )
    told = (_excess(figure, found.peaks.others) for figure in figures[:top])
    for reason in dict.fromkeys(filter(None, told)):
        say(f"* above the roofline: {reason}")


def _excess(figure: KernelFigure, others: float) -> str:
    return excess(figure.achieved, figure.bound, " ".join(figure.kernel.ops), others)


def _print_contest(found: Findings, contest: Contest) -> None:
    rows = []
    for name, timing in contest.timings.items():
        ours = name == OURS
        row = [name, spell_seconds(timing.median), f"{timing.spread:.1%}"]
        row += ["" if ours else f"{timing.speed:.2f}"]
        row += ["" if ours else "NO" if name in found.wrong else "yes"]
        if found.errors is not None:
            error = found.errors[name]
            row += [f"{error.largest:.2g}", f"{error.rms:.2g}"]
        rows.append(row)
    headings = ["engine", ">median", ">spread", ">speed", "outputs agree"]
    headings += [] if found.errors is None else [">largest error", ">rms error"]
    print_table("In turn; speed above 1: planish is faster", headings, rows)
    if found.errors is not None:
        say("errors are against float64, by the output's largest magnitude and root mean square")
    for name, reason in contest.refused.items():
        say(f"{name} did not take the model: {reason}")
