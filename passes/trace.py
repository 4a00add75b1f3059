"""What rules and passes did and refused to do, for those who want to see it.

Passes have the signature `(Graph, Target) -> Graph`; whoever wants to know more opens `recording()`
around them. The recorder is held by a context variable, so that no pass has to hand it on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_log = logging.getLogger("planish.passes")


@dataclass(frozen=True, slots=True)
class Event:
    """A rule (or another part of a pass) fired at a node, or refused to."""

    rule: str
    where: str
    refused: str | None = None


_EVENTS: ContextVar[list[Event] | None] = ContextVar("events of passes", default=None)


@contextmanager
def recording() -> Iterator[list[Event]]:
    """The list that gets every event reported within; not those of a `recording` inside."""
    events: list[Event] = []
    token = _EVENTS.set(events)
    try:
        yield events
    finally:
        _EVENTS.reset(token)


def report(events: Sequence[Event]) -> None:
    """Tells the log of `planish.passes` and the surrounding `recording` of events."""
    if _log.isEnabledFor(logging.DEBUG):
        for event in events:
            refused = f": {event.refused}" if event.refused else ""
            _log.debug("%s at %s%s", event.rule, event.where, refused)
    recorder = _EVENTS.get()
    if recorder is not None:
        recorder += events
