"""Where tuning logs are: the user's, a team's, and those that come with planish."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from planish.autotune.log.lookup import TuningLog
from planish.ir.errors import TuningError, note

#: Names log files, the written one first, instead of the user's store.
VARIABLE = "PLANISH_LOG"

#: What takes a log: True for what is stored, False for none, files, or a log that is read already.
LogSource: TypeAlias = bool | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | TuningLog


def user_store(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's log: `$XDG_DATA_HOME/planish/tuning.jsonl`, by default under ~/.local/share.

    It is data, not state or cache: it takes hours to make again, and is of use on other machines.
    Source: XDG Base Directory Specification 0.8, which has relative paths ignored. Raises
    TuningError for a user without a home.
    """
    home = Path(environ.get("XDG_DATA_HOME", ""))
    if not home.is_absolute():
        try:
            home = Path(environ.get("HOME") or Path.home()) / ".local/share"
        except RuntimeError:
            home = Path()
        if not home.is_absolute():
            raise TuningError(
                "this user has no home folder for a tuning log: set HOME or XDG_DATA_HOME, or name "
                f"a file with --log or {VARIABLE}"
            )
    return home / "planish/tuning.jsonl"


def is_foreign(store: Path) -> bool:
    """True if a store, or the folder that it would be made in, is another user's.

    What `sudo` leaves of HOME is one: a file that root makes there could not be written by its
    owner, and what the owner writes there is not for root to build by.
    """
    for path in (store, *store.parents):
        with suppress(OSError):
            status = path.stat()
            shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH
            return status.st_uid != os.geteuid() and not shared
    return True


def named_paths(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The files that PLANISH_LOG names; empty if it is unset or empty."""
    return tuple(Path(part) for part in environ.get(VARIABLE, "").split(os.pathsep) if part)


def written_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a tuner writes: the first file of PLANISH_LOG, or the user's store.

    TuningError if there is no store, or it is another user's.
    """
    named = named_paths(environ)
    if named:
        return named[0]
    store = user_store(environ)
    if is_foreign(store):
        raise TuningError(
            f"the tuning log '{store}' is another user's, and is not written: set HOME or "
            f"XDG_DATA_HOME, or name a file with --log or {VARIABLE}"
        )
    return store


def stored_paths(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """What a compilation reads: PLANISH_LOG's files or the user's store, then what came along.

    The written file need not be there yet; TuningError if another that PLANISH_LOG names is not.
    """
    first, *others = named_paths(environ) or (_read_store(environ),)
    for path in others:
        if path is not None and not path.exists():
            raise TuningError(f"{VARIABLE} names '{path}', which does not exist; leave it out")
    there = [first] if first is not None and _exists(first) else []
    return (*there, *filter(None, others), *shipped_paths())


def _read_store(environ: Mapping[str, str]) -> Path | None:
    """The user's store, if there is one that is this user's own."""
    try:
        store = user_store(environ)
    except TuningError:
        return None
    if not _exists(store) or not is_foreign(store):
        return store
    note(
        f"the tuning log '{store}' is another user's, and is not read; to use it, name it with "
        f"--log or {VARIABLE}"
    )
    return None


def _exists(path: Path) -> bool:
    """False also for what this user may not look at, such as a home of another's."""
    try:
        return path.exists()
    except OSError:
        return False


def shipped_paths() -> tuple[Path, ...]:
    """The logs that came with planish, in order of their names; there may be none."""
    folder = Path(str(resources.files("planish.autotune.log"))) / "shipped"
    return tuple(sorted(folder.glob("*.jsonl")))


def open_log(source: LogSource) -> TuningLog | None:
    """The log that a source stands for; None if it is False, or True and nothing is stored."""
    if isinstance(source, TuningLog):
        return source
    if isinstance(source, bool):
        paths = stored_paths() if source else ()
        return TuningLog.read(paths) if paths else None
    return TuningLog.read([source] if isinstance(source, str | os.PathLike) else source)
