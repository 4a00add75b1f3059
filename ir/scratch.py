"""Folders for the files of one process, removed by the next one if it was killed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from planish.ir.errors import PlanishError
from planish.ir.file_locks import take_lock

_PREFIX = "planish-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def scratch_folder(base: Path | None = None, *, runs_code: bool = False) -> Iterator[Path]:
    """A new folder, gone afterwards; removes those that killed processes of this user left.

    A lock beside each folder, which the system releases however its holder ends, tells the two
    apart. `base` is the system's folder for temporary files; with `runs_code` another is taken
    where that does not let code be loaded from it; PlanishError if there is none, or its disk
    becomes full in the block. In another `base` the names are hidden, and errors are the system's.
    """
    home = _home(runs_code) if base is None else base
    remove_leftovers(home)
    try:
        lock, path = _new_lock(home, "." if base is not None else "")
        folder = path.with_suffix("")
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)
            os.close(lock)
    except OSError as error:
        if base is None and error.errno in _FULL:
            raise PlanishError(
                f"no space is left in '{home}'; free some, or set TMPDIR to another"
            ) from error
        raise


def _home(runs_code: bool) -> Path:
    """A folder for temporary files that can be written, and from which code can be loaded."""
    try:
        usual = Path(tempfile.gettempdir())
    except OSError as error:
        raise PlanishError(
            "no folder for temporary files can be written: set TMPDIR to one that can be"
        ) from error
    if not runs_code or _lets_code_run(usual):
        return usual
    others = [os.environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm", "/var/tmp", "/tmp", os.getcwd()]
    for other in map(Path, filter(None, others)):
        if other.is_dir() and os.access(other, os.W_OK | os.X_OK) and _lets_code_run(other):
            return other
    raise PlanishError(
        f"code cannot be loaded from '{usual}', which is mounted noexec, nor from another folder "
        "for temporary files: set TMPDIR to one that is not"
    )


def _lets_code_run(folder: Path) -> bool:
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def remove_leftovers(base: Path) -> None:
    """Removes the folders in `base` whose process has ended."""
    for path in [*base.glob(f"{_PREFIX}*.lock"), *base.glob(f".{_PREFIX}*.lock")]:
        with suppress(OSError):  # another user's, or another process was quicker
            if path.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if take_lock(lock, wait=False) or _has_ended(path.read_text("ascii")):
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                    path.unlink()
            finally:
                os.close(lock)


def _new_lock(base: Path, hidden: str) -> tuple[int, Path]:
    """A lock file that is ours: a process that cleans up may be quicker than we are to lock it."""
    while True:
        path = base / f"{hidden}{_PREFIX}{os.getpid()}-{secrets.token_hex(6)}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(lock, _identity(os.getpid()).encode("ascii"))
            with suppress(BlockingIOError, FileNotFoundError):
                take_lock(lock, wait=False)
                if path.stat().st_ino == os.fstat(lock).st_ino:
                    return lock, path
        except BaseException:
            os.close(lock)
            path.unlink(missing_ok=True)
            raise
        os.close(lock)


def _identity(process: int) -> str:
    """What no other process has: boot, namespace of process numbers, number, start."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    namespace = os.readlink("/proc/self/ns/pid")
    start = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return f"{boot} {namespace} {process} {start}"


def _has_ended(identity: str) -> bool:
    """Where there are no locks: True only if that process surely is no more."""
    process = identity.split()[2] if len(identity.split()) == 4 else ""
    if not process.isdecimal() or identity.split()[:2] != _identity(os.getpid()).split()[:2]:
        return False
    try:
        return _identity(int(process)) != identity
    except OSError:
        return True
