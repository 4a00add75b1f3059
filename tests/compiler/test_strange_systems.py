"""Commands on systems that lack something, by real processes: no home, no locks, no space."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import planish
from planish.artefact.writing import check_replaceable
from planish.autotune.log.store import open_log, stored_paths, written_path
from planish.ir import scratch as scratch_module
from planish.ir.errors import ArtefactError, PlanishError, PlanishNote, TuningError
from planish.ir.scratch import remove_leftovers, scratch_folder
from tests.compiler.small_models import perceptron

NOBODY = 64123  # in no password file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return perceptron(tmp_path / "model.onnx")


def command(*words: str | Path, **more: str) -> tuple[list[str], dict[str, str]]:
    """A planish command without the variables of this process that tell of a home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "HOME", "PLANISH_"))}
    return [sys.executable, "-m", "planish", *map(str, words)], {**kept, **more}


def unshared(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script where it may mount things, seen by nobody else."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting takes root and unshare")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this system forbids mount namespaces")
    return subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", *words], capture_output=True, text=True
    )


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach and write to, which those of pytest are not."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)
    yield place
    shutil.rmtree(place)


def test_a_user_without_home_and_name_compiles(reachable: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to become another user takes root")
    place = reachable
    model = perceptron(place / "model.onnx")
    try:
        probe = [sys.executable, "-c", "import planish.cli.app, planish.tuning"]
        subprocess.run(probe, user=NOBODY, group=NOBODY, check=True, capture_output=True, cwd=place)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip("another user cannot read the installation")
    words, environ = command(
        "compile", model, "-o", place / "out", "--no-verify", TMPDIR=str(place)
    )
    done = subprocess.run(
        words, env=environ, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True,
        text=True, cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words, environ = command("tune", model, "-o", place / "two", "--trials", "1")
    done = subprocess.run(
        words, env=environ, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True,
        text=True, cwd=place,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no home folder for a tuning log" in done.stderr


def test_no_home_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    for home in ({}, {"HOME": ""}, {"HOME": "relative"}):
        environ = {"XDG_DATA_HOME": "also/relative", **home}
        assert stored_paths(environ) == stored_paths({"XDG_DATA_HOME": "/nonexistent"})
        with pytest.raises(TuningError, match="no home folder for a tuning log"):
            written_path(environ)
    assert written_path({"PLANISH_LOG": "/a/b"}) == Path("/a/b")


def test_a_store_of_another_user_is_left_alone(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to make files of another user takes root")
    store = tmp_path / "share/planish/tuning.jsonl"
    store.parent.mkdir(parents=True)
    environ = {"XDG_DATA_HOME": str(tmp_path / "share")}
    os.chown(store.parent, NOBODY, NOBODY)
    with pytest.raises(TuningError, match="is another user's, and is not written"):
        written_path(environ)
    assert store not in stored_paths(environ)
    store.write_text("{}")
    os.chown(store, NOBODY, NOBODY)
    with pytest.warns(PlanishNote, match="is another user's, and is not read"):
        assert store not in stored_paths(environ)
    assert open_log([store]) is not None  # named, it is read
    os.chown(store, 0, 0)
    assert store in stored_paths(environ)
    assert written_path(environ) == store


NO_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { (void)file, (void)operation; errno = ERROR; return -1; }
"""


@pytest.mark.parametrize("error", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_logs_and_folders_where_there_are_no_locks(error: str, tmp_path: Path) -> None:
    (tmp_path / "none.c").write_text(NO_LOCKS)
    library = tmp_path / "none.so"
    build = ["cc", f"-DERROR={error}", "-shared", "-fPIC", "none.c", "-o", str(library)]
    subprocess.run(build, cwd=tmp_path, check=True)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from planish.autotune.log.files import append, locked, read_file\n"
        "from planish.ir.scratch import scratch_folder\n"
        "place = Path(sys.argv[1])\n"
        "with locked(place / 'log.jsonl') as file:\n"
        "    append(file, b'one\\n')\n"
        "assert read_file(place / 'log.jsonl').lines == (b'one',)\n"
        "with scratch_folder(place) as one, scratch_folder(place) as two:\n"
        "    assert one.is_dir() and two.is_dir()\n"
        "print(sorted(p.name for p in place.iterdir()))\n"
    )
    place = tmp_path / "place"
    place.mkdir()
    dead = place / ".planish-1-dead"
    dead.mkdir()
    with subprocess.Popen(["true"]) as ended:
        identity = scratch_module._identity(ended.pid)
    dead.with_suffix(".lock").write_text(identity)
    alive = place / ".planish-1-alive"
    alive.mkdir()
    alive.with_suffix(".lock").write_text(scratch_module._identity(os.getpid()))
    environ = {**os.environ, "LD_PRELOAD": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(place)], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "has no locks: let only one process" in done.stderr
    left = {".planish-1-alive", ".planish-1-alive.lock", "log.jsonl"}
    assert done.stdout.strip() == str(sorted(left))


def test_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from planish.ir.scratch import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'large').write_bytes(b'x')\n    print(flush=True)\n    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        process.kill()
    assert len(list(tmp_path.iterdir())) == 2
    with scratch_folder(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_terminated_command_leaves_nothing(
    number: signal.Signals, code: int, model: Path, tmp_path: Path
) -> None:
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    place.mkdir(), temporary.mkdir()
    slow = tmp_path / "cc"  # a compiler that takes its time, so that there is something to end
    slow.write_text(f"#!/bin/sh\ntouch {tmp_path}/linking\nsleep 20\n")
    slow.chmod(0o755)
    words, environ = command(
        "compile", model, "-o", place / "out", CC=str(slow), TMPDIR=str(temporary)
    )
    with subprocess.Popen(words, env=environ, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if (tmp_path / "linking").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert "interrupted" in told or "terminated" in told
    assert not list(place.iterdir())
    assert not [path for path in temporary.iterdir() if path.name.startswith("planish")]


def test_an_output_that_cannot_be_put_in_place_is_refused_at_once(tmp_path: Path) -> None:
    done = unshared(
        'mkdir -p "$1/mounted" "$1/bound" "$1/source dir"\nmount -t tmpfs none "$1/mounted"\n'
        'mount --bind "$1/source dir" "$1/bound"\nmkdir "$1/ro"\n'
        'mount -t tmpfs -o ro none "$1/ro"\n'
        'for place in mounted ro/new; do "$2" -m planish compile "$1/none.onnx" -o "$1/$place" '
        '|| true; done; "$2" -m planish tune "$1/none.onnx" -o "$1/bound" || true',
        str(tmp_path), sys.executable,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if "machine is busy" not in line]
    assert len(told) == 3, done.stderr
    assert "is a mount point" in told[0], told
    assert "Read-only file system" in told[1], told
    assert "is a mount point" in told[2], told


def test_a_parent_that_is_not_a_folder_or_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="cannot write artefact"):
        check_replaceable(tmp_path / "file/inside/out")
    if os.geteuid() == 0:
        pid = os.fork()
        if pid == 0:  # root writes everywhere
            code = 1
            try:
                tmp_path.chmod(0o755)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                check_replaceable(tmp_path / "new/out")
            except ArtefactError as error:
                code = 0 if "Permission denied" in str(error) else 2
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    else:
        tmp_path.chmod(0o555)
        with pytest.raises(ArtefactError, match="Permission denied"):
            check_replaceable(tmp_path / "new/out")
        tmp_path.chmod(0o755)


def test_a_full_temporary_folder_is_told(model: Path, tmp_path: Path) -> None:
    done = unshared(
        'mkdir -p "$1/tmp"\nmount -t tmpfs -o size=64k none "$1/tmp"\n'
        'TMPDIR="$1/tmp" "$2" -m planish compile "$3" -o "$1/out" --no-log',
        str(tmp_path), sys.executable, str(model),
    )  # fmt: skip
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "space" in done.stderr.lower()
    assert not (tmp_path / "out").exists()


def test_code_is_measured_where_temporary_folders_forbid_it(tmp_path: Path) -> None:
    done = unshared(
        'mkdir -p "$1/tmp"\nmount -t tmpfs -o noexec none "$1/tmp"\n'
        'TMPDIR="$1/tmp" "$2" -c "\n'
        "import ctypes, shutil, subprocess, sys\n"
        "from planish.ir.scratch import scratch_folder\n"
        "with scratch_folder(runs_code=True) as folder:\n"
        "    (folder / 'a.c').write_text('int f(void) { return 7; }')\n"
        "    made = str(folder / 'a.so')\n"
        "    subprocess.run(['cc', '-shared', folder / 'a.c', '-o', made], check=True)\n"
        '    print(ctypes.CDLL(made).f())"',
        str(tmp_path), sys.executable,
    )  # fmt: skip
    assert done.stdout.strip() == "7", done.stderr


def test_no_temporary_folder_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(scratch_module.tempfile, "gettempdir", missing)
    with pytest.raises(PlanishError, match="set TMPDIR"), scratch_folder():
        pass
    assert planish.PlanishError is PlanishError
