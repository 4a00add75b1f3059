"""Where tuning logs are: the user's, a team's, and those that come with planish."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from planish.autotune.log.lookup import TuningLog
from planish.ir.errors import TuningError

#: Names log files, the written one first, instead of the user's store.
VARIABLE = "PLANISH_LOG"

#: What takes a log: True for what is stored, False for none, files, or a log that is read already.
LogSource: TypeAlias = bool | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | TuningLog


def user_store(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's log: `$XDG_DATA_HOME/planish/tuning.jsonl`, by default under ~/.local/share.

    It is data, not state or cache: it takes hours to make again, and is of use on other machines.
    Source: XDG Base Directory Specification 0.8, which has relative paths ignored.
    """
    home = Path(environ.get("XDG_DATA_HOME", ""))
    base = home if home.is_absolute() else Path.home() / ".local/share"
    return base / "planish/tuning.jsonl"


def named_paths(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The files that PLANISH_LOG names; empty if it is unset or empty."""
    return tuple(Path(part) for part in environ.get(VARIABLE, "").split(os.pathsep) if part)


def written_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where a tuner writes: the first file of PLANISH_LOG, or the user's store."""
    return (*named_paths(environ), user_store(environ))[0]


def stored_paths(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """What a compilation reads: PLANISH_LOG's files or the user's store, then what came along.

    The written file need not be there yet; TuningError if another that PLANISH_LOG names is not.
    """
    first, *others = named_paths(environ) or (user_store(environ),)
    for path in others:
        if not path.exists():
            raise TuningError(f"{VARIABLE} names '{path}', which does not exist; leave it out")
    return (*([first] if first.exists() else []), *others, *shipped_paths())


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
