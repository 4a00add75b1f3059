"""Writing a log, from several processes, through kills and full disks; reading what is left."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from planish.autotune.log import Header, LogWriter, TuningLog
from planish.autotune.log.files import read_file
from planish.autotune.log.files import replace as replace_file
from planish.autotune.log.sets import prune
from planish.ir.errors import TuningError
from tests.autotune_log.logs import HERE, SISTER, SPACE, read, trial, write

FORK = multiprocessing.get_context("fork")


def numbered(number: int) -> dict[str, object]:
    """A task for each number."""
    return {"task": f"{number:064x}"}


def write_many(path: Path, first: int, count: int) -> None:
    """A writer's life."""
    writer = LogWriter(path, Header.of(HERE if first % 2 else SISTER))
    for number in range(first, first + count):
        writer.append(trial(1e-3, **numbered(number)))


def in_process(work: Callable[[], None]) -> int:
    """Runs the work in a process of its own; its exit code."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    return process.exitcode or 0


def test_a_log_is_made_with_its_folder_and_headers_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a/b/log.jsonl", trial(1e-3), trial(2e-3))
    file = read_file(path)
    assert [header.hardware for header in file.headers] == [HERE]
    assert [record.trial.median for record in file.records] == [1e-3, 2e-3]
    assert [record.header for record in file.records] == [Header.of(HERE)] * 2
    assert len(file.lines) == 3
    write(path, trial(3e-3), hardware=SISTER)
    assert {record.header.hardware for record in read(path).records} == {HERE, SISTER}


def test_nothing_is_written_without_trials(tmp_path: Path) -> None:
    assert write(tmp_path / "log").read_bytes() == b""


def test_a_trial_must_be_of_a_space_of_the_header(tmp_path: Path) -> None:
    with (
        LogWriter(tmp_path / "log", Header.of(HERE, spaces={"conv": 1})) as writer,
        pytest.raises(TuningError, match=r"'pointwise' cannot be logged under header .* conv"),
    ):
        writer.append(trial(1e-3))


def test_a_missing_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"'.*none' cannot be read: No such file or directory"):
        TuningLog.read([tmp_path / "none"])
    with pytest.raises(TuningError, match="cannot be read: Is a directory"):
        TuningLog.read([tmp_path])


@pytest.mark.parametrize("torn", [b'{"kind": "tri', b"{", b'{"kind": "trial", "task": "\xff'])
def test_torn_lines_are_told_and_written_after(torn: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    path.write_bytes(path.read_bytes() + torn)
    file = read_file(path)
    assert (file.torn, len(file.records), file.foreign) == ((torn,), 1, ())
    write(path, trial(2e-3))
    file = read_file(path)
    assert (file.torn, len(file.records)) == ((torn,), 2)
    assert path.read_bytes().endswith(b"}\n")


def test_foreign_lines_are_told(tmp_path: Path) -> None:
    lines = [b"# note", b"\0\0\0", b'{"kind": "picture"}', b"[1]", b"\xff\xfe"]
    path = write(tmp_path / "log", trial(1e-3))
    path.write_bytes(b"\n".join([lines[0], b"", b"  ", path.read_bytes(), *lines[1:]]))
    file = read_file(path)
    assert (file.foreign, file.torn, len(file.records)) == (tuple(lines), (), 1)


def test_lines_of_windows_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert [record.trial for record in read(path).records] == [trial(1e-3)]


def test_trials_without_a_header_are_orphans(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3), trial(2e-3))
    header, *trials = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(trials))
    file = read_file(path)
    assert (file.orphans, file.records) == (tuple(trials), ())
    path.write_bytes(b"\n".join([*trials, header]))
    assert len(read_file(path).records) == 2, "a header may stand after its trials"


def test_headers_that_disagree_own_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    edited = path.read_bytes().splitlines()[0].replace(b'"stepping": "8"', b'"stepping": "9"')
    path.write_bytes(path.read_bytes() + edited + b"\n")
    file = read_file(path)
    assert [header.hardware for header in file.headers] == [HERE], "the first"
    assert (len(file.orphans), file.records) == (1, ())


def test_two_processes_write_one_log(tmp_path: Path) -> None:
    path, count = tmp_path / "log", 500
    writers = [FORK.Process(target=write_many, args=(path, n * 1001, count)) for n in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    file = read_file(path)
    assert (file.torn, file.foreign, file.orphans) == ((), (), ())
    assert len(file.lines) == 2 * count + 2
    wanted = {
        **{f"{n:064x}": SISTER for n in range(count)},
        **{f"{n:064x}": HERE for n in range(1001, 1001 + count)},
    }
    assert {r.trial.task: r.header.hardware for r in file.records} == wanted


def test_threads_write_through_one_writer(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log", Header.of(HERE)) as writer:

        def write_some(first: int) -> None:
            for number in range(first, first + 50):
                writer.append(trial(1e-3, **numbered(number)))

        threads = [threading.Thread(target=write_some, args=(n * 50,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    file = read_file(tmp_path / "log")
    assert len({record.trial.task for record in file.records}) == 200
    assert len(file.lines) == 201


def test_killed_writers_lose_at_most_the_line_in_flight(tmp_path: Path) -> None:
    path, told = tmp_path / "log", tmp_path / "told"
    rng = random.Random(5)

    def write_and_tell(first: int, started: Event) -> None:
        writer = LogWriter(path, Header.of(HERE))
        started.set()
        with told.open("ab", buffering=0) as done:
            for number in range(first, first + 100_000):
                writer.append(trial(1e-3, **numbered(number)))
                done.write(b"%d\n" % number)

    for turn in range(20):
        started = FORK.Event()
        writer = FORK.Process(target=write_and_tell, args=(turn * 100_000, started))
        writer.start()
        started.wait()
        time.sleep(rng.uniform(0, 0.03))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        file = read_file(path)
        assert len(file.torn) <= turn + 1
        assert (file.foreign, file.orphans) == ((), ())
    written = {int(record.trial.task, 16) for record in read(path).records}
    finished = {int(line) for line in told.read_bytes().split(b"\n")[:-1]}
    assert finished, "no writer was given the time to write"
    assert finished <= written, "a trial that was appended is gone"
    in_flight = Counter(number // 100_000 for number in written - finished)
    assert all(count == 1 for count in in_flight.values())


def test_a_full_disk_is_an_error_at_once() -> None:
    with pytest.raises(TuningError, match=r"log '/dev/full' cannot be written: No space left"):
        write(Path("/dev/full"), trial(1e-3))


def test_a_disk_that_fills_tears_one_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        writer = LogWriter(path, Header.of(HERE))
        told = "cannot be written: File too large; what is in it"
        with pytest.raises(TuningError, match=told):
            write_many(path, 1, 1000)
        with pytest.raises(TuningError, match=told):
            writer.append(trial(1e-3))

    assert in_process(fill) == 0
    assert path.stat().st_size == 10_000
    file = read_file(path)
    assert len(file.torn) == 1
    assert len(file.records) == len(file.lines) - 2 > 10
    write(path, trial(2e-3, task="the next writer's"))
    after = read_file(path)
    assert after.torn == file.torn
    assert [r.trial.task for r in after.records[len(file.records) :]] == ["the next writer's"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TuningError, match=r"cannot be written: (Not a directory|File exists)"):
        LogWriter(tmp_path / "file/log", Header.of(HERE))
    with pytest.raises(TuningError, match="cannot be written: Is a directory"):
        LogWriter(tmp_path, Header.of(HERE))


def test_a_writer_goes_on_in_the_file_that_took_the_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(path, Header.of(HERE))
    writer.append(trial(1e-3, **numbered(1)))
    replace_file(path, [b"# another file"])
    writer.append(trial(1e-3, **numbered(2)))
    assert read_file(path).headers == (Header.of(HERE),)
    for number in range(3, 20):  # a file system may give an inode that is free at once
        path.unlink()
        writer.append(trial(1e-3, **numbered(number)))
        assert [record.trial.task for record in read(path).records] == [f"{number:064x}"]
    writer.close()
    writer.append(trial(1e-3, **numbered(20)))
    assert len(read(path).records) == 2


def test_a_writer_holds_no_lock_between_trials(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with LogWriter(path, Header.of(HERE)) as writer:
        writer.append(trial(1e-3))
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        writer.append(trial(2e-3))
    assert len(read(path).records) == 2


def test_pruning_while_another_writes_loses_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "log", 300
    writer = FORK.Process(target=write_many, args=(path, 1, count))
    write(path, *(trial(1e-3 * n, point={"n": n}) for n in range(1, 40)))
    writer.start()
    while writer.is_alive():
        prune(path, keep=1)
        write(path, trial(1e-3, point={"n": 1}), trial(0.5, point={"n": 2}))
    writer.join()
    prune(path, keep=1)
    best = {r.trial.task: r.trial.median for r in read(path).records}
    assert len(best) == count + 1
    assert set(best.values()) == {1e-3}


def test_a_file_is_replaced_where_a_link_leads(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    replace_file(link, [b"{}"])
    assert link.is_symlink()
    assert path.read_bytes() == b"{}\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert {entry.name for entry in tmp_path.iterdir()} == {"log", "link"}


def test_a_log_of_a_newer_planish_is_kept_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3))
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    file = read_file(path)
    assert (len(file.foreign), len(file.orphans), file.records) == (1, 1, ())


def test_a_record_in_two_files_counts_once(tmp_path: Path) -> None:
    one = write(tmp_path / "one", trial(1e-3), trial(1e-3))
    two = write(tmp_path / "two", trial(1e-3), trial(2e-3))
    log = read(one, two, one)
    assert [record.trial.median for record in log.records] == [1e-3, 2e-3]
    assert [len(file.records) for file in log.files] == [1, 2]
    assert log.best(trial(1e-3).task, SPACE, HERE, 2) is not None
    assert log.best(trial(1e-3).task, replace(SPACE, version=7), HERE, 2) is None
