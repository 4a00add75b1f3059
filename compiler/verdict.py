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
class RunCheck:
    """What one run of the artefact gave.

    `name` says on which inputs, `reference` what it was compared with, and `bound` where the bound
    of what it may be off came from.
    """

    name: str
    reference: str
    bound: str
    outputs: tuple[OutputCheck, ...]

    @property
    def ok(self) -> bool:
        """True if every output is within tolerance."""
        return all(output.ok for output in self.outputs)

    @property
    def worst(self) -> OutputCheck:
        """The output that is off most: one out of tolerance, else the largest relative error."""
        return max(self.outputs, key=lambda output: (not output.ok, output.max_rel))


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found, run by run; the first is on random inputs of that `seed`."""

    seed: int
    runs: tuple[RunCheck, ...]

    @property
    def ok(self) -> bool:
        """True if every run is right."""
        return all(run.ok for run in self.runs)

    @property
    def reference(self) -> str:
        """What the first run was compared with."""
        return self.runs[0].reference

    @property
    def worst_run(self) -> RunCheck:
        """The first run that is wrong, else that on random inputs."""
        return next((run for run in self.runs if not run.ok), self.runs[0])

    @property
    def worst(self) -> OutputCheck:
        """The worst output of the worst run."""
        return self.worst_run.worst

    def failure(self) -> str:
        """Which output is wrong, how, on which inputs, and by which bound."""
        run, output = self.worst_run, self.worst
        return (
            f"output '{output.name}' of the artefact differs from {run.reference} on {run.name}: "
            f"{output.reason}; the largest error is {output.max_abs:.3g}, {output.max_rel:.3g} of "
            f"the largest value, and the bound is from {run.bound}"
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest; `outputs` are those of the worst run."""
        return {
            "reference": self.worst_run.reference,
            "seed": self.seed,
            "ok": self.ok,
            "outputs": [_finite(asdict(output)) for output in self.worst_run.outputs],
            "runs": [
                {"inputs": r.name, "reference": r.reference, "bound": r.bound, "ok": r.ok}
                for r in self.runs
            ],
        }


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """Infinity (tensors that cannot be compared) as null, which is what JSON has."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
