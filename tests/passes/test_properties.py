"""Passes keep what random graphs compute; the text form keeps the graphs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import TARGET, assert_same_results, graphs

from planish.ir.compare import difference
from planish.ir.digest import digest
from planish.ir.graph import Graph
from planish.ir.parse import parse
from planish.ir.text import constants_of, print_graph
from planish.ir.verifier import verify
from planish.passes.pass_ import Step
from planish.passes.pipeline import PIPELINE, run_pipeline

_FEW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_STEPS = {step.name: step for step in reversed(PIPELINE)}
#: Passes that reach a fixed point; layouts and kernels are decided once.
_SETTLING = set(_STEPS) - {"assign_layout", "fuse"}


@given(graph=graphs())
@_FEW
def test_every_pass_preserves_results(graph: Graph) -> None:
    for step in _STEPS.values():
        after = run_pipeline(graph, TARGET, [step])
        assert_same_results(graph, after)
        if step.name in _SETTLING:
            assert step.run(after, TARGET) is after, f"{step.name} is not at its fixed point"


@given(graph=graphs())
@_FEW
def test_pipeline_preserves_results(graph: Graph) -> None:
    after = run_pipeline(graph, TARGET, PIPELINE)
    assert_same_results(graph, after)


@given(graph=graphs())
@_FEW
def test_text_round_trip(graph: Graph) -> None:
    verify(graph)
    text, constants = print_graph(graph), constants_of(graph)
    again = parse(text, constants)
    assert difference(graph, again) is None
    assert digest(graph) == digest(again)
    assert print_graph(again) == text


def test_pipeline_holds_steps_with_reasons() -> None:
    for step in PIPELINE:
        assert isinstance(step, Step)
        assert step.why.strip() == step.why != ""


@pytest.mark.parametrize("step", _STEPS.values(), ids=lambda step: step.name)
def test_a_pass_has_a_docstring(step: Step) -> None:
    assert step.run.__doc__
