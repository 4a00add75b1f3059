"""`planish bisect`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import typer

from planish.bisection import Finding, bisect
from planish.cli.boundary import OUR_FAILURE
from planish.cli.options import check_writable, parse_dims, parse_shapes
from planish.cli.progress import StageProgress
from planish.cli.terminal import say


def run_bisect(
    model: Path,
    output: Path | None,
    *,
    target: str,
    dims: Sequence[str],
    shapes: Sequence[str],
    passes: Sequence[str],
    ops: Sequence[str],
    seed: int,
    compiled: bool,
    as_json: bool,
) -> None:
    """Searches, writes the minimal model and tells; exit code 1 if something is wrong."""
    place = output or Path(f"{model.stem}.minimal.onnx")
    check_writable(place)
    with StageProgress(enabled=not as_json) as progress:
        found = bisect(
            model,
            target=target,
            dims=parse_dims(dims),
            shapes=parse_shapes(shapes),
            passes=passes,
            ops=ops,
            seed=seed,
            compiled=compiled,
            progress=progress,
        )
    shown = found is not None and found.minimal is not None
    if found is not None and found.minimal is not None:
        onnx.save(found.minimal, place)
    if as_json:
        say(json.dumps(_as_json(found, place if shown else None)))
    else:
        say(_sentences(found, place if shown else None))
    if found is not None:
        raise typer.Exit(OUR_FAILURE)


def _as_json(found: Finding | None, place: Path | None) -> dict[str, object]:
    if found is None:
        return {"ok": True}
    return {
        "ok": False,
        "stage": found.stage,
        "step": found.step,
        "origin": found.origin,
        "crash": found.crash,
        "where": found.where,
        "onnx_nodes": list(found.nodes),
        "message": found.message,
        "minimal": str(place) if place is not None else None,
        "minimal_nodes": list(found.minimal_nodes),
    }


def _sentences(found: Finding | None, place: Path | None) -> str:
    if found is None:
        return "nothing is wrong: every pass and the code are within tolerance on random inputs"
    if found.stage == "pass":
        who = f"pass '{found.step}'" + (f" ({found.origin})" if found.origin else "")
    else:
        who = found.stage
    what = "fails" if found.crash else "is the first that changes the result"
    lines = [f"{who} {what}, at {found.where}", f"  {found.message}"]
    if place is None:
        lines.append("no part of the model shows it with random inputs: there is no minimal model")
    else:
        nodes = found.minimal_nodes
        shown = ", ".join(nodes[:10]) + (" …" if len(nodes) > 10 else "")
        lines.append(f"minimal model: {place} ({len(nodes)} of the model's nodes: {shown})")
    return "\n".join(lines)
