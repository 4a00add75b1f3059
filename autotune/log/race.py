"""Races: a whole model with its logged points against its defaults, as lines of a tuning log."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from planish.autotune.log.record import NO_LINE_OF_OURS, Header, Point, spell_point, text_of
from planish.ir.errors import TuningError


@dataclass(frozen=True, slots=True)
class Race:
    """A model timed in turn, tuned and untuned, with so many threads.

    `points` is the digest of the tuned one's kernels and points (`points_digest`); `tuned` and
    `untuned` are median latencies in seconds, `speed` is the median over the turns of untuned :
    tuned, below 1 where the points that win alone lose together. `date` is UTC, as a trial's.
    `left` are tasks (digests) whose kernels are slower in the model with their points: without
    those it is faster, which another race is of.
    """

    points: str
    threads: int
    tuned: float
    untuned: float
    speed: float
    date: str
    left: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        numbers = (self.tuned, self.untuned, self.speed)
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise TuningError(f"a time must be positive and finite, got {self}")

    def to_line(self, header: str) -> bytes:
        """One line of JSON that refers to the header of that id, its newline included."""
        told = {
            "kind": "race",
            "header": header,
            "points": self.points,
            "threads": self.threads,
            "tuned": self.tuned,
            "untuned": self.untuned,
            "speed": self.speed,
            "date": self.date,
            **({"left": self.left} if self.left else {}),
        }
        return json.dumps(told, allow_nan=False).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class RaceRecord:
    """A race with the conditions it was held under, and its line in the log, verbatim."""

    race: Race
    header: Header
    line: bytes


def points_digest(kernels: Iterable[tuple[str, Point | None]]) -> str:
    """A digest of a model's kernels, in order: of each its task, and its point if a log has one."""
    told = (f"{task} {spell_point(point or ())}\n" for task, point in kernels)
    return hashlib.sha256("".join(told).encode()).hexdigest()


def parse_race(line: bytes) -> tuple[str, Race] | None:
    """The race that a line of whole JSON holds, with its header's id; None if it holds none."""
    try:
        data = json.loads(line)
        if data["kind"] != "race" or type(data["threads"]) is not int:
            return None
        header, points, date = (text_of(data, key) for key in ("header", "points", "date"))
        tuned, untuned, speed = (float(data[key]) for key in ("tuned", "untuned", "speed"))
        left = tuple(map(str, data.get("left", ())))
        "".join(left).encode()
        return header, Race(points, data["threads"], tuned, untuned, speed, date, left)
    except NO_LINE_OF_OURS:
        return None
