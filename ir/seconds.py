"""Spans of time as people write them."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from numbers import Real

from planish.ir.errors import TuningError

#: How they are written, for messages.
TIMES = "90s, 10m, 1m30s or 1.5h"

_UNITS = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    "d": 86400.0,
}
_PART = re.compile(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*([a-z]*)\s*")


def read_seconds(given: str | float | timedelta) -> float:
    """`"1m30s"`, `"1.5m"`, `"90"`, `90` and `timedelta(minutes=1.5)` → 90.0.

    TuningError for what is no time, or none above 0.
    """
    seconds: float | None = None
    if isinstance(given, timedelta):
        seconds = given.total_seconds()
    elif isinstance(given, Real) and not isinstance(given, bool):
        seconds = float(given)
    elif isinstance(given, str):
        seconds = _parse_time(given.strip().lower())
    if seconds is None or not math.isfinite(seconds) or seconds <= 0:
        raise TuningError(f"{given!r} is no time; write {TIMES}")
    return seconds


def _parse_time(text: str) -> float | None:
    """The sum of the parts, each of a smaller unit than the one before; None if it cannot be."""
    total, place, last = 0.0, 0, math.inf
    while place < len(text):
        part = _PART.match(text, place)
        unit = None if part is None else _UNITS.get(part[2])
        # A number without a unit stands alone: whether "1m30" has 30 seconds is anybody's guess.
        if part is None or unit is None or unit >= last or (part[2] == "" and place > 0):
            return None
        if part[2] == "" and part.end() < len(text):
            return None
        total, place, last = total + float(part[1]) * unit, part.end(), unit
    return total if text else None
