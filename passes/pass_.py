"""What a pass is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planish.ir.graph import Graph
from planish.ir.target import Target

#: A pass returns a new graph, or the same object when nothing changed.
Pass = Callable[[Graph, Target], Graph]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a pipeline: a pass and why it stands where it stands."""

    run: Pass
    why: str

    @property
    def name(self) -> str:
        """The name of the pass, for `--print-after`, errors and golden files."""
        return self.run.__name__
