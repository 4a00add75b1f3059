"""What a pass is, and a step of a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planish.ir.graph import Graph
from planish.ir.target import Target

#: A pass returns a new graph, or the same object when nothing changed.
Pass = Callable[[Graph, Target], Graph]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a pipeline: a pass and why it stands where it stands.

    `origin` says whose pass it is where it is not one of planish's ("my_module:my_pass"); `label`
    is its name where that is not the function's.
    """

    run: Pass
    why: str
    origin: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """The name of the pass, for `--print-after`, errors and golden files."""
        own = getattr(self.run, "name", type(self.run).__name__)  # a LocalPass has one
        return self.label or getattr(self.run, "__name__", own)
