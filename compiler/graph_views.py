"""A graph for people and browsers: rows of plain data, DOT text, one self-contained page."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from planish.explain import Explanation, PassRecord
from planish.ir.graph import Constant, Graph, Input, Node, Value
from planish.ir.op import OpKind
from planish.ir.ops import op_def
from planish.ir.text import print_graph

#: Fill colours of DOT by what a kernel (or node) mainly does.
_COLOURS = {
    "contraction": "#ffd9b3",
    "reduction": "#d9e8ff",
    "composite": "#d9e8ff",
    "elementwise": "#e2f2d9",
    "movement": "#eeeeee",
    "emitted": "#f2d9f0",
    "region": "#f2d9f0",
}


def rows(graph: Graph) -> list[dict[str, Any]]:
    """One plain record for each input and node, producers first; ids are positions.

    Keys: id, op, name, kind, types, reads (ids), users (ids), onnx, attrs, schedule, body,
    outputs (names of graph outputs it gives).
    """
    numbers: dict[Value, int] = {value: i for i, value in enumerate(graph.inputs)}
    found = [_input_row(value, i) for i, value in enumerate(graph.inputs)]
    for node in graph.nodes:
        numbers.update((result, len(found)) for result in node.outputs)
        found.append(_node_row(node, len(found), numbers))
    for row in found:
        for number in row["reads"]:
            found[number]["users"].append(row["id"])
    for name, value in zip(graph.output_names, graph.outputs):
        if value in numbers:
            found[numbers[value]]["outputs"].append(name)
    return found


def _input_row(value: Input, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "op": "input",
        "name": value.name,
        "kind": "input",
        "types": [str(value.type)],
        "reads": [],
        "users": [],
        "onnx": [],
        "attrs": "",
        "schedule": "",
        "body": "",
        "outputs": [],
    }


def _node_row(node: Node, number: int, numbers: dict[Value, int]) -> dict[str, Any]:
    schedule = node.attrs.get("schedule")
    skipped = ("schedule", "name") if node.op == "kernel" else ()
    weights = [f"{v.name or 'constant'}: {v.type}" for v in node.inputs if isinstance(v, Constant)]
    attrs = [f"{key} = {value}" for key, value in node.attrs.items() if key not in skipped]
    names = [result.name for result in node.outputs if result.name]
    return {
        "id": number,
        "op": node.attrs["name"] if node.op == "kernel" else node.op,
        "name": ", ".join(names),
        "kind": kind_of(node),
        "types": [str(result.type) for result in node.outputs],
        "reads": list(dict.fromkeys(numbers[v] for v in node.inputs if v in numbers)),
        "users": [],
        "onnx": list(node.provenance),
        "attrs": "\n".join([*attrs, *weights]),
        "schedule": "" if schedule is None else _schedule_text(schedule),
        "body": "\n".join(print_graph(region) for region in node.regions),
        "outputs": [],
    }


def _schedule_text(schedule: Any) -> str:
    choices = " ".join(f"{key}={value}" for key, value in schedule.choices)
    head = f"space {schedule.space}" + (f", emitter {schedule.emitter}" * bool(schedule.emitter))
    return "\n".join([head, *([choices] if choices else []), *map(str, schedule.directives)])


def kind_of(node: Node) -> str:
    """What a node mainly does: the kind of its op, of a kernel that of its heaviest op."""
    inside = [inner for region in node.regions for inner in region.nodes] or [node]
    kinds = {op_def(inner.op).kind for inner in inside}
    ranked = (
        OpKind.REGION,
        OpKind.EMITTED,
        OpKind.CONTRACTION,
        OpKind.COMPOSITE,
        OpKind.REDUCTION,
        OpKind.ELEMENTWISE,
    )
    return next((kind.value for kind in ranked if kind in kinds), OpKind.MOVEMENT.value)


def dot(graph: Graph) -> str:
    """The graph for Graphviz; weights are left out."""
    lines = ["digraph {", "  node [shape=box style=filled fontname=Helvetica fontsize=10]"]
    for row in rows(graph):
        label = "\n".join(filter(None, [row["op"], row["types"][0], ", ".join(row["onnx"][:3])]))
        colour = _COLOURS.get(row["kind"], "#ffffff")
        lines.append(f'  n{row["id"]} [label={json.dumps(label)} fillcolor="{colour}"]')
        lines += [f"  n{read} -> n{row['id']}" for read in row["reads"]]
        for index, name in enumerate(row["outputs"]):
            lines.append(f"  o{row['id']}_{index} [label={json.dumps(name)} shape=ellipse]")
            lines.append(f"  n{row['id']} -> o{row['id']}_{index}")
    return "\n".join([*lines, "}"]) + "\n"


def page(found: Explanation, title: str) -> str:
    """One HTML page with the graph before and after, and the passes; it loads nothing else."""
    data = {
        "title": title,
        "graphs": [
            {"label": "as imported", "rows": rows(found.imported)},
            {"label": "optimised", "rows": rows(found.optimised)},
        ],
        "passes": [_pass_row(record) for record in found.records],
    }
    # "</script>" inside a name must not end the script.
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    template = resources.files("planish").joinpath("page.html").read_text(encoding="utf-8")
    return template.replace("{{title}}", html.escape(title)).replace("{{data}}", text)


def _pass_row(record: PassRecord) -> dict[str, Any]:
    change = record.change()
    return {
        "label": record.label,
        "why": record.step.why,
        "origin": record.step.origin,
        "seconds": record.seconds,
        "nodes": [len(record.before.nodes), len(record.after.nodes)],
        "removed": dict(change.removed),
        "added": dict(change.added),
        "onnx": list(change.onnx_nodes),
        "lines": list(event_lines(record)),
    }


def event_lines(record: PassRecord) -> Iterator[str]:
    """One line for each place where a rule fired or refused."""
    for event in record.events:
        if event.refused is None:
            yield f"{event.rule}: {event.where}"
    for event in record.events:
        if event.refused is not None:
            yield f"{event.rule}: refused at {event.where}: {event.refused}"
