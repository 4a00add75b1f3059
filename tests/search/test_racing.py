"""Which tasks lose time in the model: by their kernels' times in turn, where the model has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import planish
import planish.racing
from planish.autotune.apply_log import KernelOutcome
from planish.racing import Key, _is_decided, _losing, losing_tasks
from tests.autotune_log.logged_model import HOST, log_of
from tests.compiler.small_models import perceptron


def outcome(name: str, node: str, task: str, tuned: bool = True) -> KernelOutcome:
    """A kernel with a point, or without."""
    point = (("oc", 2),) if tuned else None
    return KernelOutcome(name, (node,), task, "exact", "", point=point)


def turns(*speeds: float) -> list[dict[str, dict[str, float]]]:
    """Rounds in which the tuned artefact was so many times as fast."""
    return [{"untuned": {"median": speed}, "tuned": {"median": 1.0}} for speed in speeds]


def test_a_race_is_decided_when_its_speed_is_on_one_side_or_known() -> None:
    assert not _is_decided([])
    assert _is_decided(turns(1.01, 1.3, 1.2))
    assert _is_decided(turns(0.99, 0.7, 0.8))
    assert _is_decided(turns(0.995, 1.0, 1.005))
    assert not _is_decided(turns(0.9, 1.1, 1.0))
    # Some turns at half the machine's speed decide nothing.
    assert not _is_decided(turns(*[0.5] * 5, *[1.03] * 4))
    assert _is_decided(turns(*[0.5] * 5, *[1.03] * 22))


#: Two of one name, and two of one name and one node.
KERNELS = [
    outcome("conv", "n1", "t1"),
    outcome("conv", "n2", "t1"),
    outcome("add", "n3", "t2"),
    outcome("add", "n3", "t3", tuned=False),
]
A, B, C, D = ("conv", ("n1",), 0), ("conv", ("n2",), 0), ("add", ("n3",), 0), ("add", ("n3",), 1)
UNTUNED: dict[Key, float] = {A: 1.0, B: 1.0, C: 2.0, D: 1.0}


def rounds(*differences: dict[Key, float]) -> tuple[list[dict[Key, float]], list[dict[Key, float]]]:
    """Times of both artefacts, in rounds of which each was slower than the one before."""
    slow = [1.0 + 0.5 * i for i in range(len(differences))]
    untuned = [{name: slower * spent for name, spent in UNTUNED.items()} for slower in slow]
    tuned = [
        {name: spent + more.get(name, 0.0) for name, spent in turn.items()}
        for turn, more in zip(untuned, differences)
    ]
    return untuned, tuned


def test_a_task_counts_by_all_its_kernels() -> None:
    assert _losing(KERNELS, *rounds({A: 0.5, B: -0.4, C: -1})) == ("t1",)
    assert _losing(KERNELS, *rounds({A: 0.5, B: -0.6, C: 0.1})) == ("t2",)
    assert _losing(KERNELS, *rounds({A: 0.5, C: 0.1})) == ("t1", "t2")


def test_one_round_of_three_decides_nothing() -> None:
    assert _losing(KERNELS, *rounds({A: 9.0}, {A: -0.1}, {A: -0.1})) == ()


def test_what_nobody_would_notice_is_not_tried() -> None:
    assert _losing(KERNELS, *rounds({A: 0.001})) == ()
    assert _losing(KERNELS, *rounds({D: 2.0})) == ()  # it has no point to be left out


def test_artefacts_tell_times_of_the_kernels_that_a_log_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planish.racing, "_ROUNDS", 2)
    monkeypatch.setattr(planish.racing, "_TURN_SECONDS", 0.001)
    seen: list[list[dict[Key, float]]] = []
    monkeypatch.setattr(planish.racing, "_losing", lambda *told: seen.extend(told[1:]) or ("t",))
    model = perceptron(tmp_path / "small.onnx")
    planish.compile(model, tmp_path / "plain", log=False)
    report = planish.compile(model, tmp_path / "best", log=log_of(tmp_path / "log", model))
    assert report.log is not None
    graph = planish.import_model(model)
    places = tmp_path / "plain", tmp_path / "best"
    kernels = report.log.kernels
    found = losing_tasks(graph, *places, kernels, HOST.cores, lambda *told: None)
    assert found == ("t",)
    assert [len(artefact) for artefact in seen] == [2, 2]
    for turn in (*seen[0], *seen[1]):
        assert {(kernel.kernel, kernel.onnx_nodes, 0) for kernel in kernels} <= turn.keys()
        assert np.all(np.asarray(list(turn.values())) > 0)
