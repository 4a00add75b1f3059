"""`planish run`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from planish.artefact.format import TensorInfo
from planish.artefact.loading import Model, load
from planish.cli.printing import print_table, spell_seconds, spell_tensor
from planish.cli.terminal import say
from planish.inputs import random_inputs
from planish.ir.errors import PlanishError

Arrays = dict[str, np.ndarray]


def run_artefact(
    artefact: Path,
    *,
    files: Sequence[str],
    npz: Path | None,
    seed: int | None,
    output: Path | None,
    threads: int | None,
    repeat: int,
    time_kernels: bool,
    as_json: bool,
) -> None:
    """Loads and runs an artefact, and prints its outputs, or saves them and prints where."""
    with load(artefact, threads=threads) as model:
        inputs = _gather_inputs(model, files, npz, seed)
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            outputs = model.run(inputs)
            seconds.append(time.perf_counter() - start)
        kernels = model.profile(inputs) if time_kernels else []
    if output is not None:
        save_outputs(output, outputs)
    if as_json:
        say(json.dumps(_as_json(outputs, seconds, kernels, output)))
        return
    rows = [(name, spell_tensor(str(a.dtype), a.shape), *_range(a)) for name, a in outputs.items()]
    print_table("Outputs", ("output", "type", ">least", ">mean", ">largest"), rows)
    if kernels:
        ordered = sorted(kernels, key=lambda pair: -pair[1])
        print_table("Kernels", ("kernel", ">time"), [(n, spell_seconds(s)) for n, s in ordered])
    if repeat > 1:
        say(
            f"latency: median {spell_seconds(statistics.median(seconds))}, "
            f"least {spell_seconds(min(seconds))} of {repeat} runs"
        )
    if output is not None:
        say(f"outputs are in {output}")


def _as_json(
    outputs: Arrays,
    seconds: list[float],
    kernels: list[tuple[str, float]],
    output: Path | None,
) -> dict[str, object]:
    shown: dict[str, object] = {
        "outputs": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in outputs.items()
        },
        "seconds": {
            "median": statistics.median(seconds),
            "least": min(seconds),
            "runs": len(seconds),
        },
    }
    if kernels:
        shown["kernels"] = [{"name": name, "seconds": spent} for name, spent in kernels]
    if output is not None:
        shown["saved"] = str(output)
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
