"""The cut is the cheapest choice: compared with all choices of small problems."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planish.ir.graph import Graph
from planish.passes.layout.blocking import Blocking
from planish.passes.layout.choose import layout_problem
from planish.passes.layout.cut import cheapest
from planish.passes.layout.problem import PLAIN, Problem
from tests.passes.layout.convolution_graphs import networks
from tests.passes.random_graphs import TARGET

_MANY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def _least(problem: Problem) -> int:
    """The cost of the cheapest of all choices."""
    decisions = len(problem.plain)
    costs = map(problem.cost, itertools.product((False, True), repeat=decisions))
    return min(cost for cost in costs if cost is not None)


@st.composite
def problems(draw: Callable[[Any], Any]) -> Problem:
    problem, cost = Problem(), st.integers(0, 20)
    decisions = [PLAIN]
    for _ in range(draw(st.integers(1, 7))):
        fixed = draw(st.sampled_from((None, None, None, "plain", "blocked")))
        plain, blocked = draw(cost), draw(cost)
        sides = (None if fixed == "blocked" else plain, None if fixed == "plain" else blocked)
        decisions.append(problem.decision(*sides))
    anyone = st.sampled_from(decisions)
    for _ in range(draw(st.integers(0, 8))):
        readers = draw(st.lists(anyone, min_size=1, max_size=4))
        problem.transfer(draw(anyone), readers, draw(cost), draw(cost))
    return problem


@given(problem=problems())
@_MANY
def test_no_choice_is_cheaper_than_the_cut(problem: Problem) -> None:
    assert problem.cost(cheapest(problem)) == _least(problem)


@given(graph=networks(most=6))
@_MANY
def test_no_layouts_of_a_network_are_cheaper_than_those_of_the_cut(graph: Graph) -> None:
    problem = layout_problem(graph, TARGET, Blocking(graph, TARGET.lanes(4)))
    if len(problem.plain) <= 12:
        assert problem.cost(cheapest(problem)) == _least(problem)


def test_a_tensor_is_converted_once_for_all_its_readers() -> None:
    problem = Problem()
    blocks = problem.decision(None, 0)
    readers = [problem.decision(0, None) for _ in range(3)]
    problem.transfer(blocks, readers, 100, 7)
    assert cheapest(problem) == [False, True, False, False, False]
    assert problem.cost(cheapest(problem)) == 7


def test_what_cannot_be_in_a_layout_has_no_cost_there() -> None:
    problem = Problem()
    problem.decision(3, None)
    assert problem.cost([False, False]) == 3
    assert problem.cost([False, True]) is None
    assert problem.cost([True, False]) is None


def test_a_decision_needs_a_layout() -> None:
    with pytest.raises(AssertionError, match="nothing to choose from"):
        Problem().decision(None, None)


def test_long_chains_are_cut_where_the_tensor_is_smallest() -> None:
    problem = Problem()
    previous = problem.decision(None, 0)
    costs = [50 + abs(60 - step) for step in range(200)]
    chain = []
    for cost in costs:
        chain.append(problem.decision(0, 0))
        problem.transfer(previous, [chain[-1]], cost, cost)
        previous = chain[-1]
    problem.transfer(previous, [PLAIN], 1000, 1000)
    chosen = cheapest(problem)
    assert [chosen[step] for step in chain] == [True] * 60 + [False] * 140
