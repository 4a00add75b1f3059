"""A run's kernels on a time line, in the Trace Event Format, which Perfetto and Chrome read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planish.artefact.format import KernelInfo
from planish.ir.errors import PlanishError

#: Name, begin and seconds of each kernel of a run, as `Model.trace` gives them.
Spans = Sequence[tuple[str, float, float]]

#: A process of the format, and its tracks.
_PROCESS, _RUNS, _KERNELS = 1, 1, 2


def trace_events(name: str, kernels: Sequence[KernelInfo], runs: Sequence[Spans]) -> dict[str, Any]:
    """The runs of a model as one JSON object; times in microseconds since the first kernel began.

    Each kernel is a complete event ("X") whose arguments are its ONNX nodes, ops, operations and
    bytes; each run is one around its kernels.
    """
    begun = min((begin for spans in runs for _, begin, _ in spans), default=0.0)
    events: list[dict[str, Any]] = [
        _named("process_name", _RUNS, f"planish: {name}"),
        _named("thread_name", _RUNS, "runs"),
        _named("thread_name", _KERNELS, "kernels"),
    ]
    for number, spans in enumerate(runs):
        if spans:
            first, last = spans[0][1], spans[-1][1] + spans[-1][2]
            events.append(_complete(f"run {number}", "run", _RUNS, first - begun, last - first, {}))
        for info, (_, begin, seconds) in zip(kernels, spans, strict=True):
            events.append(
                _complete(info.name, "kernel", _KERNELS, begin - begun, seconds, _arguments(info))
            )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _arguments(info: KernelInfo) -> dict[str, Any]:
    return {
        "onnx_nodes": list(info.onnx_nodes),
        "ops": list(info.ops),
        "flops": info.flops,
        "bytes": info.bytes,
        "lane": None if info.lane is None else list(info.lane),
    }


def _complete(
    name: str, category: str, track: int, begin: float, seconds: float, arguments: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": round(1e6 * begin, 3),
        "dur": round(1e6 * seconds, 3),
        "pid": _PROCESS,
        "tid": track,
        "args": arguments,
    }


def _named(what: str, track: int, name: str) -> dict[str, Any]:
    arguments = {"name": name}
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": track, "args": arguments}


def write_trace(path: Path, events: dict[str, Any]) -> None:
    """Writes the object; PlanishError if the file cannot be written."""
    try:
        path.write_text(json.dumps(events), encoding="utf-8")
    except OSError as error:
        raise PlanishError(f"cannot write '{path}': {error.strerror}") from None
