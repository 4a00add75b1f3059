"""A folder for the files of one measuring process, removed by the next one if it was killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "planish-measure-"


@contextmanager
def scratch_folder(base: Path | None = None) -> Iterator[Path]:
    """A new folder, gone afterwards; removes those that killed processes of this user left.

    A lock beside each folder, which the system releases however its holder ends, tells the two
    apart. `base` is the system's folder for temporary files.
    """
    home = Path(tempfile.gettempdir()) if base is None else base
    remove_leftovers(home)
    lock, path = _new_lock(home)
    folder = path.with_suffix("")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        path.unlink(missing_ok=True)
        os.close(lock)


def remove_leftovers(base: Path) -> None:
    """Removes the folders in `base` whose process has ended."""
    for path in base.glob(f"{_PREFIX}*.lock"):
        with suppress(OSError):  # another user's, or another process was quicker
            if path.lstat().st_uid != os.getuid():
                continue
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()
            finally:
                os.close(lock)


def _new_lock(base: Path) -> tuple[int, Path]:
    """A lock file that is ours: a process that cleans up may be quicker than we are to lock it."""
    while True:
        path = base / f"{_PREFIX}{secrets.token_hex(6)}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return lock, path
        os.close(lock)
