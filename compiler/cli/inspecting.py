"""`planish inspect`."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from planish.artefact.folder import OpenFolder
from planish.artefact.format import MANIFEST, Manifest, TensorInfo, manifest_of, to_json
from planish.cli.options import parse_dims, parse_shapes
from planish.cli.printing import print_table, spell_bytes, spell_count, spell_tensor
from planish.cli.terminal import say
from planish.ir.errors import PlanishError, UnsupportedModel

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from planish.ir.graph import Graph


#: Name, dtype and shape.
_Tensor: TypeAlias = tuple[str, str, list[int | str]]


def inspect(
    subject: Path,
    *,
    check: bool,
    dims: Sequence[str] = (),
    shapes: Sequence[str] = (),
    as_json: bool,
) -> None:
    """Prints what is in an artefact (a folder) or a model (a file), its dimensions fixed or not."""
    if subject.is_dir():
        if dims or shapes:
            raise PlanishError(
                f"--dim and --shape are of models; the artefact '{subject}' is fixed"
            )
        _inspect_artefact(subject, check, as_json)
    else:
        _inspect_model(subject, parse_dims(dims), parse_shapes(shapes), as_json)


def _inspect_artefact(folder: Path, check: bool, as_json: bool) -> None:
    with OpenFolder(folder) as opened:
        manifest = manifest_of(opened)
        # By hand, not by loading: artefacts for other machines can be checked too.
        for name, info in manifest.files.items() if check else ():
            opened.check(name, info, content=True)
    if as_json:
        say(json.dumps({**to_json(manifest), "digest": manifest.digest, "checked": check}))
        return
    _print_tensors(_of_artefact(manifest.inputs), _of_artefact(manifest.outputs))
    kernels = [
        (
            k.name,
            spell_count(k.flops),
            spell_bytes(k.bytes),
            "" if k.lane is None else f"{k.lane[0]}.{k.lane[1]}",
            " ".join(k.ops),
            ", ".join(k.onnx_nodes),
        )
        for k in manifest.kernels
    ]
    print_table("Kernels", ("kernel", ">flops", ">traffic", "lane", "ops", "ONNX nodes"), kernels)
    for key, value in _facts(manifest).items():
        say(f"{key}: {value}")
    if check:
        say(f"every file is as the {MANIFEST} says")


def _facts(manifest: Manifest) -> dict[str, Any]:
    verified = manifest.verify
    if "outputs" in verified:
        worst = max(output["max_abs"] or 0.0 for output in verified["outputs"])
        state = "within tolerance" if verified["ok"] else "OUT OF TOLERANCE"
        told = f"{state} of {verified['reference']}, largest error {worst:.3g}"
    else:
        told = f"no ({verified.get('skipped', 'unknown')})"
    return {
        "name": manifest.name,
        "target": f"{manifest.target.get('name')} ({manifest.architecture})",
        "made for": f"{manifest.threads or 'an unknown number of'} threads",
        "needs": " ".join(_needs(manifest)) or "nothing beyond the architecture",
        "work": f"{spell_count(sum(k.flops for k in manifest.kernels))}flop a run",
        "memory": (
            f"weights {spell_bytes(manifest.weights_bytes)}, "
            f"arena {spell_bytes(manifest.arena_bytes)}"
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "verified": told,
        "digest": manifest.digest,
    }


def _needs(manifest: Manifest) -> list[str]:
    return [*([f"glibc {manifest.glibc}"] if manifest.glibc else []), *manifest.features]


def _inspect_model(
    path: Path, dims: dict[str, int], shapes: dict[str, tuple[int, ...]], as_json: bool
) -> None:
    from planish.custom import custom_ops
    from planish.ir.extension import extended

    with extended(custom_ops(())):
        try:
            graph, assumed = _imported(path, dims, shapes)
        except UnsupportedModel as error:
            # What cannot be compiled can be looked at all the same; the error says why.
            _show(_as_declared(path), as_json, {"unsupported": str(error)})
            raise
    _show(_as_imported(graph), as_json, {"assumed": assumed} if assumed else {})
    if assumed and not as_json:
        flags = " ".join(f"--dim {shlex.quote(f'{name}={size}')}" for name, size in assumed.items())
        say(f"as it is with {flags}; with open dimensions it cannot be told")


def _imported(
    path: Path, dims: dict[str, int], shapes: dict[str, tuple[int, ...]]
) -> tuple[Graph, dict[str, int]]:
    """The graph, open dimensions symbolic, or where that cannot be, of sizes that were assumed."""
    from planish.ir.onnx import import_model, suggest_sizes

    try:
        return import_model(path, dims=dims, shapes=shapes, dynamic=True), {}
    except UnsupportedModel:
        assumed = suggest_sizes(path, dims=dims, shapes=shapes)
        if not assumed:
            raise
        return import_model(path, dims={**dims, **assumed}, shapes=shapes), assumed


@dataclass(frozen=True, slots=True)
class _View:
    """What is shown of a model: (name, dtype, shape) of its tensors, nodes by op, weights."""

    inputs: list[_Tensor]
    outputs: list[_Tensor]
    ops: Counter[str]
    parameters: int
    weights_bytes: int
    heading: str


def _as_imported(graph: Graph) -> _View:
    from planish.ir.graph import Constant

    weights = [value for value in graph.values() if isinstance(value, Constant)]
    return _View(
        [(v.name, v.type.dtype.value, _dims(v.type.shape)) for v in graph.inputs],
        [
            (name, v.type.dtype.value, _dims(v.type.shape))
            for name, v in zip(graph.output_names, graph.outputs)
        ],
        Counter(node.op for node in graph.nodes),
        sum(value.data.size for value in weights),
        sum(value.type.nbytes for value in weights),
        "Ops, as imported",
    )


def _as_declared(path: Path) -> _View:
    """The model as its file has it."""
    from planish.ir.onnx.model import load_model, parameters
    from planish.ir.onnx.storage import declared_bytes

    graph = load_model(path)[0].graph
    counts = [math.prod(tensor.dims) for tensor in graph.initializer]
    return _View(
        [_declared_tensor(value) for value in parameters(graph)],
        [_declared_tensor(value) for value in graph.output],
        Counter(
            f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in graph.node
        ),
        sum(counts),
        sum(map(declared_bytes, graph.initializer)),
        "Ops, as in the model",
    )


def _declared_tensor(value: ValueInfoProto) -> _Tensor:
    from onnx import TensorProto

    kind = value.type.tensor_type
    dims = [d.dim_value or d.dim_param or "?" for d in kind.shape.dim]
    known = value.type.WhichOneof("value") == "tensor_type"
    names = {number: name for name, number in TensorProto.DataType.items()}
    dtype = names.get(kind.elem_type, "?").lower() if known else "?"
    return value.name, dtype, dims if kind.HasField("shape") else ["…"]


def _show(view: _View, as_json: bool, more: dict[str, object]) -> None:
    nodes = sum(view.ops.values())
    if as_json:
        sides = {
            side: [{"name": n, "dtype": dtype, "shape": shape} for n, dtype, shape in tensors]
            for side, tensors in (("inputs", view.inputs), ("outputs", view.outputs))
        }
        facts = {
            "ops": dict(view.ops.most_common()),
            "nodes": nodes,
            "parameters": view.parameters,
            "weights_bytes": view.weights_bytes,
        }
        say(json.dumps({**sides, **facts, **more}))
        return
    _print_tensors(view.inputs, view.outputs)
    print_table(view.heading, ("op", ">nodes"), view.ops.most_common())
    say(
        f"{nodes} nodes, {spell_count(view.parameters)} parameters, "
        f"weights {spell_bytes(view.weights_bytes)}"
    )


def _dims(shape: tuple[Any, ...]) -> list[int | str]:
    return [dim if isinstance(dim, int) else str(dim) for dim in shape]


def _print_tensors(inputs: Iterable[_Tensor], outputs: Iterable[_Tensor]) -> None:
    rows = [
        (kind, name, spell_tensor(dtype, shape))
        for kind, tensors in (("input", inputs), ("output", outputs))
        for name, dtype, shape in tensors
    ]
    print_table("Interface", ("", "name", "type"), rows)


def _of_artefact(tensors: Iterable[TensorInfo]) -> list[_Tensor]:
    return [(tensor.name, tensor.dtype, list(tensor.shape)) for tensor in tensors]
