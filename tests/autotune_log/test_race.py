"""Races: what was slower as a whole is not applied, whatever its kernels' own times."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from planish.autotune.log import Header, LogWriter, Race
from planish.autotune.log.files import read_file
from planish.autotune.log.race import parse_race, points_digest
from planish.autotune.log.sets import export, merge, prune
from planish.ir.errors import TuningError
from tests.autotune_log.logs import HERE, SISTER, STRANGER, read, trial, write

LOST = Race("ab" * 32, 2, 1.1e-3, 1e-3, 0.91, "2026-01-31T12:00:00Z")


def race_on(path: Path, race: Race = LOST, hardware: object = HERE) -> Path:
    """Appends a race to a log."""
    with LogWriter(path, Header.of(hardware)) as writer:  # type: ignore[arg-type]
        writer.append(race)
    return path


def test_race_is_read_as_it_was_written() -> None:
    assert parse_race(LOST.to_line("0123")) == ("0123", LOST)
    left = dataclasses.replace(LOST, left=("ef" * 32, "01" * 32))
    assert parse_race(left.to_line("0123")) == ("0123", left)


@pytest.mark.parametrize(
    "line",
    [
        LOST.to_line("0123").replace(b'"race"', b'"trial"'),
        LOST.to_line("0123").replace(b'"threads": 2', b'"threads": true'),
        LOST.to_line("0123").replace(b"0.91", b"-0.91"),
        LOST.to_line("0123").replace(b"0.91", b"NaN"),
        LOST.to_line("0123").replace(b'"points"', b'"dots"'),
        LOST.to_line("0123").replace(b"}", b', "left": 7}'),
        b"[1]",
        b"7",
    ],
)
def test_other_lines_are_no_races(line: bytes) -> None:
    assert parse_race(line) is None


def test_times_are_positive() -> None:
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(TuningError, match="a time must be positive and finite"):
            dataclasses.replace(LOST, speed=wrong)


def test_last_race_on_the_nearest_hardware_counts(tmp_path: Path) -> None:
    log = race_on(tmp_path / "log")
    assert read(log).race(LOST.points, HERE, 2) == LOST
    assert read(log).race(LOST.points, SISTER, 2) == LOST
    assert read(log).race(LOST.points, STRANGER, 2) is None
    assert read(log).race(LOST.points, HERE, 1) is None
    assert read(log).race("cd" * 32, HERE, 2) is None
    won = dataclasses.replace(LOST, speed=1.2, date="2026-02-01T12:00:00Z")
    race_on(log, won, SISTER)
    assert read(log).race(LOST.points, HERE, 2) == LOST
    assert read(log).race(LOST.points, SISTER, 2) == won
    race_on(log, won)
    assert read(log).race(LOST.points, HERE, 2) == won


def test_races_outlive_merging_pruning_and_export(tmp_path: Path) -> None:
    log = race_on(write(tmp_path / "log", trial(1e-3)), hardware=HERE)
    merge([log], tmp_path / "merged")
    prune(tmp_path / "merged", keep=1)
    export(read(tmp_path / "merged"), tmp_path / "exported")
    for name in ("merged", "exported"):
        file = read_file(tmp_path / name)
        assert [record.race for record in file.races] == [LOST]
        assert not file.foreign
        assert not file.orphans


def test_race_without_its_header_is_an_orphan(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOST.to_line("0123"))
    file = read_file(tmp_path / "log")
    assert not file.races
    assert len(file.orphans) == 1


def test_digest_knows_the_order_and_what_has_no_point() -> None:
    a, b = ("t1", (("x", 1),)), ("t2", None)
    digests = {points_digest(each) for each in ([a, b], [b, a], [a], [("t1", None), b])}
    assert len(digests) == 4
