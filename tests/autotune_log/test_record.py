"""The lines of a log."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.autotune.log import Failure, Header, Timing, Trial
from planish.autotune.log.files import read_file
from planish.autotune.log.record import (
    FAILURES,
    MESSAGE_LENGTH,
    parse_line,
    point_key,
    point_of,
    spell_point,
)
from planish.autotune.measure.results import Status
from planish.autotune.spaces import SPACES
from planish.autotune.spaces.space import same_choice
from planish.ir.errors import TuningError
from tests.autotune_log.logs import HERE, SISTER, TASK, timing, trial

SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=8))
POINTS = st.dictionaries(st.text(max_size=6), SCALARS | st.lists(SCALARS, max_size=3), max_size=4)
TIMES = st.floats(1e-9, 1e3).map(timing)
FAILED = st.builds(Failure, st.sampled_from(FAILURES), st.text(max_size=40))


@given(POINTS, st.integers(1, 512), TIMES | FAILED, st.text(max_size=20))
def test_a_trial_is_read_as_it_was_written(
    point: dict[str, object], threads: int, result: Timing | Failure, about: str
) -> None:
    made = Trial.of(TASK, "conv", point, threads, result, about=about)
    line = made.to_line("0123")
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert parse_line(line) == ("0123", made)


def test_a_header_is_read_as_it_was_written() -> None:
    header = Header.of(HERE)
    assert parse_line(header.to_line()) == header
    assert dict(header.spaces) == {name: space.version for name, space in SPACES.items()}
    assert header.version_of("conv") == SPACES["conv"].version
    assert header.version_of("no such space") is None


def test_the_id_of_a_header_is_of_its_contents() -> None:
    one = Header.of(HERE, planish="1", tvm="2", spaces={"conv": 3})
    assert one == Header.of(HERE, planish="1", tvm="2", spaces={"conv": 3})
    others = [
        Header.of(SISTER, planish="1", tvm="2", spaces={"conv": 3}),
        Header.of(HERE, planish="2", tvm="2", spaces={"conv": 3}),
        Header.of(HERE, planish="1", tvm="1", spaces={"conv": 3}),
        Header.of(HERE, planish="1", tvm="2", spaces={"conv": 4}),
    ]
    assert len({header.id for header in (one, *others)}) == 5


def test_lines_can_be_read_by_people() -> None:
    data = json.loads(trial(2e-3).to_line("0123"))
    assert data["kind"] == "trial"
    assert data["point"] == {"flat": True, "parallel": False, "vector": 8}
    assert (data["median"], data["threads"]) == (2e-3, 2)
    assert data["date"] == "2026-01-31T12:00:00Z"
    assert json.loads(trial(None).to_line("0123"))["error"] == "timeout"


def test_long_messages_are_cut() -> None:
    made = Trial.of(TASK, "conv", {}, 1, Failure("build_error", "x" * 100_000))
    assert len(made.to_line("0123")) < MESSAGE_LENGTH + 400


@pytest.mark.parametrize(
    ("seconds", "median", "ci", "message"),
    [
        ((1.0,), float("nan"), (1.0, 1.0), "positive and finite"),
        ((1.0,), 0.0, (0.0, 1.0), "positive and finite"),
        ((-1.0,), 1.0, (1.0, 1.0), "positive and finite"),
        ((1.0,), 1.0, (0.5, float("inf")), "positive and finite"),
        ((1.0,), 3.0, (1.0, 2.0), "in its confidence interval"),
    ],
)
def test_times_that_cannot_be(
    seconds: tuple[float, ...], median: float, ci: tuple[float, float], message: str
) -> None:
    with pytest.raises(TuningError, match=message):
        Timing(seconds, median, ci)


def test_unknown_failures() -> None:
    with pytest.raises(TuningError, match="unknown failure 'bored'; known are build_error, "):
        Failure("bored", "")


def test_every_result_of_measuring_can_be_logged() -> None:
    assert {*FAILURES} == {*Status} - {Status.OK}


def changed(line: bytes, **changes: object) -> bytes:
    """The JSON line with other values; ... removes a key."""
    data = {**json.loads(line), **changes}
    return json.dumps({key: value for key, value in data.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "note"}, {"kind": ...}, {"task": 7}, {"task": ...}, {"threads": "2"},
        {"threads": True}, {"point": [1]}, {"point": {"a": {"b": 1}}}, {"median": "fast"},
        {"median": -1.0}, {"median": ...}, {"ci": [1.0]}, {"seconds": 3}, {"error": "bored"},
        {"header": None}, {"date": 5},
    ],
)  # fmt: skip
def test_trials_of_others(changes: dict[str, object]) -> None:
    line = trial(1e-3).to_line("0123")
    assert parse_line(changed(line)) == ("0123", trial(1e-3))
    assert parse_line(changed(line, **changes)) is None


def test_headers_of_others() -> None:
    line = Header.of(HERE).to_line()
    for changes in ({"format": 2}, {"hardware": 3}, {"hardware": {}}, {"spaces": {"a": "1"}}):
        assert parse_line(changed(line, **changes)) is None
    assert parse_line(changed(line, colour="blue")) == Header.of(HERE)


@pytest.mark.parametrize("line", [b"3", b"[]", b"null", b'"text"', b"{}", b"[" * 100_000])
def test_json_of_others(line: bytes) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize("line", [b"", b'{"kind"', b"# note", b"\xff\xfe", b"\0" * 9, b"NaN"])
def test_what_is_no_json(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_line(line)


def test_points_are_sorted_and_hashable() -> None:
    assert point_of({"b": [1, [2]], "a": True}) == (("a", True), ("b", (1, (2,))))
    assert spell_point(point_of({"ow": 14, "oc": 32})) == "oc=32 ow=14"


def _altered(**changes: object) -> bytes:
    """The line of a trial with some of its members replaced by JSON, verbatim if text."""
    data = json.loads(trial(2e-3).to_line("0123"))
    marks = {name: f"@{name}@" for name in changes}
    text = json.dumps(data | marks)
    for name, value in changes.items():
        text = text.replace(f'"@{name}@"', value if isinstance(value, str) else json.dumps(value))
    return text.encode()


DIGITS = "9" * 400
HOSTILE = [
    _altered(median=DIGITS),
    _altered(seconds=f"[{DIGITS}]"),
    _altered(ci=f"[{DIGITS}, {DIGITS}]"),
    _altered(median="1e999"),
    _altered(median="NaN"),
    _altered(threads=DIGITS + ".0"),
    _altered(threads="true"),
    _altered(threads="2.0"),
    _altered(point={"oc": 1.0}),
    _altered(point={"oc": None}),
    _altered(point={"oc": {"a": 1}}),
    _altered(point={"oc": [[1.5]]}),
    _altered(point=f'{{"oc": {DIGITS}}}'),
    _altered(point='{"oc": "\\ud800"}'),
    _altered(point='{"\\ud800": 1}'),
    _altered(point=[1]),
    _altered(task='"\\ud800"'),
    _altered(about=3),
    _altered(about="[" * 100_000 + "]" * 100_000),
    _altered(date=None),
    b'{"kind": "header", "format": ' + DIGITS.encode() + b"}",
    b'{"kind": "race", "header": "0", "points": "p", "date": "d", "threads": 1, "untuned": 1, '
    b'"speed": 1, "tuned": ' + DIGITS.encode() + b"}",
    b'{"kind": "race", "header": "0", "points": "\\ud800", "date": "d", "threads": 1, '
    b'"untuned": 1, "speed": 1, "tuned": 1}',
    b'{"kind": "trial"}',
    b"[1]",
    b'"kind"',
    b"1",
    b"null",
    b"9" * 5000,
    b"{" + b"\x00" * 50 + b"}",
    b"\xff\xfe{}",
    b'{"kind": "tri\xffal"}',
    b"{" * 100_000,
    b"[" * 100_000,
    b"\x1b[31m red",
    trial(2e-3).to_line("0123")[:-20],
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_line_is_skipped_and_no_other_is_lost(number: int, tmp_path: Path) -> None:
    header = Header.of(HERE)
    good = [trial(2e-3), trial(3e-3)]
    lines = [header.to_line(), good[0].to_line(header.id)]
    lines += [HOSTILE[number].replace(b'"0123"', f'"{header.id}"'.encode()) + b"\n"]
    lines += [good[1].to_line(header.id)]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(lines))
    found = read_file(path)
    assert [record.trial for record in found.records] == good
    assert found.races == ()
    assert len(found.torn) + len(found.foreign) == 1


def test_points_are_told_apart_by_type() -> None:
    keys = {point_key(point_of({"oc": value})) for value in (1, True, "1", [1], [True])}
    assert len(keys) == 5
    for one, other in itertools.permutations([1, True, 1.0, "1", (1,), (True,), (1.0,)], 2):
        assert not same_choice(one, other)
    assert same_choice(np.int64(8), 8)
    assert same_choice((1, "a"), (1, "a"))
