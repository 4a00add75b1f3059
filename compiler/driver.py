"""From a model to an artefact: import, optimise, generate, link, write, verify."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np

import planish
from planish.artefact.format import KernelInfo, Manifest, TensorInfo
from planish.artefact.index_limits import OPTION, to_json
from planish.artefact.library import check_cpu
from planish.artefact.loading import Model, load, take_over
from planish.artefact.sealing import seal
from planish.artefact.writing import beside, check_replaceable, copy_artefact, write_artefact
from planish.autotune.apply_log import LogReport
from planish.autotune.log.store import LogSource, open_log
from planish.blame import blame_custom_pass
from planish.custom import CustomPass, assemble, custom_ops
from planish.inputs import index_bounds, index_limits
from planish.ir.errors import ArtefactError, note
from planish.ir.extension import CustomOp, extended
from planish.ir.graph import Graph
from planish.ir.onnx import import_model
from planish.ir.scratch import scratch_folder
from planish.ir.subnormals import flush_subnormals
from planish.ir.target import Target
from planish.logged_schedules import run_logged_pipeline
from planish.passes.pass_ import Step
from planish.passes.pipeline import Observer
from planish.sources import AnyModel, Examples, onnx_model
from planish.targets.elf import needed_glibc
from planish.targets.emit import Emitted, emit
from planish.targets.hardware import find_target
from planish.targets.linking import link_library
from planish.targets.plan import TensorSpec, symbol_prefix
from planish.targets.runtime.cpu_features import required_features
from planish.verdict import Verification, VerificationFailed
from planish.verification.given import checked_inputs
from planish.verify import verify as verify_artefact

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total 0 where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What a compilation did.

    `seconds` has one entry for each stage that ran, in order. `verification` is None where it was
    not asked for or not possible; `unverified` then says why. `log` tells what a tuning log had for
    each kernel; None if there was no log.
    """

    name: str
    target: Target
    manifest: Manifest
    seconds: Mapping[str, float]
    verification: Verification | None = None
    unverified: str = ""
    log: LogReport | None = None

    @property
    def artefact_bytes(self) -> int:
        """Size of the artefact's files, the manifest aside."""
        return sum(info.bytes for info in self.manifest.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileReport(Compilation):
    """What a compilation did that put its artefact into the folder `output`."""

    output: Path


class CompileOptions(TypedDict, total=False):
    """The options of `compile`, which documents them."""

    example_inputs: Examples | None
    inputs: Mapping[str, Any] | None
    external_data: str | os.PathLike[str] | None
    target: str | Target
    dims: Mapping[str, int] | None
    shapes: Mapping[str, Sequence[int]] | None
    name: str | None
    verify: bool
    passes: Sequence[CustomPass]
    ops: Sequence[CustomOp | str]
    pipeline: Sequence[Step] | None
    observer: Observer | None
    threads: int | None
    log: LogSource
    keep_subnormals: bool
    symbols: bool
    progress: Progress | None


@dataclass(slots=True)
class _Stages:
    """Times the stages and tells of them."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if self.progress is not None:
            self.progress(name, 0, 0)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


@overload
def compile(model: AnyModel, output: None = None, **options: Unpack[CompileOptions]) -> Model: ...


@overload
def compile(
    model: AnyModel, output: str | os.PathLike[str], **options: Unpack[CompileOptions]
) -> CompileReport: ...


def compile(
    model: AnyModel,
    output: str | os.PathLike[str] | None = None,
    *,
    example_inputs: Examples | None = None,
    inputs: Mapping[str, Any] | None = None,
    external_data: str | os.PathLike[str] | None = None,
    target: str | Target = "host",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
    verify: bool = True,
    passes: Sequence[CustomPass] = (),
    ops: Sequence[CustomOp | str] = (),
    pipeline: Sequence[Step] | None = None,
    observer: Observer | None = None,
    threads: int | None = None,
    log: LogSource = True,
    keep_subnormals: bool = False,
    symbols: bool = False,
    progress: Progress | None = None,
) -> Model | CompileReport:
    """Compiles a model into the artefact folder `output`, or without one into a Model in memory.

    `model` is an ONNX model (path, bytes, onnx.ModelProto or torch.onnx.ONNXProgram), a
    torch.export.ExportedProgram, or a torch.nn.Module, which is exported in evaluation mode
    by tracing it with `example_inputs`: a tensor, a tuple of them, or a dict by name. For ONNX
    models `example_inputs` tell the shapes of inputs. `external_data` is the folder of the weights
    that a model in memory refers to.

    `dims` fixes symbolic dimensions by name, `shapes` whole inputs. `name` prefixes the C interface
    (default: the file's name). `passes` run beside those of `pipeline`, which they leave in place
    (see `planish.place`); `ops` are known to this compilation beside planish's. `observer` sees the
    graph before and after each pass. `threads` is how many threads the artefact is made for
    (default: the target's cores; of "host", the CPUs that this process may use). `log` is the
    tuning log whose points kernels get where it was measured on this hardware or its class: files,
    True for what is stored (see docs/tuning-logs.md), False for none. With `keep_subnormals`
    kernels compute with subnormal numbers, which is many times slower where there are some, instead
    of taking them for zeros. With `symbols` the library keeps its functions' names, for nm, perf
    and gdb. With `verify` the artefact is run on random inputs and on such with special values, and
    compared with another implementation of the model before it is put in place (see
    docs/verification.md); `inputs`, an array for each input by name, are real data for one more
    run, and tell the shapes that the model leaves open.

    Gives a CompileReport of what is in `output`; without `output` the Model, whose `report` is a
    Compilation, which leaves nothing on disk, and which `model.save(folder)` can write there.

    Raises InvalidModel, UnsupportedModel, TargetError, TuningError or ArtefactError for what the
    caller can mend; VerificationFailed if the artefact is out of tolerance, which is then in
    `<output>.rejected`. Nothing is left in `output` by a compilation that failed.
    """
    if output is not None:
        check_replaceable(Path(output))  # before the long part
    tuning = open_log(log)
    chosen = find_target(target) if isinstance(target, str) else target
    if threads is not None:
        chosen = dataclasses.replace(chosen, cores=threads)
    elif target == "host" and chosen.cores == 1 and (os.cpu_count() or 1) > 1:
        note(
            f"this process may use 1 of {os.cpu_count()} CPUs, so the artefact is made for one "
            "thread and never uses another; threads=N (--threads N) makes it for more"
        )
    stages = _Stages(progress)
    steps = assemble(passes, pipeline)
    with (
        extended(custom_ops(ops)),
        onnx_model(model, example_inputs, external_data) as given,
        _place(output) as folder,
    ):
        prefix = symbol_prefix(name or given.name)
        told = {name: np.shape(array) for name, array in (inputs or {}).items()}
        shapes = {**given.shapes, **told, **(shapes or {})}
        with stages.stage("import"):
            graph = import_model(given.source, dims=dims, shapes=shapes)
        real = checked_inputs(graph, inputs) if inputs is not None else None
        with stages.stage("optimise"):
            optimised, logged = run_logged_pipeline(graph, chosen, steps, tuning, observer)
        with stages.stage("generate"):
            emitted = emit(
                optimised, chosen, prefix, progress=progress, keep_subnormals=keep_subnormals
            )
        manifest = _manifest(graph, emitted, chosen, dims or {}, shapes)
        if symbols:
            options = {**manifest.options, "symbols": True}
            manifest = dataclasses.replace(manifest, options=options)
        found = None
        skipped = _obstacle(manifest, folder) if verify else "not asked for"
        if skipped:
            with stages.stage("link"):
                unverified = dataclasses.replace(manifest, verify={"skipped": skipped})
                manifest = _link(folder, unverified, emitted, chosen)
        else:
            with beside(folder) as staging:
                with stages.stage("link"):
                    manifest = _link(staging, manifest, emitted, chosen)
                with stages.stage("verify"), load(staging, threads=threads) as loaded:
                    found = verify_artefact(
                        loaded.run, graph, given.source, inputs=real, optimised=optimised
                    )
                if not found.ok:
                    blame_custom_pass(graph, chosen, steps)
                with stages.stage("write"):
                    manifest = _put(staging, folder, manifest, found, keep=output is not None)
        report = CompileReport(
            name=prefix,
            output=folder,
            target=chosen,
            manifest=manifest,
            seconds=stages.seconds,
            verification=found,
            unverified=skipped,
            log=logged,
        )
        return report if output is not None else _in_memory(report, threads)


@contextmanager
def _place(output: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder to write to; without `output` one that goes afterwards."""
    if output is not None:
        yield Path(output)
        return
    with scratch_folder() as scratch:
        yield Path(scratch, "artefact")


def _in_memory(report: CompileReport, threads: int | None) -> Model:
    """The artefact as a model that outlives the folder."""
    model = take_over(report.output, threads=threads)
    facts = {field.name: getattr(report, field.name) for field in dataclasses.fields(Compilation)}
    model.report = Compilation(**facts)
    return model


def schedule_model(
    model: AnyModel,
    *,
    target: str | Target = "host",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[CustomPass] = (),
    ops: Sequence[CustomOp | str] = (),
    observer: Observer | None = None,
    threads: int | None = None,
    log: LogSource = True,
) -> tuple[Graph, Target]:
    """What `compile` makes code of: the model's kernels with their schedules, and the target.

    Options and errors are those of `compile`.
    """
    chosen = find_target(target) if isinstance(target, str) else target
    if threads is not None:
        chosen = dataclasses.replace(chosen, cores=threads)
    with extended(custom_ops(ops)), onnx_model(model) as given:
        graph = import_model(given.source, dims=dims, shapes={**given.shapes, **(shapes or {})})
        steps = assemble(passes)
        return run_logged_pipeline(graph, chosen, steps, open_log(log), observer)[0], chosen


def compile_graph(
    graph: Graph, output: str | os.PathLike[str], target: Target, name: str
) -> Manifest:
    """Compiles a graph of scheduled kernels into the artefact folder `output`, unverified.

    Raises TargetError, ScheduleError or ArtefactError.
    """
    from planish.targets.emit import emit

    emitted = emit(graph, target, symbol_prefix(name))
    return _link(Path(output), _manifest(graph, emitted, target, {}, {}), emitted, target)


def _manifest(
    graph: Graph,
    emitted: Emitted,
    target: Target,
    dims: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
) -> Manifest:
    plan = emitted.plan
    features = required_features(target.arch, plan.features)
    return Manifest(
        name=plan.name,
        inputs=tuple(map(_tensor_info, plan.inputs)),
        outputs=tuple(map(_tensor_info, plan.outputs)),
        kernels=tuple(
            KernelInfo(k.name, tuple(k.provenance), tuple(k.ops), k.flops, k.bytes, k.lane)
            for k in emitted.kernels
        ),
        architecture=target.arch,
        features={feature.name: feature.cpuinfo for feature in features},
        target=dataclasses.asdict(target),
        versions={
            "planish": planish.__version__,
            "apache-tvm": metadata.version("apache-tvm"),
            "onnx": metadata.version("onnx"),
        },
        options={
            "dims": dict(sorted(dims.items())),
            "shapes": {key: list(shape) for key, shape in sorted(shapes.items())},
            "input_bounds": index_bounds(graph),
            OPTION: to_json(index_limits(graph)),
            "keep_subnormals": plan.keep_subnormals,
        },
        weights_bytes=plan.weights_bytes,
        arena_bytes=plan.arena_bytes,
    )


def _tensor_info(tensor: TensorSpec) -> TensorInfo:
    return TensorInfo(tensor.name, tensor.dtype, tuple(tensor.shape))


def _obstacle(manifest: Manifest, folder: Path) -> str:
    """Why an artefact cannot run on this machine; empty if it can."""
    try:
        check_cpu(manifest, folder)
    except ArtefactError:
        return f"code for target '{manifest.target['name']}' does not run on this machine"
    return ""


def _link(folder: Path, manifest: Manifest, emitted: Emitted, target: Target) -> Manifest:
    with scratch_folder() as scratch:
        objects = [Path(scratch, f"kernels{i}.o") for i in range(len(emitted.objects))]
        for path, code in zip(objects, emitted.objects):
            path.write_bytes(code)
        weights = (
            (offset, _packed(array, emitted.plan.keep_subnormals))
            for offset, array in sorted(emitted.weights, key=lambda weight: weight[0])
        )
        digest, blocks = seal(weights, manifest.weights_bytes)
        plan = dataclasses.replace(emitted.plan, weights_digest=digest)
        symbols = bool(manifest.options.get("symbols"))
        library, header = link_library(
            plan, objects, Path(scratch), triple=target.triple, symbols=symbols
        )
        manifest = dataclasses.replace(manifest, glibc=needed_glibc(library.read_bytes()))
        return write_artefact(folder, manifest, library=library, header=header, weights=blocks)


def _packed(weight: np.ndarray, keep_subnormals: bool) -> memoryview:
    """The bytes of a weight in an artefact."""
    values = weight if keep_subnormals else flush_subnormals(weight)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _put(
    staging: Path, folder: Path, manifest: Manifest, found: Verification, keep: bool
) -> Manifest:
    """Writes the verified artefact to its place.

    One that is wrong is an error, and is written aside if it is to be kept.
    """
    place = folder if found.ok else folder.with_name(f"{folder.name}.rejected")
    if found.ok or keep:
        manifest = copy_artefact(
            staging, place, dataclasses.replace(manifest, verify=found.to_json())
        )
    if not found.ok:
        kept = f"the artefact is kept in '{place}' for a report" if keep else (
            "compiled with an output folder, the artefact is kept for a report"
        )  # fmt: skip
        raise VerificationFailed(
            f"{found.failure()}; {kept}, "
            "and `planish bisect MODEL` finds the pass or kernel that is wrong"
        )
    return manifest
