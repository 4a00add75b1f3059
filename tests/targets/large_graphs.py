"""The random graphs of tests/passes, whose folder is no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _module(name: str) -> ModuleType:
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "passes" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


large_graph = _module("large_random_graphs").large_graph
shrunk = _module("shrink").shrunk
