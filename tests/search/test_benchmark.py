"""The comparison of searches runs over a recorded table, and scores are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planish.autotune.search import Budget, tune
from tests.autotune_log.logged_model import HOST
from tests.search.kernels import TableMeasurer, means_for, optimum, seconds_of, tasks_of_perceptron

SCRIPT = Path(__file__).parents[2] / "benchmarks/search.py"
TASKS = tasks_of_perceptron()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Every point of two kernels."""
    tune(TASKS, HOST, Budget(trials=10**6), means_for(tmp_path / "table", TableMeasurer(TASKS)))
    return tmp_path / "table"


def test_every_search_is_scored(table: Path) -> None:
    command = [sys.executable, str(SCRIPT), "compare", str(table), "--seeds", "2", "--json"]
    done = subprocess.run([*command, "--trials", "24"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert len(scores) == 5
    for score in scores.values():
        assert 1 <= score["final"] <= score["area"]
        assert 1 <= score["near"] <= 24


def test_scores(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import search

    found = {one.task.digest: one for one in search.read_tables([table])}
    assert found.keys() == {task.digest for task in TASKS}
    for task in TASKS:
        recorded = found[task.digest]
        # Samples are logged to four digits.
        assert recorded.optimum == pytest.approx(optimum(task), rel=1e-3)
        assert len(recorded.group.seconds) == task.lattice.size
        searcher = search.RandomSearcher(recorded.task.lattice, 0)
        whole = search.simulate(searcher, recorded, 10**3, lambda: None)
        assert whole.final == 1
        only = search.simulate(
            search.RandomSearcher(recorded.task.lattice, 0), recorded, 1, lambda: None
        )
        default = seconds_of(task, task.lattice.default) / optimum(task)
        assert only.final == pytest.approx(default, rel=1e-3)
        assert only.area == pytest.approx(default, rel=1e-3)
