"""`planish run`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer

from planish.artefact.format import TensorInfo
from planish.artefact.loading import Model, load
from planish.cli.boundary import INTERRUPTED
from planish.cli.latency import WARM_UP, Course, Latencies, run_course
from planish.cli.options import check_writable
from planish.cli.printing import print_table, spell_seconds, spell_tensor
from planish.cli.progress import StageProgress
from planish.cli.terminal import say
from planish.inputs import random_inputs
from planish.ir.errors import PlanishError, TuningError
from planish.ir.seconds import read_seconds
from planish.trace import trace_events, write_trace

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    files: Sequence[str]
    npz: Path | None
    seed: int | None
    output: Path | None
    threads: int | None
    repeat: int | None
    duration: str | None
    warm_up: int | None
    time_kernels: bool
    trace: Path | None

    @property
    def measured(self) -> bool:
        """Whether latencies are asked for."""
        return self.duration is not None or (self.repeat or 1) > 1

    def course(self) -> Course:
        """How often to run; PlanishError for a duration that is no time."""
        try:
            duration = None if self.duration is None else read_seconds(self.duration)
        except TuningError as error:
            raise PlanishError(f"--duration {error}") from None
        repeat = 1 if self.repeat is None and duration is None else self.repeat
        warm_up = (WARM_UP if self.measured else 0) if self.warm_up is None else self.warm_up
        return Course(repeat, duration, warm_up)


@dataclass(frozen=True, slots=True)
class _Findings:
    outputs: Arrays
    latencies: Latencies
    kernels: list[tuple[str, float]]


def run_artefact(artefact: Path, options: Options, *, as_json: bool) -> None:
    """Loads and runs an artefact, and prints its outputs, or saves them and prints where."""
    course = options.course()
    check_writable(options.output, options.trace)
    with (
        load(artefact, threads=options.threads) as model,
        StageProgress(enabled=not as_json) as progress,
    ):
        inputs = _gather_inputs(model, options.files, options.npz, options.seed)
        outputs, latencies = run_course(lambda: model.run(inputs), course, progress)
        found = _Findings(outputs, latencies, model.profile(inputs) if options.time_kernels else [])
        if options.trace is not None:
            _write_trace(model, inputs, options.trace)
    if options.output is not None:
        save_outputs(options.output, outputs)
    if as_json:
        say(json.dumps(_as_json(found, options)))
    else:
        _print_findings(found, options)
    if latencies.interrupted:
        raise typer.Exit(INTERRUPTED)


def _write_trace(model: Model, inputs: Arrays, path: Path) -> None:
    """Of one run, on warm caches: where none was measured, a run that is not traced comes first."""
    model.trace(inputs)
    spans = model.trace(inputs)
    write_trace(path, trace_events(model.name, model.kernels, [spans]))


def _print_findings(found: _Findings, options: Options) -> None:
    rows = [
        (name, spell_tensor(str(a.dtype), a.shape), *_range(a)) for name, a in found.outputs.items()
    ]
    print_table("Outputs", ("output", "type", ">least", ">mean", ">largest"), rows)
    if found.kernels:
        ordered = sorted(found.kernels, key=lambda pair: -pair[1])
        print_table("Kernels", ("kernel", ">time"), [(n, spell_seconds(s)) for n, s in ordered])
    if options.measured:
        say(found.latencies)
    if options.output is not None:
        say(f"outputs are in {options.output}")
    if options.trace is not None:
        say(f"the trace is in {options.trace}; open it in ui.perfetto.dev or chrome://tracing")


def _as_json(found: _Findings, options: Options) -> dict[str, object]:
    shown: dict[str, object] = {
        "outputs": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in found.outputs.items()
        },
        "seconds": {**found.latencies.figures(), "runs": len(found.latencies.seconds)},
        "throughput": found.latencies.throughput,
        "interrupted": found.latencies.interrupted,
    }
    if found.kernels:
        shown["kernels"] = [{"name": name, "seconds": spent} for name, spent in found.kernels]
    if options.output is not None:
        shown["saved"] = str(options.output)
    if options.trace is not None:
        shown["trace"] = str(options.trace)
    return shown


def _range(array: np.ndarray) -> tuple[str, str, str]:
    if not array.size:
        return ("", "", "")
    wide = array.astype(np.float64)
    return tuple(f"{value:.6g}" for value in (wide.min(), wide.mean(), wide.max()))  # type: ignore[return-value]


def _gather_inputs(
    model: Model, files: Sequence[str], npz: Path | None, seed: int | None
) -> Arrays:
    """Inputs from --npz, --input (which wins) and, for those still missing, --random."""
    inputs: Arrays = {}
    if npz is not None:
        inputs.update(read_npz(npz))
    known = {tensor.name: tensor for tensor in model.inputs}
    for option in files:
        name, equals, path = option.partition("=")
        if not equals or name not in known:
            raise PlanishError(
                f"--input {option} is not NAME=FILE for one of the inputs "
                f"{', '.join(map(repr, known))}"
            )
        inputs[name] = read_tensor(Path(path), known[name])
    missing = [tensor for tensor in model.inputs if tensor.name not in inputs]
    if missing and seed is None:
        names = ", ".join(f"'{t.name}' {spell_tensor(t.dtype, t.shape)}" for t in missing)
        raise PlanishError(
            f"no value for the inputs {names}; give --input NAME=FILE, --npz FILE or --random"
        )
    bounds: Mapping[str, int] = model.manifest.options.get("input_bounds", {})
    specs = [(tensor.name, tensor.dtype, tensor.shape) for tensor in missing]
    return inputs | random_inputs(specs, bounds, seed or 0)


def read_npz(path: Path) -> Arrays:
    """Every array of an .npz file; PlanishError if it is not one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if isinstance(arrays, np.ndarray):
                raise PlanishError(
                    f"'{path}' holds one array without a name; use --input NAME=FILE"
                )
            return dict(arrays)
    except (OSError, ValueError, EOFError) as error:
        raise PlanishError(f"cannot read '{path}' as .npz: {error}") from None


def read_tensor(path: Path, tensor: TensorInfo) -> np.ndarray:
    """One input from a .npy or .npz file, or from the bare bytes of any other file."""
    if path.suffix == ".npz":
        arrays = read_npz(path)
        if tensor.name in arrays:
            return arrays[tensor.name]
        if len(arrays) != 1:
            raise PlanishError(
                f"'{path}' holds {', '.join(map(repr, arrays))}, but not input '{tensor.name}'"
            )
        return next(iter(arrays.values()))
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        raw = np.fromfile(path, np.uint8)
    except (OSError, ValueError, EOFError) as error:
        raise PlanishError(f"cannot read '{path}' for input '{tensor.name}': {error}") from None
    expected = int(np.prod(tensor.shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
    if raw.size != expected:
        raise PlanishError(
            f"'{path}' has {raw.size} bytes, but input '{tensor.name}' "
            f"{spell_tensor(tensor.dtype, tensor.shape)} takes {expected}"
        )
    return raw.view(tensor.dtype).reshape(tensor.shape)


def save_outputs(path: Path, outputs: Arrays) -> None:
    """All outputs to an .npz file, or the only one to a .npy or raw file."""
    if path.suffix != ".npz" and len(outputs) != 1:
        raise PlanishError(
            f"the model has {len(outputs)} outputs, and '{path}' can hold one: save to an .npz file"
        )
    try:
        if path.suffix == ".npz":
            with path.open("wb") as file:
                np.savez(file, **outputs)  # type: ignore[arg-type]
        elif path.suffix == ".npy":
            np.save(path, next(iter(outputs.values())))
        else:
            next(iter(outputs.values())).tofile(path)
    except OSError as error:
        raise PlanishError(f"cannot write '{path}': {error.strerror}") from None
