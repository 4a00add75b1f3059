"""Where a tuning stands: plain data for those who watch it and for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """A moment of a tuning: trials and seconds so far, and the time in seconds reached by then."""

    trials: int
    elapsed: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One task.

    `default` and `best` are seconds of one call (None before they are measured), `point` the best's
    choices. `roofline` is what the machine's peaks leave (0 if not known), `bound` by what:
    "compute" or "memory". `trials` were made now, `known` came from the log, `size` points are in
    the space. `note` says why it is not tuned. `curve` has a step for each better point.
    """

    task: str
    about: str
    kernels: tuple[str, ...]
    space: str
    size: int
    default: float | None
    best: float | None
    point: Mapping[str, Any]
    roofline: float
    bound: str
    trials: int
    known: int
    failures: int
    note: str
    curve: tuple[Step, ...]

    @property
    def measured(self) -> bool:
        """True if a trial of it is known, of now or of the log."""
        return self.trials + self.known > 0

    @property
    def count(self) -> int:
        """How often the model computes it."""
        return len(self.kernels)

    @property
    def time(self) -> float:
        """Seconds of the model's time; 0 before anything is measured."""
        return self.count * (self.best or 0.0)

    @property
    def achieved(self) -> float | None:
        """How near the best comes to the roofline; 1 is there; None if either is not known."""
        return self.roofline / self.best if self.roofline and self.best else None


@dataclass(frozen=True, slots=True)
class Tuning:
    """A whole tuning, while it runs or at its end.

    `curve` is of the sum over kernels of the best times; `left` seconds of the budget, or None.
    `disturbed` trials were made while other processes used CPUs that they needed.
    """

    standings: tuple[Standing, ...]
    trials: int
    elapsed: float
    left: float | None
    curve: tuple[Step, ...]
    current: str = ""
    interrupted: bool = False
    disturbed: int = 0

    @property
    def unreached(self) -> int:
        """Tasks that the budget did not reach: nothing of them was ever measured."""
        return sum(not s.measured and not s.note for s in self.standings)

    @property
    def default_only(self) -> int:
        """Tasks of which nothing but the default schedule was measured, though there is more."""
        alone = (s for s in self.standings if not s.note and s.size > 1)
        return sum(s.trials + s.known == 1 for s in alone)

    @property
    def default(self) -> float:
        """Seconds of all measured kernels with their default schedules."""
        return sum(s.count * s.default for s in self.standings if s.default is not None)

    @property
    def best(self) -> float:
        """Seconds of all measured kernels at their best."""
        return sum(s.time for s in self.standings if s.default is not None)

    def share(self, standing: Standing) -> float:
        """A task's part of the model's time."""
        whole = sum(s.time for s in self.standings)
        return standing.time / whole if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "trials": self.trials,
            "seconds": self.elapsed,
            "interrupted": self.interrupted,
            "unreached": self.unreached,
            "default_only": self.default_only,
            "disturbed": self.disturbed,
            "default": self.default,
            "best": self.best,
            "curve": [asdict(step) for step in self.curve],
            "tasks": [
                {**asdict(s), "share": self.share(s), "achieved": s.achieved}
                for s in self.standings
            ],
        }
