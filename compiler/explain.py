"""What each pass of a pipeline did to a graph: what fired where, what changed, what refused."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planish.custom import CustomPass, assemble, custom_ops, labelled
from planish.ir.extension import CustomOp, extended
from planish.ir.graph import Graph, Node
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.target import Target
from planish.passes.pass_ import Step
from planish.passes.pipeline import run_pipeline
from planish.passes.trace import Event, recording
from planish.targets.hardware import find_target
from planish.verification.judge import Judge
from planish.verification.references import NumpyReference
from planish.verify import model_inputs

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source


@dataclass(frozen=True, slots=True)
class Change:
    """Nodes that a pass took out and put in, counted by op, and the ONNX nodes they stem from."""

    removed: Mapping[str, int]
    added: Mapping[str, int]
    onnx_nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One step of a pipeline as it ran.

    `seconds` include the verifier. `numeric` is what the numeric check found wrong; empty if
    nothing, None where it was not asked for or the pass changed nothing.
    """

    label: str
    step: Step
    before: Graph
    after: Graph
    seconds: float
    events: tuple[Event, ...]
    numeric: str | None = None

    @property
    def changed(self) -> bool:
        """True if the pass gave another graph back."""
        return self.after is not self.before

    @property
    def fired(self) -> Counter[str]:
        """How often each rule fired."""
        return Counter(event.rule for event in self.events if event.refused is None)

    @property
    def refusals(self) -> Counter[tuple[str, str]]:
        """How often each (rule, reason) stands at the end."""
        return Counter((e.rule, e.refused) for e in self.events if e.refused is not None)

    def change(self) -> Change:
        """What is in one graph only; nodes that differ in what they read alone are equal."""
        old, new = _signatures(self.before), _signatures(self.after)
        gone = [node for key, nodes in old.items() for node in nodes[len(new.get(key, ())) :]]
        made = [node for key, nodes in new.items() for node in nodes[len(old.get(key, ())) :]]
        names = dict.fromkeys(name for node in (*gone, *made) for name in node.provenance)
        return Change(_by_op(gone), _by_op(made), tuple(names))


@dataclass(frozen=True, slots=True)
class Explanation:
    """A model's way through a pipeline."""

    imported: Graph
    optimised: Graph
    records: tuple[PassRecord, ...]


def explain(
    model: Source,
    *,
    target: str | Target = "host",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[CustomPass] = (),
    ops: Sequence[CustomOp | str] = (),
    pipeline: Sequence[Step] | None = None,
    numeric: bool = False,
    observer: Callable[[PassRecord], None] | None = None,
) -> Explanation:
    """Imports and optimises, and tells what each pass did; compiles nothing.

    With `numeric` the graph after each pass that changed it is computed by the reference on random
    inputs and compared with the model as imported. Takes and raises what `planish.compile` does.
    """
    steps = assemble(passes, pipeline)
    chosen = find_target(target) if isinstance(target, str) else target
    with extended(custom_ops(ops)):
        imported = graph = import_model(model, dims=dims, shapes=shapes)
        check = _numeric_check(imported) if numeric else None
        records = []
        for label, step in zip(labelled(steps), steps):
            start = time.perf_counter()
            with recording() as events:
                after = run_pipeline(graph, chosen, [step])
            seconds = time.perf_counter() - start
            wrong = check(after) if check is not None and after is not graph else None
            record = PassRecord(label, step, graph, after, seconds, tuple(events), wrong)
            records.append(record)
            if observer is not None:
                observer(record)
            graph = after
    return Explanation(imported, graph, tuple(records))


def _numeric_check(imported: Graph) -> Callable[[Graph], str]:
    """A function that says what is wrong with the outputs of a graph; empty if nothing is."""
    inputs = model_inputs(imported, seed=0)
    reference = NumpyReference(imported)
    judge = Judge(reference, inputs, reference.outputs(inputs))

    def check(graph: Graph) -> str:
        told = judge.wrong(evaluate(graph, inputs))
        return f"output {told}" if told else ""

    return check


def _signatures(graph: Graph) -> dict[Any, list[Node]]:
    """Nodes by what they are, whatever they read."""
    found: dict[Any, list[Node]] = {}
    for node in graph.nodes:
        types = tuple(str(result.type) for result in node.outputs)
        inside = tuple(inner.op for region in node.regions for inner in region.nodes)
        key = (node.op, types, tuple(node.attrs.items()), inside, node.provenance)
        found.setdefault(key, []).append(node)
    return found


def _by_op(nodes: Sequence[Node]) -> dict[str, int]:
    return dict(Counter(node.op for node in nodes).most_common())
