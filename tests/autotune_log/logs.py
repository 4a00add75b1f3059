"""Headers, trials and logs to test with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from planish.autotune.log import (
    CpuFingerprint,
    Failure,
    Fingerprint,
    Header,
    LogWriter,
    Timing,
    Trial,
    TuningLog,
)
from planish.autotune.spaces import SPACES, Space

SPACE: Space = SPACES["pointwise"]
TASK = "ab" * 32

HERE = CpuFingerprint(
    arch="x86_64",
    features=("avx", "avx2", "fma"),
    l1=32768,
    l2=1048576,
    l3=33554432,
    cores=8,
    vendor="GenuineIntel",
    family="6",
    model="143",
    stepping="8",
    microarchitecture="sapphirerapids",
    name="A Xeon",
)
SISTER = replace(HERE, stepping="6", name="Another Xeon")
STRANGER = replace(HERE, features=("avx",), l2=524288)


def timing(median: float) -> Timing:
    """A result around a median."""
    return Timing((0.9 * median, median, 1.2 * median), median, (0.95 * median, 1.1 * median))


def trial(median: float | None, failure: str = "timeout", **changes: Any) -> Trial:
    """A trial of TASK at `vector` 8, or another `point`; `median` None is a failure."""
    result = Failure(failure, f"a {failure}") if median is None else timing(median)
    point = changes.pop("point", {"flat": True, "vector": 8, "parallel": False})
    made = Trial.of(TASK, SPACE.name, point, 2, result, date="2026-01-31T12:00:00Z")
    return replace(made, **changes)


def write(path: Path, *trials: Trial, hardware: Fingerprint = HERE, **versions: Any) -> Path:
    """Appends the trials to a log of the hardware; `versions` go to the header."""
    with LogWriter(path, Header.of(hardware, **versions)) as writer:
        for each in trials:
            writer.append(each)
    return path


def read(*paths: Path) -> TuningLog:
    """The log of these files."""
    return TuningLog.read(paths)
