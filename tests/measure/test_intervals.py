"""The interval of the median: its ranks, and how often it holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.autotune.measure import Interval, median_interval

_TIMES = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=60)


@pytest.mark.parametrize("count", [8, 16, 33, 100, 400])
@pytest.mark.parametrize("draw", ["exponential", "normal"])
def test_interval_holds_the_true_median_as_often_as_it_says(count: int, draw: str) -> None:
    rng = np.random.default_rng(7)
    truth = np.log(2) if draw == "exponential" else 0.0
    samples = getattr(rng, f"standard_{draw}")((2000, count))
    intervals = [median_interval(list(sample)) for sample in samples]
    held = np.mean([i.low <= truth <= i.high for i in intervals])
    assert 0.94 <= held <= 0.995


@given(_TIMES)
def test_interval_encloses_the_median_and_is_of_the_sample(times: list[float]) -> None:
    found = median_interval(times)
    assert found.low <= found.median <= found.high
    assert found.low in times
    assert found.high in times
    assert found.median == pytest.approx(np.median(times))


@given(_TIMES, st.floats(1e-3, 1e3))
def test_interval_is_scaled_with_its_unit(times: list[float], factor: float) -> None:
    found = median_interval(times)
    assert found.scaled(factor).half_width == pytest.approx(found.half_width)


def test_half_width_is_relative() -> None:
    assert Interval(2.0, 1.9, 2.1).half_width == pytest.approx(0.05)
