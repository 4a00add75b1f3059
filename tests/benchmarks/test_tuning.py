"""Curves of a tuning from its log: times by the defaults', however fast the machine was."""

from __future__ import annotations

import importlib
import json

import pytest


def trial(task: str, median: float | None) -> str:
    """A line of a log; without a time, one that failed."""
    outcome = {"error": "noisy"} if median is None else {"median": median}
    return json.dumps({"kind": "trial", "task": task, **outcome})


@pytest.mark.usefixtures("_importable")
def test_curve_is_by_the_defaults_and_by_their_share() -> None:
    tuning = importlib.import_module("tuning")
    tasks = [
        {"task": "a", "kernels": ["k1", "k2"], "default": 1.5},
        {"task": "b", "kernels": ["k3"], "default": 1.0},
        {"task": "c", "kernels": ["k4"], "default": None},
    ]
    lines = [
        json.dumps({"kind": "header"}),
        trial("a", 6.0),  # the default, while the machine was four times slower
        trial("b", 1.0),
        trial("a", None),
        trial("a", 3.0),
        trial("b", 1.2),
        trial("b", 0.8),
    ]
    curve = tuning._curve(lines, tasks)
    assert curve == pytest.approx([1, 1, 1, 0.625, 0.625, 0.575])
    assert tuning._trials_to(curve, 0.6) == 6
    assert tuning._trials_to(curve, 0.5) is None
