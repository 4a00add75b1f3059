"""Searches on tables of made-up times: they find the optimum, sooner than chance does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from planish.autotune.search import (
    CostModel,
    DescentSearcher,
    ModelSearcher,
    RandomSearcher,
    Searcher,
)
from planish.autotune.search import searcher as searcher_module
from planish.autotune.search.lattice import Lattice
from planish.autotune.search.searcher import expected_improvement
from tests.search.tables import Table, model_searcher, run, table

SEEDS = range(5)

Make = Callable[[Table, int, CostModel], Searcher]
SEARCHERS: dict[str, Make] = {
    "random": lambda source, seed, model: RandomSearcher(source.lattice, seed),
    "descent": lambda source, seed, model: DescentSearcher(source.lattice, seed),
    "model": model_searcher,
}


def search(name: str, source: Table, seed: int, budget: int) -> list[float]:
    """The best times by the optimum, trial by trial."""
    model = CostModel(seed)
    found = run(SEARCHERS[name](source, seed, model), source, budget, model)
    return [seconds / source.optimum for seconds in found]


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_point_is_measured_once_and_then_it_ends(name: str) -> None:
    source = table(20)
    few = np.arange(0, source.lattice.size, 23)  # with holes, as legal points have
    points = {key: values[few] for key, values in source.lattice.points().items()}
    lattice = Lattice(points, source.lattice.choices(int(few[3])))
    part = Table(
        lattice,
        type(source.features)(
            source.features.names,
            source.features.rows[few],
            source.features.estimate[few],
            np.argsort(source.features.estimate[few]),
        ),
        source.seconds[few],
    )
    model = CostModel()
    searcher = SEARCHERS[name](part, 0, model)
    curve = run(searcher, part, 10**6, model)
    assert len(curve) == lattice.size
    assert searcher.exhausted
    assert searcher.ask(8) == []
    assert searcher.gain() == 0
    assert curve[-1] == part.optimum
    assert searcher.best == (int(part.seconds.argmin()), part.optimum)


@pytest.mark.parametrize("name", SEARCHERS)
def test_same_seed_same_search(name: str) -> None:
    source = table(100, known=0.3, noise=0.05)
    order = []
    for seed in (3, 3, 4):
        model = CostModel(seed)
        searcher = SEARCHERS[name](source, seed, model)
        run(searcher, source, 96, model)
        order.append(list(searcher.seconds))  # type: ignore[attr-defined]
    assert order[0] == order[1]
    # Descent is chance only where it starts again.
    assert order[0] != order[2] or name == "descent"


def test_better_than_random_and_than_descent_alone() -> None:
    areas: dict[str, float] = {}
    finals: dict[str, float] = {}
    sources = [table(size, known=0.3, noise=0.03, seed=size, odd=0.1) for size in (28, 60, 100)]
    for name in SEARCHERS:
        curves = [np.log(search(name, source, seed, 64)) for source in sources for seed in SEEDS]
        areas[name] = float(np.mean(curves))
        finals[name] = float(np.mean([curve[-1] for curve in curves]))
    assert areas["model"] < 0.7 * areas["random"]
    assert finals["model"] < 0.5 * min(finals["random"], finals["descent"])
    assert finals["model"] < math.log(1.02)


def test_model_helps_where_the_analytic_one_is_wrong() -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    for size in (28, 60, 100):
        source = table(size, noise=0.02, seed=size, odd=0.5)
        wrong = np.random.default_rng(size).permutation(source.lattice.size)
        source.features.ranking[:] = wrong
        source.features.estimate[wrong] = np.linspace(0, 0.5, source.lattice.size)
        for learned in found:
            model = CostModel() if learned else None
            searcher = model_searcher(source, size, model)
            curve = run(searcher, source, 128, model)
            found[learned].append(float(np.log(curve).mean()))
    assert np.mean(found[True]) < np.mean(found[False]) - 0.02


def test_large_spaces_are_searched_without_scoring_every_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searcher_module, "_SCORED", 256)
    source = table(100, known=0.3, noise=0.03, odd=0.5)
    finals = [search("model", source, seed, 96)[-1] for seed in SEEDS]
    chance = [search("random", source, seed, 96)[-1] for seed in SEEDS]
    assert np.mean(finals) < 0.8 * np.mean(chance)
    assert np.mean(finals) < 1.1


def test_seeds_of_a_log_go_first_and_known_points_are_not_asked_for() -> None:
    source = table(28)
    group = source.group()
    searcher = ModelSearcher(source.lattice, group, None, 0, seeds=[17, 5, 17])
    searcher.tell({5: 2e-6})
    assert searcher.ask(4) == [17]
    searcher.tell({17: 3e-6})
    asked = searcher.ask(4)
    assert not {5, 17} & set(asked)
    assert len(set(asked)) == 4
    assert group.seconds == {5: 2e-6, 17: 3e-6}


def test_failures_are_never_the_best_nor_asked_for_again() -> None:
    source = table(28)
    searcher = model_searcher(source, 0, None)
    first = searcher.ask(8)
    searcher.tell(dict.fromkeys(first, math.inf))
    assert searcher.best is None
    assert not set(searcher.ask(8)) & set(first)
    searcher.tell({searcher.ask(1)[0]: 3e-6})
    assert searcher.best is not None
    assert searcher.best[1] == 3e-6


def test_neighbours_of_the_best_go_first_and_then_its_lines() -> None:
    source = table(64)
    searcher = model_searcher(source, 0, None)
    best = source.lattice.find(
        {"oc": 4, "ow": 14, "outer": "pixels", "vector": 8, "parallel": True}
    )
    assert best is not None
    searcher.tell({best: 1e-9})
    lattice = source.lattice
    near = set(lattice.neighbours(best))
    lines = {p for i in range(len(lattice.names)) for p in lattice.along(best, i)}
    asked = searcher.ask(len(near))
    assert set(asked) == near
    assert list(source.features.estimate[asked]) == sorted(source.features.estimate[asked])
    searcher.tell(dict.fromkeys(asked, 1e-3))
    # Nothing better so far: a quarter of the next batches goes elsewhere.
    rest = searcher.ask(16)
    assert set(rest[:12]) <= lines - near
    assert not set(rest[12:]) & (lines | near)


def test_expected_gain_falls_as_the_search_runs_dry() -> None:
    source, model = table(100, noise=0.01), CostModel()
    searcher = model_searcher(source, 0, model)
    begin = searcher.gain()
    run(searcher, source, 400, model)
    assert 0 < searcher.gain() < 0.5 * begin


def test_expected_improvement() -> None:
    drawn = np.random.default_rng(0).normal(-0.1, 0.2, 200_000)
    assert expected_improvement(-0.1, 0.2) == pytest.approx(np.maximum(0, drawn).mean(), rel=0.03)
    assert expected_improvement(1.0, 1e-6) == pytest.approx(1.0)
    assert expected_improvement(-1.0, 1e-3) == 0
