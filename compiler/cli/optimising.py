"""`planish opt`."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from planish.cli.compiling import printer
from planish.cli.options import check_writable, parse_dims, parse_shapes
from planish.cli.printing import print_table, spell_seconds
from planish.cli.progress import StageProgress
from planish.cli.terminal import say
from planish.custom import PASSES, assemble, installed_passes, labelled
from planish.explain import Explanation, PassRecord, explain
from planish.graph_views import dot, event_lines, page
from planish.ir.errors import CustomPassError, PlanishError
from planish.ir.text import print_graph
from planish.verdict import VerificationFailed

#: Lines of one pass that `--explain` shows; JSON and the HTML page have all of them.
MOST_LINES = 40

FORMATS = (".txt", ".dot", ".html")


def run_opt(
    model: Path,
    output: Path | None,
    *,
    target: str,
    dims: Sequence[str],
    shapes: Sequence[str],
    passes: Sequence[str],
    ops: Sequence[str],
    print_after: Sequence[str],
    explained: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Optimises and tells what each pass did; writes the graph in the format of `output`."""
    if output is not None and output.suffix not in FORMATS:
        raise PlanishError(f"-o {output}: the graph is written as {', '.join(FORMATS)}")
    check_writable(output)
    stream = sys.stderr if as_json else sys.stdout
    steps = assemble(passes)
    show = printer(steps, print_after, stream)
    done = itertools.count(1)
    with StageProgress(enabled=not as_json) as progress:
        progress("import", 0, 0)

        def observe(record: PassRecord) -> None:
            progress("optimise", next(done), len(steps))
            if show is not None:
                show(record.step.name, record.before, record.after, record.seconds)

        found = explain(
            model,
            target=target,
            dims=parse_dims(dims),
            shapes=parse_shapes(shapes),
            passes=passes,
            ops=ops,
            numeric=verify,
            observer=observe,
        )
    if output is not None:
        _write(found, output, model.name)  # before the text, whose reader may stop reading
    if as_json:
        say(json.dumps(_as_json(found)))
    else:
        _print_table(found, verify)
        if explained:
            _print_explanation(found)
    wrong = [record for record in found.records if record.numeric]
    if wrong:
        kind = CustomPassError if wrong[0].step.origin else VerificationFailed
        raise kind(
            f"pass '{wrong[0].label}' changes the result: {wrong[0].numeric}; "
            f"`planish bisect {model}` finds where"
        )


def list_passes(passes: Sequence[str], *, as_json: bool) -> None:
    """Prints the pipeline with the custom passes in their places, and what is installed."""
    steps = assemble(passes)
    rows = [(label, step.why, step.origin) for label, step in zip(labelled(steps), steps)]
    installed = installed_passes()
    if as_json:
        listed = [dict(zip(("name", "why", "origin"), row)) for row in rows]
        say(json.dumps({"passes": listed, "installed": installed}))
        return
    numbered = [(number, *row) for number, row in enumerate(rows, 1)]
    print_table("Passes, in order", (">", "pass", "why", "from"), numbered)
    if installed:
        print_table("Installed; use by --pass NAME", ("name", "from"), installed.items())


def _print_table(found: Explanation, verify: bool) -> None:
    rows = []
    for record in found.records:
        change = record.change()
        row = [
            record.label,
            spell_seconds(record.seconds),
            len(record.after.nodes),
            sum(record.fired.values()) or "",
            sum(record.refusals.values()) or "",
            _spell_change(change.removed, change.added),
        ]
        rows.append([*row, _spell_numeric(record)] if verify else row)
    headings = ["pass", ">time", ">nodes", ">fired", ">refused", "change"]
    print_table(
        f"{len(found.imported.nodes)} nodes imported",
        [*headings, "numbers"] if verify else headings,
        rows,
    )
    kernels = sum(node.op == "kernel" for node in found.optimised.nodes)
    seconds = sum(record.seconds for record in found.records)
    say(
        f"{len(found.imported.nodes)} nodes became {kernels} kernels in {spell_seconds(seconds)} "
        f"({len(PASSES)} passes of planish, {len(found.records) - len(PASSES)} custom)"
    )


def _spell_change(removed: Mapping[str, int], added: Mapping[str, int], most: int = 5) -> str:
    parts = [f"-{n} {op}" for op, n in list(removed.items())[:most]]
    parts += [f"+{n} {op}" for op, n in list(added.items())[:most]]
    more = len(removed) > most or len(added) > most
    return "  ".join([*parts, "…"] if more else parts)


def _spell_numeric(record: PassRecord) -> str:
    return "" if record.numeric is None else record.numeric or "equal"


def _print_explanation(found: Explanation) -> None:
    for record in found.records:
        if not record.changed and not record.events:
            continue
        whose = f", from {record.step.origin}" if record.step.origin else ""
        say(f"\n{record.label} ({record.step.why}{whose})")
        say(f"  {len(record.before.nodes)} → {len(record.after.nodes)} nodes")
        lines = list(event_lines(record))
        if not lines:
            names = record.change().onnx_nodes
            lines = [f"changes nodes of {_names(names)}"] if names else []
        for line in lines[:MOST_LINES]:
            say(f"  {line}")
        if len(lines) > MOST_LINES:
            say(f"  … and {len(lines) - MOST_LINES} more (all of them: --json, or -o page.html)")


def _names(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def _as_json(found: Explanation) -> dict[str, object]:
    return {
        "imported_nodes": len(found.imported.nodes),
        "nodes": len(found.optimised.nodes),
        "kernels": sum(node.op == "kernel" for node in found.optimised.nodes),
        "passes": [_record_json(record) for record in found.records],
    }


def _record_json(record: PassRecord) -> dict[str, object]:
    change = record.change()
    return {
        "pass": record.label,
        "origin": record.step.origin,
        "seconds": record.seconds,
        "nodes_before": len(record.before.nodes),
        "nodes_after": len(record.after.nodes),
        "removed": dict(change.removed),
        "added": dict(change.added),
        "onnx_nodes": list(change.onnx_nodes),
        "fired": [
            {"rule": event.rule, "where": event.where}
            for event in record.events
            if event.refused is None
        ],
        "refused": [
            {"rule": event.rule, "where": event.where, "reason": event.refused}
            for event in record.events
            if event.refused is not None
        ],
        "numeric": record.numeric,
    }


def _write(found: Explanation, output: Path, title: str) -> None:
    """The optimised graph as text or DOT with the imported one beside it, or a page of both."""
    if output.suffix == ".html":
        output.write_text(page(found, title), encoding="utf-8")
        written = [output]
    else:
        spell = print_graph if output.suffix == ".txt" else dot
        before = output.with_name(f"{output.stem}.before{output.suffix}")
        output.write_text(spell(found.optimised), encoding="utf-8")
        before.write_text(spell(found.imported), encoding="utf-8")
        written = [before, output]
    say(f"wrote {' and '.join(map(str, written))}", file=sys.stderr)
