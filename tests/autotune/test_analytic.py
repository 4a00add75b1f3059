"""The analytic model ranks as the hardware does, and quickly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from planish.autotune.analytic import Work, cycles, reads
from planish.autotune.spaces import SPACES, space_of
from planish.autotune.spaces.space import partial_sum
from planish.targets.hardware import find_target
from tests.targets.anchor_kernels import anchor_kernels

V4 = dataclasses.replace(find_target("x86-64-v4"), cores=2)


def _work(**changed: float) -> Work:
    usual = {
        "multiplies": 24.0,
        "sums": 24.0,
        "loads": 8.0,
        "registers": 28.0,
        "steps": 256.0,
        "tiles": 100.0,
        "finish": 48.0,
        "l2": 0.0,
        "l3": 0.0,
        "gathered": 0.0,
        "shares": 100.0,
        "parallel": False,
        "vector_bytes": 64.0,
    }
    return Work(**(usual | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"registers": 34.0}),  # spills
        ({}, {"multiplies": 2.0, "sums": 2.0, "steps": 256.0 * 12}),  # too few sums for the latency
        ({}, {"loads": 60.0}),
        ({}, {"tiles": 110.0}),
        ({}, {"l3": 1e7}),
        ({"l2": 1e7}, {"l3": 1e7}),
        ({"l3": 1e7}, {"gathered": 1e7}),
        ({"parallel": True}, {}),
        ({"parallel": True, "shares": 2.0}, {"parallel": True, "shares": 3.0}),
        ({"parallel": True}, {"parallel": True, "foreign": 1e6}),
        ({"tiles": 1.0, "steps": 8.0}, {"tiles": 1.0, "steps": 8.0, "parallel": True}),
    ],
)
def test_what_costs_more_ranks_behind(better: dict[str, float], worse: dict[str, float]) -> None:
    assert cycles(_work(**better), V4) < cycles(_work(**worse), V4)


def test_the_roofline_is_the_floor() -> None:
    work = _work(tiles=1000.0)
    floor = 24.0 * 256.0 * 1000.0 / V4.fma_per_cycle
    assert floor < cycles(work, V4) < 1.3 * floor


def test_halved_vectors_lose_nothing_where_the_units_are_narrow() -> None:
    narrow = dataclasses.replace(V4, fma_per_cycle=1)
    halves = _work(vector_bytes=32.0, tiles=200.0, steps=256.0)
    assert cycles(halves, narrow) < 1.2 * cycles(_work(), narrow)
    assert cycles(halves, V4) > 1.5 * cycles(_work(), V4)


def test_what_fits_l2_is_read_from_there() -> None:
    near, far = reads(V4, np.array([V4.l2 / 2, V4.l2 * 2]), 3)
    assert near.tolist() == [V4.l2 * 1.5, 0]
    assert far.tolist() == [0, V4.l2 * 6]


@pytest.mark.parametrize(
    ("steps", "length", "wanted"),
    [(16, 144, 2), (9, 144, 1), (4, 16, 4), (1536, 1, 256), (384, 1, 192), (257, 1, 257)],
)
def test_partial_sums_are_short_divisors(steps: int, length: int, wanted: int) -> None:
    assert partial_sum(steps, length) == wanted
    assert steps % partial_sum(steps, length) == 0


KERNELS = anchor_kernels(V4)
MODELLED = [name for name, kernel in KERNELS.items() if space_of(kernel).work is not None]


def test_contractions_have_a_model() -> None:
    found = {space_of(KERNELS[name]).name for name in MODELLED}
    assert found >= {"conv", "plain_conv", "matmul"}
    assert found == {space.name for space in SPACES.values() if space.work is not None} & found


@pytest.mark.parametrize("name", MODELLED)
def test_every_point_has_a_finite_cost_and_the_pick_the_least(name: str) -> None:
    kernel = KERNELS[name]
    space = space_of(kernel)
    assert space.work is not None
    points = space.points(kernel, V4)
    cost = cycles(space.work(kernel, V4, points), V4)
    count = len(next(iter(points.values())))
    assert cost.shape == (count,)
    assert np.isfinite(cost).all()
    assert (cost > 0).all()
    first = int(np.argmin(cost))
    assert space.pick(kernel, V4) == {key: points[key][first].item() for key in points}
    assert len(space.ranked(kernel, V4)) == count
