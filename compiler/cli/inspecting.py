"""`planish inspect`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from planish.artefact.format import MANIFEST, Manifest, TensorInfo, read_manifest, to_json
from planish.artefact.library import check_file
from planish.cli.printing import print_table, spell_bytes, spell_count, spell_tensor


def inspect(subject: Path, *, check: bool, as_json: bool) -> None:
    """Prints what is in an artefact (a folder) or a model (a file)."""
    if subject.is_dir():
        _inspect_artefact(subject, check, as_json)
    else:
        _inspect_model(subject, as_json)


def _inspect_artefact(folder: Path, check: bool, as_json: bool) -> None:
    manifest = read_manifest(folder)
    if check:
        # By hand, not by loading: artefacts for other machines can be checked too.
        for name, info in manifest.files.items():
            check_file(folder / name, info, content=True)
    if as_json:
        print(json.dumps({**to_json(manifest), "digest": manifest.digest, "checked": check}))
        return
    _print_tensors(manifest.inputs, manifest.outputs)
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
        print(f"{key}: {value}")
    if check:
        print(f"every file is as the {MANIFEST} says")


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
        "needs": " ".join(manifest.features) or "nothing beyond the architecture",
        "work": f"{spell_count(sum(k.flops for k in manifest.kernels))}flop a run",
        "memory": (
            f"weights {spell_bytes(manifest.weights_bytes)}, "
            f"arena {spell_bytes(manifest.arena_bytes)}"
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "verified": told,
        "digest": manifest.digest,
    }


def _inspect_model(path: Path, as_json: bool) -> None:
    from planish.custom import custom_ops
    from planish.ir.extension import extended
    from planish.ir.graph import Constant
    from planish.ir.onnx import import_model

    with extended(custom_ops(())):
        graph = import_model(path, dynamic=True)
    inputs = [(v.name, v.type) for v in graph.inputs]
    outputs = [(name, v.type) for name, v in zip(graph.output_names, graph.outputs)]
    ops = Counter(node.op for node in graph.nodes)
    weights = [value for value in graph.values() if isinstance(value, Constant)]
    facts = {
        "ops": dict(ops.most_common()),
        "nodes": len(graph.nodes),
        "parameters": sum(value.data.size for value in weights),
        "weights_bytes": sum(value.type.nbytes for value in weights),
    }
    if as_json:
        sides = {
            side: [
                {"name": name, "dtype": t.dtype.value, "shape": _dims(t.shape)}
                for name, t in tensors
            ]
            for side, tensors in (("inputs", inputs), ("outputs", outputs))
        }
        print(json.dumps({**sides, **facts}))
        return
    infos = [
        tuple(TensorInfo(n, t.dtype.value, tuple(t.shape)) for n, t in side)  # type: ignore[arg-type]
        for side in (inputs, outputs)
    ]
    _print_tensors(*infos)
    print_table("Ops, as imported", ("op", ">nodes"), ops.most_common())
    print(
        f"{facts['nodes']} nodes, {spell_count(sum(v.data.size for v in weights))} parameters, "
        f"weights {spell_bytes(sum(v.type.nbytes for v in weights))}"
    )


def _dims(shape: tuple[Any, ...]) -> list[int | str]:
    return [dim if isinstance(dim, int) else str(dim) for dim in shape]


def _print_tensors(inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
    rows = [
        (kind, tensor.name, spell_tensor(tensor.dtype, tensor.shape))
        for kind, tensors in (("input", inputs), ("output", outputs))
        for tensor in tensors
    ]
    print_table("Interface", ("", "name", "type"), rows)
