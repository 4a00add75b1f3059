"""What measuring needs of other layers, as functions; the caller brings them.

Workers get the functions by name, so each must be importable at its module's top level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planish.ir.graph import Graph
from planish.ir.target import Target


@dataclass(frozen=True, slots=True)
class Backend:
    """How to build and to judge.

    `build_kernel(text, target, path)` writes the library of a one-kernel graph in text form, which
    exports `int32_t planish_trial_kernel(void *const *)`; ScheduleError if the schedule does not
    fit. `build_harness(sources, target, path)` links C sources with the runtime of artefacts.
    `random_inputs(graph, seed)` draws one array for each input. `compare(actual, expected)` says
    why the arrays differ, or nothing if they agree.
    """

    build_kernel: Callable[[str, Target, Path], None]
    build_harness: Callable[[Sequence[Path], Target, Path], None]
    random_inputs: Callable[[Graph, int], Sequence[np.ndarray]]
    compare: Callable[[np.ndarray, np.ndarray], str]
