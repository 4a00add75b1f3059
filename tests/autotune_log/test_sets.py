"""Merging, pruning, exporting and comparing logs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planish.autotune.log import Fingerprint, Header, Record, Trial, TuningLog
from planish.autotune.log.files import read_file
from planish.autotune.log.sets import Merged, Pruned, differences, export, merge, prune
from planish.ir.errors import TuningError
from tests.autotune_log.logs import HERE, SISTER, SPACE, STRANGER, TASK, read, trial, write

HARDWARE = (HERE, SISTER, STRANGER)
FOREIGN = st.sampled_from([b"# note", b'{"kind": "picture"}', b"\xff\0", b'{"torn', b"[]", b'"'])


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    """One of few tasks, points and thread counts, so that they meet."""
    failure = draw(st.sampled_from([None, None, None, "wrong", "crash", "timeout"]))
    return trial(
        None if failure else draw(st.integers(1, 9)) * 1e-3,
        failure or "",
        task=draw(st.sampled_from([TASK, "cd" * 32])),
        point={"vector": draw(st.integers(1, 4))},
        threads=draw(st.integers(1, 2)),
    )


@st.composite
def log_lines(draw: st.DrawFn) -> list[bytes]:
    """Lines of a log, in any order, some of others, some twice."""
    lines = draw(st.lists(FOREIGN, max_size=3))
    for hardware in draw(st.sets(st.sampled_from(HARDWARE), max_size=3)):
        header = Header.of(hardware)
        made = draw(st.lists(trials(), max_size=6))
        lines += [
            line.rstrip() for line in (header.to_line(), *(t.to_line(header.id) for t in made))
        ]
    return draw(st.permutations(lines))


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """The content of a log, with or without its last newline."""
    end = draw(st.sampled_from([b"", b"\n"]))
    return b"\n".join(draw(log_lines())) + end


def lines_of(path: Path) -> frozenset[bytes]:
    """The lines of a file, as a set."""
    return frozenset(line for line in path.read_bytes().split(b"\n") if line)


def files(folder: str, *contents: bytes) -> list[Path]:
    """A file of each content."""
    paths = [Path(folder, str(number)) for number in range(len(contents))]
    for path, content in zip(paths, contents):
        path.write_bytes(content)
    return paths


@settings(deadline=None, max_examples=60)
@given(logs(), logs(), logs())
def test_a_merge_is_a_union(a: bytes, b: bytes, c: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sources = files(folder, a, b, c)
        union = frozenset().union(*map(lines_of, sources))
        out, back, steps = (Path(folder, name) for name in ("out", "back", "steps"))
        merged = merge(sources, out)
        assert lines_of(out) == union
        assert merged.added == len(union)
        once = out.read_bytes()
        assert merge(sources, out).added == 0
        assert merge([out], out).added == 0
        assert out.read_bytes() == once, "idempotent, to the byte"
        merge(sources[::-1], back)
        merge(sources[1:], steps)
        merge([sources[0]], steps)
        assert lines_of(back) == lines_of(steps) == union
        merge(sources[1:], sources[0])
        assert lines_of(sources[0]) == union
        assert sources[0].read_bytes().startswith(a.rstrip(b"\n")), "only ever appended to"


def answers(log: TuningLog) -> list[tuple[object, ...] | None]:
    """What is found on all hardware, for all tasks and threads."""
    return [
        found and (found.grade, found.record.trial.point, found.record.trial.median)
        for task in (TASK, "cd" * 32)
        for hardware in HARDWARE
        for threads in (1, 2)
        for found in [log.best(task, SPACE, hardware, threads)]
    ]


@settings(deadline=None, max_examples=60)
@given(logs(), st.integers(1, 3))
def test_pruning_and_exporting_change_no_answer(content: bytes, keep: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = files(folder, content)
        before, file = answers(read(path)), read_file(path)
        told = prune(path, keep=keep, dry_run=True)
        assert path.read_bytes() == content
        export(TuningLog([file]), Path(folder, "best"))
        assert answers(read(Path(folder, "best"))) == before
        assert prune(path, keep=keep) == told
        assert answers(read(path)) == before
        after = read_file(path)
        assert len(after.records) == told.kept == len(file.records) - told.dropped
        assert (after.torn, after.foreign, after.orphans) == (file.torn, file.foreign, file.orphans)
        again = prune(path, keep=keep)
        assert again == Pruned(told.kept, 0, 0, 0)


def test_merge_counts_and_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    one = write(tmp_path / "one", trial(1e-3))
    two = write(tmp_path / "two", trial(1e-3), trial(2e-3))
    two.write_bytes(two.read_bytes() + b'# note\n{"kind": "trial", "to')
    assert merge([one, two], tmp_path / "out") == Merged(added=5, present=0)
    assert merge([two], one) == Merged(added=3, present=2)
    for path in (one, tmp_path / "out"):
        file = read_file(path)
        assert (file.foreign, file.torn) == ((b"# note",), (b'{"kind": "trial", "to',))
        assert len(file.records) == 2


def test_merge_refuses_headers_that_disagree(tmp_path: Path) -> None:
    one = write(tmp_path / "one", trial(1e-3))
    two = tmp_path / "two"
    two.write_text(one.read_text().replace('"stepping": "8"', '"stepping": "9"'))
    for sources, output in (([one, two], tmp_path / "out"), ([two], one)):
        before = output.read_bytes() if output.exists() else b""
        with pytest.raises(TuningError, match=r"header \w+ is not the same in .*one.* and .*two"):
            merge(sources, output)
        assert output.read_bytes() == before


def test_merge_of_a_missing_file_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="none' cannot be read"):
        merge([write(tmp_path / "one", trial(1e-3)), tmp_path / "none"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prune_counts_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "log"
    points = [trial(n * 1e-3, point={"vector": n}) for n in range(1, 6)]
    again = trial(1.1e-3, point={"vector": 1})
    write(path, *points, again, trial(None, "timeout"), trial(None, "wrong", point={"vector": 2}))
    write(path, trial(1e-9), trial(None, "timeout"), spaces={SPACE.name: SPACE.version - 1})
    write(path, trial(1.0, space="novel"), spaces={"novel": 1, SPACE.name: SPACE.version + 1})
    write(path, trial(1.0), spaces={SPACE.name: SPACE.version + 1})
    assert prune(path, keep=2) == Pruned(kept=6, old=2, failed=1, dominated=3)
    left = [(r.trial.point, r.trial.median) for r in read(path).of_task(TASK)]
    assert left == [
        ((("vector", 1),), 1e-3),
        ((("vector", 3),), 3e-3),
        ((("vector", 1),), 1.1e-3),
        ((("vector", 2),), None),
        (trial(1.0).point, 1.0),
        (trial(1.0).point, 1.0),
    ]


def test_prune_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="none' cannot be read"):
        prune(tmp_path / "none", keep=1)
    assert not (tmp_path / "none").exists()


def test_export_holds_the_best_with_their_headers(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, trial(1e-3), trial(2e-3, point={}), trial(None))
    write(path, trial(3e-3, task="cd" * 32), hardware=SISTER)
    write(path, trial(1e-9), spaces={SPACE.name: SPACE.version - 1})
    assert export(read(path), tmp_path / "out") == 2
    file = read_file(tmp_path / "out")
    assert [(r.trial.median, r.header.hardware) for r in file.records] == [
        (1e-3, HERE),
        (3e-3, SISTER),
    ]
    assert len(file.headers) == 2
    with pytest.raises(TuningError, match="out' exists; `planish log merge` adds to a file"):
        export(read(path), tmp_path / "out")


def test_differences_pair_the_best(tmp_path: Path) -> None:
    def best(record: Record | None) -> float | None:
        return None if record is None else record.trial.median

    def side(name: str, *made: Trial, hardware: Fingerprint = HERE) -> TuningLog:
        return read(write(tmp_path / name, *made, hardware=hardware))

    left = side("left", trial(2e-3), trial(3e-3, point={}), trial(None, task="ef" * 32))
    side("right", trial(1e-3, point={}), trial(4e-3))
    right = side("right", trial(5e-3), hardware=SISTER)
    found = [
        (d.terms.hardware, best(d.left), best(d.right))
        for d in differences(left.records, right.records)
    ]
    assert found == [(HERE, 2e-3, 1e-3), (SISTER, None, 5e-3)]
