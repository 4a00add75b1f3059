"""Graded lookup: what is applied, what is a seed, and the reasons that are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from planish.autotune.log import Fingerprint, TuningLog
from planish.autotune.log.record import Point, spell_point
from planish.autotune.spaces import SPACES
from tests.autotune_log.logs import HERE, SISTER, SPACE, STRANGER, TASK, read, trial, write

FAST, SLOW = {"vector": 16}, {"vector": 4}


def used(log: TuningLog, hardware: Fingerprint = HERE, threads: int = 2) -> tuple[str, str] | None:
    """(point, grade) of the best."""
    found = log.best(TASK, SPACE, hardware, threads)
    return None if found is None else (spell_point(found.record.trial.point), found.grade)


def reasons(log: TuningLog, hardware: Fingerprint = HERE, threads: int = 2) -> list[str]:
    """What is told of each record; the one that is used is the one that `best` gives."""
    verdicts = log.explain(TASK, SPACE, hardware, threads)
    best = log.best(TASK, SPACE, hardware, threads)
    assert [v.record for v in verdicts if v.used] == ([] if best is None else [best.record])
    return [verdict.reason for verdict in verdicts]


def test_the_fastest_of_this_hardware_is_used(tmp_path: Path) -> None:
    log = read(write(tmp_path / "log", trial(2e-3, point=SLOW), trial(1e-3, point=FAST)))
    assert used(log) == ("vector=16", "exact")
    assert reasons(log) == [
        "not used: slower than vector=16",
        "used: the fastest point measured on this very hardware",
    ]


def test_a_task_that_was_never_measured(tmp_path: Path) -> None:
    log = read(write(tmp_path / "log", trial(2e-3)))
    assert log.best("cd" * 32, SPACE, HERE, 2) is None
    assert log.explain("cd" * 32, SPACE, HERE, 2) == ()
    assert log.seeds("cd" * 32, SPACE, HERE, 2) == ()
    assert log.tasks == (TASK,)


def test_the_same_class_is_used_and_marked(tmp_path: Path) -> None:
    log = read(write(tmp_path / "log", trial(2e-3, point=SLOW), hardware=SISTER))
    assert used(log) == ("vector=4", "class")
    assert reasons(log) == [
        "used: the fastest point measured on hardware of this class (stepping is 6, here 8)"
    ]


def test_this_hardware_goes_before_a_faster_one_of_its_class(tmp_path: Path) -> None:
    write(tmp_path / "log", trial(1e-3, point=FAST), hardware=SISTER)
    log = read(write(tmp_path / "log", trial(2e-3, point=SLOW)))
    assert used(log) == ("vector=4", "exact")
    assert reasons(log)[0] == "not used: of this class, and there is a record of this very hardware"
    assert used(log, SISTER) == ("vector=16", "exact")


@pytest.mark.parametrize(
    ("old", "new", "apart"),
    [
        ('"avx2", ', "", "no avx2 there"),
        ('"fma"', '"fma", "sse9"', "no sse9 here"),
        ('"l1": 32768', '"l1": 49152', "l1 is 49152, here 32768"),
        ('"l2": 1048576', '"l2": 2097152', "l2 is 2097152, here 1048576"),
        ('"l3": 33554432', '"l3": 0', "l3 is unknown, here 33554432"),
        ('"arch": "x86_64"', '"arch": "aarch64"', "arch is aarch64, here x86_64"),
    ],
)
def test_an_edited_fingerprint_is_a_seed_and_never_applied(
    old: str, new: str, apart: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    assert used(read(path)) is not None
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    log = read(path)
    assert used(log) is None
    assert reasons(log) == [f"a seed only: other hardware ({apart})"]
    assert [seed.grade for seed in log.seeds(TASK, SPACE, HERE, 2)] == ["seed"]


def test_an_edited_vendor_is_no_longer_this_hardware(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    path.write_text(path.read_text().replace("GenuineIntel", "AuthenticAMD"))
    assert used(read(path)) == ("flat=True parallel=False vector=8", "class")


def test_other_terms_are_seeds(tmp_path: Path) -> None:
    write(tmp_path / "log", trial(1e-3, threads=4), trial(1e-3, space="conv", point={"ow": 1}))
    log = read(write(tmp_path / "log", trial(1e-3), spaces={SPACE.name: SPACE.version + 1}))
    assert used(log) is None
    assert reasons(log) == [
        "a seed only: measured with 4 threads, and 2 are asked for",
        "a seed only: of space 'conv', and the kernel's is 'pointwise'",
        f"a seed only: of version {SPACE.version + 1} of space 'pointwise', which is at version "
        f"{SPACE.version}",
    ]
    assert used(log, threads=4) == ("flat=True parallel=False vector=8", "exact")


def test_failures_are_not_used(tmp_path: Path) -> None:
    log = read(write(tmp_path / "log", trial(None, "timeout"), trial(None, "build_error")))
    assert used(log) is None
    assert reasons(log) == [
        "not used: timeout (a timeout)",
        "not used: build_error (a build_error)",
    ]
    assert log.seeds(TASK, SPACE, HERE, 2) == ()


@pytest.mark.parametrize("failure", ["wrong", "crash"])
def test_a_point_that_was_once_wrong_is_never_used(failure: str, tmp_path: Path) -> None:
    trials = [trial(1e-3, point=FAST), trial(2e-3, point=SLOW)]
    write(tmp_path / "log", *trials, trial(None, failure, point=FAST, threads=7), hardware=SISTER)
    log = read(tmp_path / "log")
    for hardware, grade in ((SISTER, "exact"), (HERE, "class")):
        assert used(log, hardware) == ("vector=4", grade)
        assert reasons(log, hardware)[0] == f"not used: the same point was {failure} (a {failure})"
        assert [spell_point(s.record.trial.point) for s in log.seeds(TASK, SPACE, hardware, 2)] == [
            "vector=4"
        ]
    assert len(log.seeds(TASK, SPACE, STRANGER, 2)) == 2, "elsewhere it may work"


def test_a_timeout_does_not_veto(tmp_path: Path) -> None:
    trials = (trial(1e-3, point=FAST), trial(None, "timeout", point=FAST))
    assert used(read(write(tmp_path / "log", *trials))) == ("vector=16", "exact")


def test_a_point_does_not_win_by_one_lucky_measurement(tmp_path: Path) -> None:
    lucky = [trial(median, point=FAST) for median in (1e-3, 5e-3, 6e-3)]
    log = read(write(tmp_path / "log", *lucky, trial(2e-3, point=SLOW)))
    assert used(log) == ("vector=4", "exact")
    assert reasons(log) == [
        "not used: the point's other measurements were slower than the best's",
        "not used: slower than vector=4",
        "not used: slower than vector=4",
        "used: the fastest point measured on this very hardware",
    ]
    again = read(write(tmp_path / "log", trial(1.1e-3, point=FAST), trial(1.2e-3, point=FAST)))
    found = again.best(TASK, SPACE, HERE, 2)
    assert found is not None
    assert found.record.trial.median == 1.2e-3, "the median of its medians"
    assert reasons(again)[0] == "not used: another measurement of the point that is used"


def test_the_order_of_files_and_lines_does_not_matter(tmp_path: Path) -> None:
    one = write(tmp_path / "one", trial(1e-3, point=FAST), trial(2e-3, point=SLOW))
    two = write(tmp_path / "two", trial(1e-3, point=SLOW), trial(1e-3, point={"vector": 1}))
    assert used(read(one, two)) == used(read(two, one))


def test_seeds_are_ordered_and_distinct(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, trial(1e-6, point={"v": 1}), trial(2e-6, point={"v": 2}), hardware=STRANGER)
    write(path, trial(1e-3, point={"v": 2}), trial(9e-4, point={"v": 3}), hardware=SISTER)
    write(path, trial(9e-1, point={"v": 4}), trial(1e-1, point={"v": 3}))
    write(path, trial(1e-9, point={"v": 5}, space="conv"))
    log = read(path)

    def seeds(most: int) -> list[tuple[Point, str]]:
        return [
            (seed.record.trial.point, seed.grade) for seed in log.seeds(TASK, SPACE, HERE, 2, most)
        ]

    assert seeds(9) == [
        ((("v", 3),), "exact"),
        ((("v", 4),), "exact"),
        ((("v", 2),), "class"),
        ((("v", 1),), "seed"),
    ]
    assert seeds(2) == seeds(9)[:2]


def test_every_space_has_a_version() -> None:
    assert all(space.version >= 1 for space in SPACES.values())
    assert replace(SPACE, version=3).version == 3
