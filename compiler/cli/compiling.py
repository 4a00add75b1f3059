"""`planish compile`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from planish.cli.emitting import Emission, emit_kernels
from planish.cli.options import parse_dims, parse_shapes
from planish.cli.printing import print_table, spell_bytes, spell_count, spell_seconds
from planish.cli.progress import StageProgress
from planish.cli.refusals import Refusals
from planish.cli.running import read_npz
from planish.cli.terminal import say
from planish.custom import assemble, labelled
from planish.driver import CompileReport, compile, schedule_model
from planish.ir.errors import PlanishError
from planish.ir.graph import Graph
from planish.ir.target import Target
from planish.ir.text import print_graph
from planish.passes.pass_ import Step
from planish.passes.pipeline import Observer
from planish.passes.trace import recording


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    target: str
    dims: Sequence[str]
    shapes: Sequence[str]
    name: str | None
    threads: int | None
    verify: bool
    inputs: Path | None
    print_after: Sequence[str]
    passes: Sequence[str]
    ops: Sequence[str]
    log: bool | Sequence[Path]
    keep_subnormals: bool
    symbols: bool
    emission: Emission | None
    verbose: bool
    explained: bool


def run_compile(model: Path, output: Path | None, options: Options, *, as_json: bool) -> None:
    """Compiles and prints the report, and the code that is asked for; without `output` that alone.

    PlanishError for options that cannot be read.
    """
    if output is None and options.emission is None:
        raise PlanishError("planish compile takes --output FOLDER for the artefact, or --emit KIND")
    steps = assemble(options.passes)
    show = printer(steps, options.print_after, sys.stderr if as_json else sys.stdout)
    report: CompileReport | None = None
    graph: Graph | None
    with StageProgress(enabled=not as_json) as progress, recording() as events:
        refusals = Refusals(steps, events, show)
        if output is None:
            graph, target = _schedule(model, options, refusals, progress)
        else:
            report = _compile(model, output, options, refusals, progress)
            graph, target = refusals.graph, report.target
    told: dict[str, object] = {"refused": refusals.to_json()}
    if not as_json:
        for line in refusals.lines(options.explained):
            say(line)
    if options.emission is not None and graph is not None:
        emitted = emit_kernels(options.emission, graph, target, options.ops, as_json=as_json)
        told["emitted"] = emitted
    if as_json:
        say(json.dumps({**(report_json(report) if report else {}), **told}))
    elif report is not None:
        _print_report(report, options.verbose)


def _schedule(
    model: Path, options: Options, refusals: Refusals, progress: StageProgress
) -> tuple[Graph, Target]:
    progress("optimise", 0, 0)
    return schedule_model(
        model,
        target=options.target,
        dims=parse_dims(options.dims),
        shapes=parse_shapes(options.shapes),
        passes=options.passes,
        ops=options.ops,
        observer=refusals.observe,
        threads=options.threads,
        log=options.log,
    )


def _compile(
    model: Path, output: Path, options: Options, refusals: Refusals, progress: StageProgress
) -> CompileReport:
    return compile(
        model,
        output,
        target=options.target,
        dims=parse_dims(options.dims),
        shapes=parse_shapes(options.shapes),
        name=options.name,
        verify=options.verify,
        inputs=read_npz(options.inputs) if options.inputs is not None else None,
        passes=options.passes,
        ops=options.ops,
        observer=refusals.observe,
        threads=options.threads,
        log=options.log,
        keep_subnormals=options.keep_subnormals,
        symbols=options.symbols,
        progress=progress,
    )


def printer(steps: Sequence[Step], wanted: Sequence[str], stream: TextIO) -> Observer | None:
    """Prints the graph after the passes asked for, by name, or by "simplify#2"; None for none.

    PlanishError for a name that none of the steps has.
    """
    if not wanted:
        return None
    labels = labelled(steps)
    for name in wanted:
        if name != "all" and name not in labels:
            raise PlanishError(
                f"--print-after {name}: there is no such pass; passes are "
                f"{', '.join(labels)}, and 'all'"
            )
    left = iter(labels)

    def show(name: str, before: Graph, after: Graph, seconds: float) -> None:
        label = next(left)
        if {"all", name, label} & set(wanted):
            changed = "" if after is not before else ", unchanged"
            say(f"// after {label}{changed}\n{print_graph(after)}", file=stream)

    return show


def report_json(report: CompileReport) -> dict[str, object]:
    """The report for programs; seconds by stage, sizes in bytes."""
    found = report.verification
    return {
        "name": report.name,
        "output": str(report.output),
        "target": report.target.name,
        "threads": report.target.cores,
        "kernels": len(report.manifest.kernels),
        "artefact_bytes": report.artefact_bytes,
        "weights_bytes": report.manifest.weights_bytes,
        "arena_bytes": report.manifest.arena_bytes,
        "digest": report.manifest.digest,
        "seconds": dict(report.seconds),
        "log": report.log.to_json() if report.log else None,
        "verify": found.to_json() if found else {"skipped": report.unverified},
    }


def _print_report(report: CompileReport, verbose: bool) -> None:
    manifest = report.manifest
    if verbose:
        rows = [(stage, spell_seconds(seconds)) for stage, seconds in report.seconds.items()]
        print_table("Stages", ("stage", ">time"), rows)
        kernels = [
            (
                kernel.name,
                spell_count(kernel.flops),
                spell_bytes(kernel.bytes),
                " ".join(kernel.ops),
                ", ".join(kernel.onnx_nodes),
            )
            for kernel in manifest.kernels
        ]
        print_table("Kernels", ("kernel", ">flops", ">traffic", "ops", "ONNX nodes"), kernels)
    say(
        f"{report.output}: {len(manifest.kernels)} kernels for target '{report.target.name}' "
        f"and {report.target.cores} thread{'s' if report.target.cores > 1 else ''}, "
        f"{spell_bytes(report.artefact_bytes)} (weights {spell_bytes(manifest.weights_bytes)}), "
        f"compiled in {spell_seconds(sum(report.seconds.values()))}"
    )
    if report.log is not None:
        say(report.log)
    found = report.verification
    if found is None:
        say(f"not verified: {report.unverified}")
        return
    say(
        f"verified against {found.reference}: largest error {found.worst.max_abs:.3g}, "
        f"{found.worst.max_rel:.3g} of the largest value (output '{found.worst.name}')"
    )
