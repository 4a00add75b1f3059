"""Points by number: their choices, their neighbours, and the default."""

from __future__ import annotations

import numpy as np
import pytest

from planish.autotune.search.lattice import Lattice
from planish.autotune.spaces import SPACES
from planish.autotune.spaces.sharing import sharing_of
from planish.autotune.spaces.space import Choices
from tests.autotune_log.logged_model import HOST
from tests.search.kernels import tasks_of_perceptron
from tests.search.tables import grid

OPTIONS = {"tile": (1, 2, 4, 8), "outer": ("rows", "columns"), "parallel": (False, True)}


def lattice(pick: Choices | None = None) -> Lattice:
    """A lattice in which tiles of 8 are not parallel."""
    points = grid(OPTIONS)
    legal = ~((points["tile"] == 8) & points["parallel"])
    kept = {name: values[legal] for name, values in points.items()}
    return Lattice(kept, pick or {"tile": 2, "outer": "rows", "parallel": True})


def test_points_are_their_choices() -> None:
    found = lattice()
    assert found.size == 14
    every = [found.choices(point) for point in range(found.size)]
    assert len({tuple(choices.values()) for choices in every}) == 14
    assert [found.find(choices) for choices in every] == list(range(14))
    assert found.choices(found.default) == {"tile": 2, "outer": "rows", "parallel": True}
    for name, values in found.points().items():
        assert values.tolist() == [choices[name] for choices in every]


@pytest.mark.parametrize(
    "choices",
    [
        {"tile": 8, "outer": "rows", "parallel": True},
        {"tile": 3, "outer": "rows", "parallel": True},
        {"tile": 2, "outer": "rows"},
        {"tile": 2, "outer": "rows", "parallel": True, "more": 1},
        {"tile": True, "outer": "rows", "parallel": True},
        {"tile": 2, "outer": "rows", "parallel": 1},
    ],
)
def test_what_is_no_point(choices: Choices) -> None:
    assert lattice().find(choices) is None


def test_pick_that_is_no_option_is_a_point() -> None:
    pick = {"tile": 3, "outer": "rows", "parallel": True}
    found = lattice(pick)
    assert found.size == 15
    assert found.choices(found.default) == pick
    assert found.find(pick) == found.default
    assert found.find({"tile": 4, "outer": "rows", "parallel": True}) is not None


def test_neighbours_differ_in_one_choice_by_a_step_or_two() -> None:
    found = lattice()
    here = found.choices(found.default)
    near = [found.choices(point) for point in found.neighbours(found.default)]
    assert {c["tile"] for c in near if c["tile"] != 2} == {1, 4}  # 8 is not parallel
    assert all(sum(c[name] != here[name] for name in here) == 1 for c in near)
    assert len(near) == 4


def test_line_has_every_other_value_of_a_choice() -> None:
    found = lattice()
    line = found.along(found.find({"tile": 8, "outer": "rows", "parallel": False}) or 0, 0)
    assert {found.choices(point)["tile"] for point in line} == {1, 2, 4}


def test_space_without_choices_has_one_point() -> None:
    found = Lattice({}, {})
    assert (found.size, found.default, found.choices(0)) == (1, 0, {})
    assert found.find({}) == 0
    assert found.neighbours(0) == []


def test_lattices_are_what_their_spaces_share_as_the_pick_does() -> None:
    for task in tasks_of_perceptron():
        ranked = task.space.ranked(task.kernel, HOST)
        alike = [choices for choices in ranked if sharing_of(choices) == sharing_of(ranked[0])]
        assert len(alike) < len(ranked)
        assert [task.lattice.choices(i) for i in task.features.ranking.tolist()] == alike
        assert task.lattice.choices(task.lattice.default) == ranked[0]
        assert task.space.name in SPACES
        assert np.isfinite(task.features.estimate).all()
