"""What a verification found; plain data, so that reading it loads no compiler."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from planish.ir.errors import PlanishError


class VerificationFailed(PlanishError):
    """The artefact computes something else than the model: a failure of ours, never the user's."""


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """How far one output is off; `max_rel` is of the output's largest magnitude."""

    name: str
    ok: bool
    max_abs: float
    max_rel: float
    cosine: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found; `reference` is what the artefact was compared with."""

    reference: str
    mode: str
    seed: int
    outputs: tuple[OutputCheck, ...]

    @property
    def ok(self) -> bool:
        """True if every output is within tolerance."""
        return all(output.ok for output in self.outputs)

    @property
    def worst(self) -> OutputCheck:
        """The output that is off most: one out of tolerance, else the largest relative error."""
        return max(self.outputs, key=lambda output: (not output.ok, output.max_rel))

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "reference": self.reference,
            "mode": self.mode,
            "seed": self.seed,
            "ok": self.ok,
            "outputs": [_finite(asdict(output)) for output in self.outputs],
        }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """Infinity (tensors that cannot be compared) as null, which is what JSON has."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
