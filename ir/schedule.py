"""Schedules as data: directives over named loop axes, printable, hashable, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from planish.ir.errors import ScheduleError

#: Directive name → names of its arguments. `stage` is a stage of the kernel ("acc", "out", …),
#: `axis` a loop of that stage by its current name, `axes` several. Replayed in `planish.targets`.
DIRECTIVES: dict[str, tuple[str, ...]] = {
    "split": ("stage", "axis", "factor", "outer", "inner"),  # axis → outer, inner(factor)
    "fuse": ("stage", "axes", "fused"),  # adjacent axes → one
    "reorder": ("stage", "axes"),  # the axes named, in this order
    "vectorize": ("stage", "axis"),
    "parallel": ("stage", "axis"),
    "unroll": ("stage", "axis"),
    "inline": ("stage",),  # into its readers
    "compute_at": ("stage", "consumer", "axis"),  # producer under a loop of its reader
    "reverse_compute_at": ("stage", "producer", "axis"),  # reader under a loop of its producer
    "set_scope": ("stage", "scope"),  # where the stage's buffer lives: "global" | "local"
    "decompose_reduction": ("stage", "axis"),  # the initial value is stored before this loop
}


@dataclass(frozen=True, slots=True)
class Directive:
    """One scheduling step; `args` follow DIRECTIVES[name]."""

    name: str
    args: tuple[Any, ...]

    def __post_init__(self) -> None:
        expected = DIRECTIVES.get(self.name)
        if expected is None:
            raise ScheduleError(
                f"unknown directive '{self.name}'; known are {', '.join(DIRECTIVES)}"
            )
        if len(self.args) != len(expected):
            raise ScheduleError(
                f"{self.name} takes ({', '.join(expected)}), got {len(self.args)} arguments"
            )

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(_show, self.args))})"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a kernel is computed: the space it was drawn from, the choices, and the directives.

    `space` names the family of schedules (`planish.autotune.spaces`), `choices` the point in it
    (what a tuning log records), `directives` what `planish.targets` replays. `emitter` names a
    writer of TensorIR in `planish.targets` where directives are not enough.
    """

    space: str
    choices: tuple[tuple[str, Any], ...] = ()
    directives: tuple[Directive, ...] = ()
    emitter: str | None = None

    @staticmethod
    def of(
        space: str,
        choices: Iterable[tuple[str, Any]] = (),
        directives: Iterable[tuple[Any, ...]] = (),
        emitter: str | None = None,
    ) -> Schedule:
        """From plain tuples: `Schedule.of("conv", [("ow", 14)], [("vectorize", "out", "oc")])`."""
        steps = tuple(Directive(step[0], tuple(map(_freeze, step[1:]))) for step in directives)
        points = tuple((key, _freeze(value)) for key, value in choices)
        return Schedule(space, points, steps, emitter)

    def choice(self, name: str) -> Any:
        """The value chosen for `name`; ScheduleError if there was no such choice."""
        for key, value in self.choices:
            if key == name:
                return value
        raise ScheduleError(f"schedule of space '{self.space}' has no choice '{name}'")

    def to_json(self) -> str:
        """Canonical JSON, the same text for equal schedules."""
        steps = [[step.name, *step.args] for step in self.directives]
        record = {"space": self.space, "choices": self.choices, "directives": steps}
        if self.emitter is not None:
            record["emitter"] = self.emitter
        return json.dumps(record, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Schedule:
        """The inverse of `to_json`; ScheduleError if the text is not a schedule."""
        try:
            record = json.loads(text)
            pairs = [(key, value) for key, value in record["choices"]]
            steps = [tuple(step) for step in record["directives"]]
            return Schedule.of(record["space"], pairs, steps, record.get("emitter"))
        except (ValueError, KeyError, TypeError) as error:
            raise ScheduleError(f"not a schedule: {error}") from None


def check_form(schedule: Any) -> None:
    """ScheduleError for what only looks like a Schedule: Python checks no types."""
    if not isinstance(schedule, Schedule):
        raise ScheduleError(f"expected a Schedule, got {type(schedule).__name__}")
    for name, kind in (("space", str), ("choices", tuple), ("directives", tuple)):
        if not isinstance(getattr(schedule, name), kind):
            raise ScheduleError(
                f"'{name}' of the schedule is {getattr(schedule, name)!r}, "
                f"expected a {kind.__name__}"
            )
    if not isinstance(schedule.emitter, str | None):
        raise ScheduleError(f"'emitter' of the schedule is {schedule.emitter!r}, expected a name")
    for step in schedule.directives:
        if not isinstance(step, Directive):
            raise ScheduleError(f"{step!r} among the directives is no Directive")
    for choice in schedule.choices:
        if not isinstance(choice, tuple) or len(choice) != 2 or not isinstance(choice[0], str):
            raise ScheduleError(f"{choice!r} among the choices is no (name, value)")
    for part in (*schedule.directives, *schedule.choices):
        try:
            hash(part)
            json.dumps(part.args if isinstance(part, Directive) else part)
        except (TypeError, ValueError) as error:
            raise ScheduleError(f"{part} holds what is no text, number or tuple: {error}") from None


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if isinstance(value, list | tuple) else value


def _show(value: Any) -> str:
    return f"[{', '.join(map(_show, value))}]" if isinstance(value, tuple) else str(value)
