"""Workers: a job that misbehaves costs its own worker; nothing outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planish.autotune.measure.workers import Job, Workers
from planish.ir.errors import TuningError
from planish.ir.scratch import remove_leftovers, scratch_folder
from tests.measure import jobs

ROOT = Path(__file__).parents[2]
FAULTS: list[tuple[Callable[..., Any], str, str]] = [
    (jobs.fail, "raised", "'no such thing'"),
    (jobs.abort, "crash", "killed by SIGABRT: LLVM ERROR: cannot select"),
    (jobs.segfault, "crash", "killed by SIGSEGV"),
    (jobs.leave, "crash", "ended with status 3"),
    (jobs.be_killed, "killed", "killed by SIGKILL"),
    (jobs.hang, "timeout", "no end within 0.5 s"),
    (jobs.eat, "out_of_memory", "it took more than 256 MiB"),
]


def _job(function: Callable[..., Any], *arguments: object) -> Job:
    return Job(function, arguments, 0.5 if function is jobs.hang else 20.0, 256 << 20)


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_fault_is_an_outcome_and_other_jobs_are_done(tmp_path: Path) -> None:
    work = [_job(function) for function, *_ in FAULTS]
    work += [_job(jobs.triple, number) for number in range(10)]
    before = _children()
    with Workers(2, [jobs.triple], tmp_path) as workers:
        outcomes = dict(workers.run(work))
    assert [outcomes[len(FAULTS) + n].value for n in range(10)] == [3 * n for n in range(10)]
    for number, (_, kind, message) in enumerate(FAULTS):
        assert (outcomes[number].kind, message) == (kind, outcomes[number].message)
    assert outcomes[0].error[:2] == ("KeyError", "LookupError")
    assert _children() == before  # neither running nor zombies


def test_what_a_worker_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with Workers(1, [jobs.triple], tmp_path) as workers:
        job = Job(jobs.hang_in_a_child, (str(note),), 1.0, 1 << 30)
        ((_, outcome),) = workers.run([job])
    assert outcome.kind == "timeout"
    _wait_until(lambda: not _alive(int(note.read_text())))


def test_idle_worker_that_was_killed_is_replaced(tmp_path: Path) -> None:
    with Workers(1, [jobs.triple], tmp_path) as workers:
        for number in range(3):
            ((_, outcome),) = workers.run([_job(jobs.triple, number)])
            assert outcome.value == 3 * number
            os.kill(workers.pids[0], signal.SIGKILL)
            _wait_until(lambda: not _alive(workers.pids[0]))


def test_functions_must_be_importable(tmp_path: Path) -> None:
    def local() -> None: ...

    with Workers(1, [jobs.triple], tmp_path) as workers, pytest.raises(Exception, match="local"):
        list(workers.run([_job(local)]))


def test_worker_without_its_functions_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vanishing.py").write_text("def f(): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    from vanishing import f  # type: ignore[import-not-found]

    (tmp_path / "vanishing.py").unlink()
    with (
        Workers(1, [f], tmp_path) as workers,
        pytest.raises(
            TuningError, match="cannot import its functions: No module named 'vanishing'"
        ),
    ):
        list(workers.run([_job(f)]))


_PROGRAM = """
import sys
from pathlib import Path
from planish.ir.scratch import scratch_folder
from planish.autotune.measure.workers import Job, Workers
from tests.measure import jobs
with scratch_folder(Path(sys.argv[1])) as folder, Workers(2, [jobs.triple], folder) as workers:
    list(workers.run([Job(jobs.triple, (1,), 20.0, 1 << 30)] * 2))
    print(*workers.pids, flush=True)
    list(workers.run([Job(jobs.hang, (), 3600.0, 1 << 30)] * 2))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_parent(sent: signal.Signals, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(_alive, pids))
    assert len(list(tmp_path.iterdir())) == 2
    parent.send_signal(sent)
    parent.wait()
    parent.stdout.close()
    _wait_until(lambda: not any(map(_alive, pids)))
    assert bool(list(tmp_path.iterdir())) == (sent is not signal.SIGINT)  # it had no time
    with scratch_folder(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == [folder, folder.with_suffix(".lock")]
    assert not list(tmp_path.iterdir())


def test_leftovers_of_the_living_stay(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as first, scratch_folder(tmp_path) as second:
        (first / "file").write_text("kept")
        remove_leftovers(tmp_path)
        assert (first / "file").exists()
        assert second.exists()
