"""Which of somebody else's passes changes what the model computes."""

from __future__ import annotations

from collections.abc import Sequence

from planish.custom import labelled
from planish.ir.errors import CustomPassError, PlanishError
from planish.ir.graph import Graph
from planish.ir.reference import evaluate
from planish.ir.target import Target
from planish.passes.pass_ import Step
from planish.passes.pipeline import run_pipeline
from planish.verification.judge import Judge
from planish.verification.references import NumpyReference
from planish.verify import model_inputs


def blame_custom_pass(graph: Graph, target: Target, steps: Sequence[Step]) -> None:
    """CustomPassError that names the first custom step whose graph computes something else than the
    one before it, on random inputs; nothing if there is none, or it cannot be found out."""
    if not any(step.origin for step in steps):
        return
    labels = iter(labelled(steps))
    origins = iter([step.origin for step in steps])

    def judge(name: str, before: Graph, after: Graph, seconds: float) -> None:
        label, origin = next(labels), next(origins)
        if not origin or before is after:
            return
        reason = _difference(before, after)
        if reason:
            raise CustomPassError(
                f"pass '{label}' (from {origin}) changes what the model computes: {reason}; "
                "`planish bisect MODEL --pass …` finds the node"
            )

    run_pipeline(graph, target, steps, observer=judge)


def _difference(before: Graph, after: Graph) -> str:
    """What of the outputs differs; empty if nothing does, or no reference can compute them."""
    inputs = model_inputs(before, 0)
    try:
        expected, actual = evaluate(before, inputs), evaluate(after, inputs)
    except PlanishError:
        return ""
    told = Judge(NumpyReference(before), inputs, expected).wrong(actual)
    return f"output {told}" if told else ""
