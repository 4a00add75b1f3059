"""The lines of a tuning log: a header for each set of conditions, a trial for each measurement."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from operator import itemgetter
from typing import Any

from planish.autotune.log.fingerprint import (
    Fingerprint,
    fingerprint_from_json,
    fingerprint_to_json,
)
from planish.autotune.spaces import SPACES
from planish.ir.errors import TuningError

#: Counts up when lines of before can no longer be read; headers of others are foreign lines.
FORMAT = 1

#: What may become of a trial that gives no time to go by, as `planish.autotune.measure` tells.
FAILURES = ("build_error", "refused", "wrong", "timeout", "crash", "out_of_memory", "noisy")

#: A point that failed in these ways on hardware of a class is not applied on it, whatever its time.
VETOES = frozenset(("wrong", "crash"))

#: Characters of a failure's message that are kept.
MESSAGE_LENGTH = 1000

#: What reading a line of JSON raises where it holds something else than it should: numbers of 400
#: digits do not fit a float, for instance.
NO_LINE_OF_OURS = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
    TuningError,
)

Point = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each repetition, their median, and the confidence interval of it (low, high)."""

    seconds: tuple[float, ...]
    median: float
    ci: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.ci
        numbers = (*self.seconds, self.median, low, high)
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise TuningError(f"a time must be positive and finite, got {self}")
        if not low <= self.median <= high:
            raise TuningError(f"the median must lie in its confidence interval, got {self}")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial has no time: `kind` is one of FAILURES."""

    kind: str
    message: str

    def __post_init__(self) -> None:
        if self.kind not in FAILURES:
            raise TuningError(f"unknown failure '{self.kind}'; known are {', '.join(FAILURES)}")


@dataclass(frozen=True, slots=True)
class Header:
    """The conditions of trials; `id` is what they refer to it by.

    `spaces` gives the version of each space of schedules (Space.version).
    """

    id: str
    hardware: Fingerprint
    planish: str
    tvm: str
    spaces: tuple[tuple[str, int], ...]

    @staticmethod
    def of(
        hardware: Fingerprint,
        *,
        planish: str | None = None,
        tvm: str | None = None,
        spaces: Mapping[str, int] | None = None,
    ) -> Header:
        """By default of what is installed; the id is a digest of all the rest."""
        versions = spaces or {name: space.version for name, space in SPACES.items()}
        header = Header(
            "",
            hardware,
            planish or metadata.version("planish"),
            tvm or metadata.version("apache-tvm"),
            tuple(sorted(versions.items())),
        )
        told = json.dumps(header._content(), sort_keys=True)
        return replace(header, id=hashlib.sha256(told.encode()).hexdigest()[:12])

    def version_of(self, space: str) -> int | None:
        """The version that a space had; None if there was no such space."""
        return dict(self.spaces).get(space)

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "hardware": fingerprint_to_json(self.hardware),
            "planish": self.planish,
            "tvm": self.tvm,
            "spaces": dict(self.spaces),
        }

    def to_line(self) -> bytes:
        """One line of JSON, its newline included."""
        return _line({"kind": "header", "id": self.id, **self._content()})


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement of a task (`task_digest`) at a point of a space, with so many threads.

    `about` tells people what the task is (`describe`); `date` is UTC, "2026-01-31T12:00:00Z".
    """

    task: str
    space: str
    point: Point
    threads: int
    date: str
    result: Timing | Failure
    about: str = ""

    @staticmethod
    def of(
        task: str,
        space: str,
        choices: Mapping[str, Any],
        threads: int,
        result: Timing | Failure,
        *,
        about: str = "",
        date: str | None = None,
    ) -> Trial:
        """A trial at the point of `choices`; by default of this second."""
        when = date or present()
        return Trial(task, space, point_of(choices), threads, when, result, about)

    @property
    def median(self) -> float | None:
        """The median time in seconds; None for a trial that failed."""
        return self.result.median if isinstance(self.result, Timing) else None

    def to_line(self, header: str) -> bytes:
        """One line of JSON that refers to the header of that id, its newline included."""
        if isinstance(self.result, Timing):
            timing = self.result
            result = {"median": timing.median, "ci": timing.ci, "seconds": timing.seconds}
        else:
            message = self.result.message[:MESSAGE_LENGTH]
            result = {"error": self.result.kind, "message": message}
        return _line(
            {
                "kind": "trial",
                "header": header,
                "task": self.task,
                "about": self.about,
                "space": self.space,
                "point": dict(self.point),
                "threads": self.threads,
                **result,
                "date": self.date,
            }
        )


@dataclass(frozen=True, slots=True)
class KernelText:
    """The kernel of a task in text form: with it, a cost model can learn from the task's trials."""

    task: str
    text: str

    def to_line(self) -> bytes:
        """One line of JSON, its newline included."""
        return _line({"kind": "kernel", "task": self.task, "text": self.text})


@dataclass(frozen=True, slots=True)
class Record:
    """A trial with the conditions it was made under, and its line in the log, verbatim."""

    trial: Trial
    header: Header
    line: bytes

    @property
    def space_version(self) -> int | None:
        """The version of the trial's space; None if the header does not know the space."""
        return self.header.version_of(self.trial.space)


def point_of(choices: Mapping[str, Any]) -> Point:
    """The choices as a point: sorted by name, lists as tuples."""
    by_name = sorted(choices.items(), key=itemgetter(0))
    return tuple((name, _frozen(value)) for name, value in by_name)


def point_key(point: Point) -> str:
    """What two points share if they are the same by type too: in Python, 1 == True == 1.0."""
    return repr(point)


def spell_point(point: Iterable[tuple[str, Any]]) -> str:
    """`oc=32 ow=14`."""
    return " ".join(f"{name}={value}" for name, value in point)


def present() -> str:
    """The date of this second, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_line(line: bytes) -> Header | KernelText | tuple[str, Trial] | None:
    """What a line holds: a header, a kernel, a trial with its header's id, or None for another's.

    ValueError if it is not complete JSON.
    """
    try:
        data = json.loads(line, parse_constant=_no_constant)
    except RecursionError:  # nested too deep
        return None
    try:
        if data["kind"] == "header":
            return _header(data)
        if data["kind"] == "kernel":
            return KernelText(text_of(data, "task"), text_of(data, "text"))
        return (text_of(data, "header"), _trial(data)) if data["kind"] == "trial" else None
    except NO_LINE_OF_OURS:
        return None


def _header(data: Mapping[str, Any]) -> Header | None:
    if data["format"] != FORMAT:
        return None
    return Header(
        text_of(data, "id"),
        fingerprint_from_json(data["hardware"]),
        text_of(data, "planish"),
        text_of(data, "tvm"),
        tuple(sorted((name, _integer(data["spaces"], name)) for name in data["spaces"])),
    )


def _trial(data: Mapping[str, Any]) -> Trial:
    result: Timing | Failure
    if "error" in data:
        result = Failure(text_of(data, "error"), text_of(data, "message"))
    else:
        low, high = map(float, data["ci"])
        result = Timing(tuple(map(float, data["seconds"])), float(data["median"]), (low, high))
    about = text_of(data, "about") if "about" in data else ""
    task, space, date = (text_of(data, key) for key in ("task", "space", "date"))
    for name, value in data["point"].items():
        name.encode()
        _check_choice(value)
    point = point_of(data["point"])
    return Trial(task, space, point, _integer(data, "threads"), date, result, about)


def text_of(data: Mapping[str, Any], key: str) -> str:
    if not isinstance(data[key], str):
        raise ValueError(f"{key} is no text: {data[key]!r}")
    data[key].encode()  # UnicodeEncodeError, a ValueError, for halves of a pair of UTF-16
    return str(data[key])


def _check_choice(value: Any) -> None:
    """ValueError for what no space chooses from: integers, names, truth values, lists of them."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for entry in value:
            _check_choice(entry)
    elif type(value) not in (int, bool) or not -(2**63) <= value < 2**63:
        raise ValueError(f"no space has the choice {value!r}")


def _integer(data: Mapping[str, Any], key: str) -> int:
    if type(data[key]) is not int:
        raise ValueError(f"{key} is no integer: {data[key]!r}")
    return int(data[key])


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode() + b"\n"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
