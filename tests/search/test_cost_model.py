"""The model learns what the analytic estimate gets wrong, and that serves other shapes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from planish.autotune.search.assess import assess, spearman, top_recall
from planish.autotune.search.cost_model import CostModel, Group
from planish.autotune.search.features import Features
from tests.search.tables import Table, table


def measured(source: Table, count: int, seed: int = 0) -> Group:
    """A group with the default and some random points told."""
    group = source.group()
    drawn = np.random.default_rng(seed).permutation(source.lattice.size)[:count].tolist()
    group.seconds = {p: float(source.seconds[p]) for p in [source.lattice.default, *drawn]}
    return group


def correlation(model: CostModel, source: Table, group: Group) -> float:
    """Of the predicted and the true order of all points."""
    points = np.arange(source.lattice.size)
    return spearman(model.predict(group, points), source.seconds)


def test_without_data_it_is_the_analytic_model() -> None:
    source, model = table(100), CostModel()
    group = source.group()
    model.add(group)
    model.fit()
    points = np.arange(source.lattice.size)
    assert (model.predict(group, points) == source.features.estimate).all()


def test_learns_the_residual_online() -> None:
    source, model = table(100, known=0.3, noise=0.02), CostModel()
    group = source.group()
    model.add(group)
    before = correlation(model, source, group)
    found = []
    for count in (48, 400):
        group.seconds.update(measured(source, count).seconds)
        model.fit()
        found.append(correlation(model, source, group))
    assert before < 0.9
    assert found[1] > found[0] > before
    assert found[1] > 0.95


def test_what_other_shapes_taught_serves_a_new_one() -> None:
    source, model = table(60, known=0.3), CostModel()
    new = source.group()
    model.add(new)
    before = correlation(model, source, new)
    for size in (28, 56, 100):
        model.add(measured(table(size, known=0.3), 200, size))
    model.fit()
    assert correlation(model, source, new) > max(before + 0.05, 0.9)


def test_slower_device_says_nothing_of_points() -> None:
    source, model = table(100, known=0.3), CostModel()
    slow = measured(source, 300)
    group = measured(source, 300)
    slow.seconds = {point: 50 * seconds for point, seconds in slow.seconds.items()}
    assert slow.level() == pytest.approx(group.level() + np.log(50))
    model.add(slow)
    model.add(group)
    model.fit()
    points = np.asarray(list(group.seconds))
    found = model.predict(group, points) + group.level()
    truth = np.log(list(group.seconds.values()))
    assert np.median(np.abs(found - truth)) < 0.1


def test_failures_are_predicted_to_be_slow() -> None:
    source, model = table(100), CostModel()
    group = measured(source, 500)
    fatal = np.flatnonzero(source.features.rows[:, 0] == 3)  # the largest `oc`
    for point in group.seconds.keys() & set(fatal.tolist()):
        group.seconds[point] = np.inf
    model.add(group)
    model.fit()
    others = np.setdiff1d(np.arange(source.lattice.size), fatal)
    assert model.predict(group, fatal).min() > np.quantile(model.predict(group, others), 0.5)


def test_groups_of_other_columns_go_together() -> None:
    source, model = table(100), CostModel()
    rows = np.random.default_rng(0).random((32, 3)).astype("f4")
    other = Group(Features(("cycles", "flat", "tile"), rows, np.zeros(32), np.arange(32)))
    other.seconds = {point: 1e-6 * (1 + float(rows[point, 1])) for point in range(32)}
    group = measured(source, 200)
    model.add(other)
    model.add(group)
    model.fit()
    assert spearman(model.predict(other, np.arange(32)), rows[:, 1]) > 0.8
    assert correlation(model, source, group) > 0.8


def test_same_data_same_model() -> None:
    source = table(100, known=0.3)
    predictions = []
    for seed in (1, 1, 2):
        model, group = CostModel(seed), measured(source, 200)
        model.add(group)
        model.fit()
        predictions.append(model.predict(group, np.arange(100)).tolist())
    assert predictions[0] == predictions[1] != predictions[2]


def test_quality_is_of_tasks_that_were_held_out() -> None:
    tables = [table(size, known=0.3) for size in (20, 28, 56, 60, 100, 112)]
    found = assess([measured(t, 120, i) for i, t in enumerate(tables)])
    assert found is not None
    assert found.tasks == 6
    assert 6 * 120 <= found.points <= 6 * 121
    assert found.rank > found.analytic_rank + 0.05
    assert found.recall > found.analytic_recall
    assert assess([measured(tables[0], 100)]) is None
    assert assess([measured(t, 3) for t in tables]) is None


def test_spearman_and_recall() -> None:
    truth = np.arange(40.0)
    assert spearman(np.exp(truth), truth) == pytest.approx(1)
    assert spearman(-truth, truth) == pytest.approx(-1)
    assert spearman(np.zeros(40), truth) == 0
    # Ties share their ranks: by hand for (1, 1, 2) against (1, 2, 3).
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(np.sqrt(3) / 2)
    assert top_recall(truth, truth) == 1
    assert top_recall(-truth, truth) == 0
    assert top_recall(np.zeros(40), truth) == pytest.approx(8 / 40)


def test_xgboost_is_imported_by_tuning_only() -> None:
    program = (
        "import sys, planish.driver, planish.cli.app, planish.logged_schedules;"
        "assert 'xgboost' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
