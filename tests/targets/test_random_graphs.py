"""Random graphs of sixty ops and more, through all passes to native code, against the reference.

The nightly form compiles PLANISH_COMPILED_GRAPHS graphs (60 by default).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from planish.ir.graph import Graph
from planish.ir.parse import random_data
from planish.ir.text import print_graph
from planish.passes.pipeline import run_pipeline
from tests.targets.compiled import HOST, check_against_reference
from tests.targets.large_graphs import large_graph, shrunk

_NIGHTLY = int(os.environ.get("PLANISH_COMPILED_GRAPHS", "60"))


def _compile(graph: Graph, folder: Path) -> None:
    inputs = {value.name: random_data(value.type, i) for i, value in enumerate(graph.inputs)}
    kernels = run_pipeline(graph, HOST)
    with np.errstate(all="ignore"):
        check_against_reference(kernels, inputs, folder)


def _check(seed: int, folder: Path) -> None:
    graph = large_graph(np.random.RandomState(seed).randint(0, 2**30, 62).tolist())
    tries = itertools.count()

    def fails(candidate: Graph) -> bool:
        try:
            _compile(candidate, folder / str(next(tries)))
        except Exception:
            return True
        return False

    if fails(graph):
        small = shrunk(graph, fails, tries=60)
        print(print_graph(small))
        _compile(small, folder / "shrunk")
        raise AssertionError("what failed before passes now")


@pytest.mark.parametrize("seed", range(2))
def test_compiled_graph_is_right(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1000 + _NIGHTLY))
def test_compiled_graph_is_right_nightly(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path)
