"""Random graphs of sixty ops and more, through all passes to native code, against the reference.

The nightly form compiles PLANISH_COMPILED_GRAPHS graphs (60 by default).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from planish.ir.graph import Graph
from planish.ir.parse import random_data
from planish.ir.text import print_graph
from planish.passes.pipeline import run_pipeline
from tests.targets.compiled import HOST, check_against_reference

_NIGHTLY = int(os.environ.get("PLANISH_COMPILED_GRAPHS", "60"))


def _module(name: str) -> ModuleType:
    """A module beside the tests of passes, which are no package."""
    path = Path(__file__).parent.parent / "passes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


large_graph = _module("large_random_graphs").large_graph
shrunk = _module("shrink").shrunk


def _compile(graph: Graph, folder: Path) -> None:
    inputs = {value.name: random_data(value.type, i) for i, value in enumerate(graph.inputs)}
    kernels = run_pipeline(graph, HOST)
    with np.errstate(all="ignore"):
        check_against_reference(kernels, inputs, folder)


def _check(seed: int, folder: Path) -> None:
    graph = large_graph(np.random.RandomState(seed).randint(0, 2**30, 62).tolist())
    tried = 0

    def fails(candidate: Graph) -> bool:
        nonlocal tried
        tried += 1
        try:
            _compile(candidate, folder / str(tried))
        except Exception:
            return True
        return False

    if fails(graph):
        small = shrunk(graph, fails)
        print(print_graph(small))
        _compile(small, folder / "shrunk")
        raise AssertionError("what failed before passes now")


@pytest.mark.parametrize("seed", range(3))
def test_compiled_graph_is_right(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1000 + _NIGHTLY))
def test_compiled_graph_is_right_nightly(seed: int, tmp_path: Path) -> None:
    _check(seed, tmp_path)
