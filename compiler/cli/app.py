"""The commands of `planish` and their options; what they do stands in a module for each."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

import planish
from planish.cli.boundary import guarded
from planish.cli.log_app import log_app
from planish.ir.errors import PlanishError

app = typer.Typer(
    name="planish",
    help="Compile ONNX models to native artefacts that stand alone.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},  # of all commands
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(log_app, name="log")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads (default: all usable CPUs).")
]
KeepSubnormals = Annotated[
    bool,
    typer.Option(
        "--keep-subnormals", help="Compute with subnormal numbers, not with zeros for them: slow."
    ),
]
Target = Annotated[str, typer.Option(help="Hardware, see `planish targets`.")]
Dims = Annotated[list[str] | None, typer.Option(metavar="NAME=N", help="Fix a symbolic dimension.")]
Shapes = Annotated[
    list[str] | None, typer.Option(metavar="INPUT=1,3,…", help="Fix an input's shape.")
]
PrintAfter = Annotated[
    list[str] | None,
    typer.Option(metavar="PASS", help="Print the graph after a pass, or after 'all'."),
]
Passes = Annotated[
    list[str] | None,
    typer.Option(
        "--pass",
        metavar="MODULE:NAME[@after=PASS]",
        help="Run a pass or rule of your own, or an installed one by its name.",
    ),
]
Ops = Annotated[
    list[str] | None, typer.Option("--op", metavar="MODULE:NAME", help="Know an op of your own.")
]


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks is spelled out; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="planish")


def _version(asked: bool) -> None:
    if asked:
        print(f"planish {planish.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command("compile")
@guarded
def compile_command(
    model: Annotated[Path, typer.Argument(help="The ONNX model.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the artefact.")
    ] = None,
    target: Target = "host",
    dim: Dims = None,
    shape: Shapes = None,
    name: Annotated[str | None, typer.Option(help="Prefix of the C interface.")] = None,
    threads: Threads = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare with a reference first.")
    ] = True,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Verify on these inputs, by name, besides."),
    ] = None,
    print_after: PrintAfter = None,
    passes: Passes = None,
    ops: Ops = None,
    log: Annotated[
        list[Path] | None,
        typer.Option("--log", metavar="FILE", help="Tuning log (default: what is stored)."),
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Default schedules, whatever was measured.")
    ] = False,
    keep_subnormals: KeepSubnormals = False,
    symbols: Annotated[
        bool, typer.Option("--symbols", help="Keep kernels' names in the library: nm, perf, gdb.")
    ] = False,
    emit: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Show the kernels' code: tir, llvm or asm."),
    ] = None,
    emit_to: Annotated[
        Path | None,
        typer.Option("--emit-to", metavar="FOLDER", help="Write that there (default: stdout)."),
    ] = None,
    kernel: Annotated[
        str, typer.Option(metavar="NAME", help="Only that kernel's code, or that ONNX node's.")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show stages, kernels.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what each pass refused to do, and why.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compile MODEL into an artefact: a library, its weights, a C header and a manifest."""
    from planish.cli.compiling import Options, run_compile
    from planish.cli.emitting import Emission

    if log and no_log:
        raise PlanishError("--log and --no-log exclude each other")
    if emit is None and (emit_to is not None or kernel):
        raise PlanishError("--emit-to and --kernel are of --emit KIND: tir, llvm or asm")
    options = Options(
        target=target,
        dims=dim or (),
        shapes=shape or (),
        name=name,
        threads=threads,
        verify=verify,
        inputs=inputs,
        print_after=print_after or (),
        passes=passes or (),
        ops=ops or (),
        log=log or not no_log,
        keep_subnormals=keep_subnormals,
        symbols=symbols,
        emission=None if emit is None else Emission(emit, kernel, emit_to),
        verbose=verbose,
        explained=explain,
    )
    run_compile(model, output, options, as_json=as_json)


@app.command("run")
@guarded
def run_command(
    artefact: Annotated[Path, typer.Argument(help="Folder of the artefact.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=FILE", help="A .npy, .npz or raw file."),
    ] = None,
    npz: Annotated[Path | None, typer.Option(help="One .npz with every input by name.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random inputs.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Outputs: .npz, or .npy or raw for one.")
    ] = None,
    threads: Threads = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="Run so often, and tell latencies and throughput.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="The same for so long: 5s, 1m30s.")
    ] = None,
    warm_up: Annotated[
        int | None, typer.Option("--warm-up", min=0, help="Runs before that do not count.")
    ] = None,
    kernels: Annotated[bool, typer.Option("--time", help="Tell each kernel's time.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a run's time line, for ui.perfetto.dev."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an artefact once, --repeat times or for a --duration, and show or save its outputs."""
    from planish.cli.running import Options, run_artefact

    options = Options(
        files=inputs or (),
        npz=npz,
        seed=seed if random else None,
        output=output,
        threads=threads,
        repeat=repeat,
        duration=duration,
        warm_up=warm_up,
        time_kernels=kernels,
        trace=trace,
    )
    run_artefact(artefact, options, as_json=as_json)


@app.command("inspect")
@guarded
def inspect_command(
    subject: Annotated[Path, typer.Argument(help="An ONNX model or an artefact's folder.")],
    check: Annotated[
        bool, typer.Option("--check", help="Check every byte of an artefact.")
    ] = False,
    dim: Dims = None,
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    """Show what is in a model or an artefact."""
    from planish.cli.inspecting import inspect

    inspect(subject, check=check, dims=dim or (), shapes=shape or (), as_json=as_json)


@app.command("opt")
@guarded
def opt_command(
    model: Annotated[Path | None, typer.Argument(help="The ONNX model.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the graph: .txt, .dot, or .html to look into."),
    ] = None,
    target: Target = "host",
    dim: Dims = None,
    shape: Shapes = None,
    passes: Passes = None,
    ops: Ops = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell what fired where, and what refused and why.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the model after each pass.")
    ] = False,
    print_after: PrintAfter = None,
    listed: Annotated[
        str | None,
        typer.Option("--passes", metavar="list", help="List the passes, in order, and stop."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Optimise MODEL and show what each pass does; compiles nothing."""
    from planish.cli.optimising import list_passes, run_opt

    if listed is not None:
        if listed != "list":
            raise PlanishError(f"--passes {listed}: only `--passes list` is known; see --pass")
        list_passes(passes or (), as_json=as_json)
        return
    if model is None:
        raise PlanishError("planish opt takes a MODEL, or --passes list")
    run_opt(
        model,
        output,
        target=target,
        dims=dim or (),
        shapes=shape or (),
        passes=passes or (),
        ops=ops or (),
        print_after=print_after or (),
        explained=explain,
        verify=verify,
        as_json=as_json,
    )


@app.command("bisect")
@guarded
def bisect_command(
    model: Annotated[Path, typer.Argument(help="The ONNX model.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The minimal model (default: MODEL.minimal.onnx)."),
    ] = None,
    target: Target = "host",
    dim: Dims = None,
    shape: Shapes = None,
    passes: Passes = None,
    ops: Ops = None,
    seed: Annotated[int, typer.Option(help="Seed of the random inputs.")] = 0,
    code: Annotated[
        bool, typer.Option("--code/--no-code", help="Search the compiled code too.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Find the first pass, node or kernel that is wrong, and a minimal MODEL that shows it.

    Exits with 1 if something is wrong.
    """
    from planish.cli.bisecting import run_bisect

    run_bisect(
        model,
        output,
        target=target,
        dims=dim or (),
        shapes=shape or (),
        passes=passes or (),
        ops=ops or (),
        seed=seed,
        compiled=code,
        as_json=as_json,
    )


@app.command("bench")
@guarded
def bench_command(
    subject: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL_OR_ARTEFACT",
            help="An ONNX model or an artefact's folder; without one, the machine alone.",
        ),
    ] = None,
    against: Annotated[
        str, typer.Option(metavar="ENGINES", help="Peers: onnxruntime,openvino.")
    ] = "",
    target: Target = "host",
    dim: Dims = None,
    shape: Shapes = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inputs by name, .npz (default: random).")
    ] = None,
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine, with --against.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.001, help="Length of a turn.")] = 0.5,
    top: Annotated[int | None, typer.Option(min=1, help="Only the slowest kernels.")] = None,
    precision_check: Annotated[
        bool, typer.Option("--precision-check", help="Tell errors against float64.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the machine's peaks, a model's kernels against them, and other engines in turn.

    Exits with 1 if outputs are out of tolerance of a peer's.
    """
    from planish.cli.benchmarking import Options, run_bench

    options = Options(
        target=target,
        dims=dim or (),
        shapes=shape or (),
        inputs=inputs,
        against=tuple(name for name in against.split(",") if name),
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        top=top,
        precision_check=precision_check,
    )
    run_bench(subject, options, as_json=as_json)


@app.command("tune")
@guarded
def tune_command(
    model: Annotated[Path, typer.Argument(help="The ONNX model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the artefact.")],
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for it all: 90s, 1m30s, 1h (default: 10m)."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=0, help="How many schedules to measure at most.")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="Tuning log (default: what is stored)."),
    ] = None,
    keep_subnormals: KeepSubnormals = False,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    target: Target = "host",
    dim: Dims = None,
    shape: Shapes = None,
    name: Annotated[str | None, typer.Option(help="Prefix of the C interface.")] = None,
    threads: Threads = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write report.html and report.json."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure schedules of MODEL's kernels on this machine, and compile it with the fastest.

    The budget is for the whole command. Trials are kept in a log, so that a later run goes on, and
    `planish compile` needs none. Ctrl-C ends the measuring early. An artefact slower than the
    untuned one is never put in place.
    """
    begun = time.monotonic()  # the imports are the command's, too
    from planish.cli.tuning import Options, run_tune

    options = Options(
        target=target,
        dims=dim or (),
        shapes=shape or (),
        name=name,
        threads=threads,
        budget=budget,
        trials=trials,
        log=log,
        keep_subnormals=keep_subnormals,
        seed=seed,
        report=report,
        begun=begun,
    )
    run_tune(model, output, options, as_json=as_json)


@app.command("targets")
@guarded
def targets_command(as_json: Json = False) -> None:
    """Show this machine and the named targets."""
    from planish.cli.listing import list_targets

    list_targets(as_json=as_json)
