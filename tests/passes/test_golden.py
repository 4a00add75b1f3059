"""Golden pairs: `golden/<pass>/*.txt` holds a graph, a line `----`, and what the pass makes of it.

Both sides are executed on random inputs and compared. PLANISH_UPDATE_GOLDEN=1 writes the second
side anew: look at the difference before you commit it.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from random_graphs import TARGET, assert_same_results

from planish.ir.graph import Graph
from planish.ir.parse import parse
from planish.ir.text import constants_of, print_graph
from planish.ir.verifier import verify

_SEPARATOR = "\n----\n"
#: Passes that are not for their own results.
_DECIDED_ONCE = ("assign_layout", "fuse")
_FILES = sorted((Path(__file__).parent / "golden").glob("*/*.txt"))


def _text_and_constants(graph: Graph) -> tuple[str, Mapping[str, np.ndarray]]:
    """The text with numbers in place of digests, which rounding may change between machines."""
    text, constants = print_graph(graph), constants_of(graph)
    for number, key in enumerate(dict.fromkeys(re.findall(r'data\("(sha256:\w+)"\)', text))):
        text = text.replace(key, f"constant {number}")
        constants[f"constant {number}"] = constants.pop(key)
    return text, constants


@pytest.mark.parametrize("path", _FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden_pair(path: Path) -> None:
    name = path.parent.name
    before_text, _, after_text = path.read_text().partition(_SEPARATOR)
    before = parse(before_text)
    verify(before)
    run = getattr(importlib.import_module(f"planish.passes.{name}"), name)
    after = run(before, TARGET)
    verify(after)
    found, constants = _text_and_constants(after)
    if os.environ.get("PLANISH_UPDATE_GOLDEN") == "1":
        path.write_text(before_text.rstrip("\n") + _SEPARATOR + found)
        after_text = found
    assert found == after_text
    assert_same_results(before, parse(after_text, constants), rtol=1e-5)
    if name not in _DECIDED_ONCE:
        assert run(after, TARGET) is after, "the pass is not at its fixed point"
