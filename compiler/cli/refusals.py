"""What passes refused to do in a compilation, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planish.custom import labelled
from planish.ir.graph import Graph
from planish.passes.pass_ import Step
from planish.passes.pipeline import Observer
from planish.passes.trace import Event

#: Places that are told of one reason.
_PLACES = 3


@dataclass(slots=True)
class _Group:
    """Places where a rule of a pass refused for one reason."""

    step: str
    origin: str
    rule: str
    reason: str
    where: list[str]

    def __str__(self) -> str:
        more = len(self.where) - _PLACES
        places = ", ".join(self.where[:_PLACES]) + (f" and {more} more" if more > 0 else "")
        rule = "" if self.rule == self.step else f", rule '{self.rule}'"
        whose = f" (from {self.origin})" if self.origin else ""
        return f"pass '{self.step}'{whose}{rule} refused: {self.reason}; at {places}"


class Refusals:
    """Collects them; `events` is what a `recording` around the compilation fills.

    `observe` is the compilation's observer, and hands everything on to `then`.
    """

    def __init__(self, steps: Sequence[Step], events: Sequence[Event], then: Observer | None):
        self._steps = iter(zip(labelled(steps), (step.origin for step in steps)))
        self._events, self._seen, self._then = events, 0, then
        self.graph: Graph | None = None  # after the last step
        self._groups: dict[tuple[str, str, str], _Group] = {}

    def observe(self, name: str, before: Graph, after: Graph, seconds: float) -> None:
        """Takes the events since the last call for those of the step that has just run."""
        label, origin = next(self._steps)
        self.graph = after
        for event in self._events[self._seen :]:
            if event.refused is not None:
                key = (label, event.rule, event.refused)
                group = self._groups.setdefault(key, _Group(label, origin, *key[1:], []))
                group.where.append(event.where)
        self._seen = len(self._events)
        if self._then is not None:
            self._then(name, before, after, seconds)

    def lines(self, everything: bool) -> Iterator[str]:
        """Those of custom passes, whose author wants to know, and how many planish's own have; with
        `everything` all of them."""
        own = 0
        for group in self._groups.values():
            if everything or group.origin:
                yield str(group)
            else:
                own += len(group.where)
        if own:
            yield f"planish's passes refused {own} place{'s' * (own != 1)}: --explain tells why"

    def to_json(self) -> list[dict[str, object]]:
        """All of them."""
        return [
            {
                "pass": group.step,
                "origin": group.origin,
                "rule": group.rule,
                "reason": group.reason,
                "where": group.where,
            }
            for group in self._groups.values()
        ]
