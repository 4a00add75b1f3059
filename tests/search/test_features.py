"""Rows of numbers that tell points, kernels and targets apart."""

from __future__ import annotations

import numpy as np
import pytest

from planish.autotune.analytic import cycles
from planish.autotune.search.features import point_features, work_of
from planish.autotune.search.lattice import Lattice
from planish.autotune.search.tasks import make_tasks
from planish.targets.hardware import find_target
from tests.autotune_log.logged_model import HOST
from tests.search.kernels import tasks_of_perceptron
from tests.targets.anchor_kernels import anchor_kernels

KERNELS = anchor_kernels(HOST)
TASK = tasks_of_perceptron()[0]


def column(name: str) -> np.ndarray:
    """One feature of all points."""
    place = TASK.features.names.index(name)
    found: np.ndarray = TASK.features.rows[:, place]
    return found


def test_rows_tell_all_points_apart() -> None:
    assert TASK.features.rows.shape == (TASK.lattice.size, len(TASK.features.names))
    assert np.isfinite(TASK.features.rows).all()
    assert len(np.unique(TASK.features.rows, axis=0)) == TASK.lattice.size


def test_columns_are_logarithms_of_counts() -> None:
    flops, moved = work_of(TASK.kernel)
    assert column("flops") == pytest.approx(np.log2(flops + 1))
    assert column("intensity") == pytest.approx(np.log2(flops + 1) - np.log2(moved + 1), abs=1e-5)
    points = TASK.lattice.points()
    assert TASK.space.work is not None
    work = TASK.space.work(TASK.kernel, HOST, points)
    assert column("work.tiles") == pytest.approx(np.log2(np.asarray(work.tiles) + 1.0), abs=1e-5)
    assert column("cycles") == pytest.approx(np.log2(cycles(work, HOST)), abs=1e-5)
    assert column("choice.m").tolist() == points["m"].tolist()
    assert set(column("outer=rows").tolist()) == {0, 1}
    assert np.exp(TASK.features.estimate) == pytest.approx(cycles(work, HOST))


def test_targets_are_told_apart() -> None:
    other = find_target("cortex-a72")
    lattice = Lattice.of(TASK.space, TASK.kernel, other)
    there = point_features(TASK.kernel, TASK.space, other, lattice)
    for name in ("target.vector_bytes", "target.l2"):
        place = there.names.index(name)
        expected = np.log2(getattr(other, name.removeprefix("target.")) + 1)
        assert there.rows[0, place] == pytest.approx(expected)


def test_columns_of_other_tasks_are_nan_where_they_have_no_meaning() -> None:
    points = np.asarray([3, 1])
    found = TASK.features.columns(("cycles", "choice.keys", "choice.m"), points)
    assert found[:, 0].tolist() == column("cycles")[points].tolist()
    assert np.isnan(found[:, 1]).all()
    assert found[:, 2].tolist() == column("choice.m")[points].tolist()


@pytest.mark.parametrize("name", KERNELS)
def test_every_space_has_features(name: str) -> None:
    (task,) = make_tasks([KERNELS[name]], HOST)
    assert task.lattice.choices(task.lattice.default) == task.space.pick(task.kernel, HOST)
    assert sorted(task.features.ranking.tolist()) == list(range(task.lattice.size))
    assert np.isfinite(task.features.estimate).all()
    assert np.isfinite(task.features.rows).all()
