"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import typer

import planish
from planish.cli.terminal import say
from planish.ir.errors import (
    CustomPassError,
    InvalidGraph,
    PassError,
    PlanishError,
    PlanishNote,
    ScheduleError,
)
from planish.ir.wording import on_command_line
from planish.verdict import VerificationFailed

Params = ParamSpec("Params")

OK, OUR_FAILURE, USERS_MISTAKE, INTERRUPTED = 0, 1, 2, 130

#: Errors that no input may cause: they are reported like a crash, with a log to attach.
_OURS = (InvalidGraph, PassError, ScheduleError, VerificationFailed)


def guarded(command: Callable[Params, None]) -> Callable[Params, None]:
    """The command with its errors as one sentence on stderr and an exit code.

    0 done, 2 the user's mistake, 1 a failure of ours (with a log file to attach), 130 interrupted.
    With the command's `as_json` set the error is one JSON object.
    """

    @functools.wraps(command)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            with _noted(), on_command_line():
                command(*args, **kwargs)
        except typer.Exit:  # the command has told all there is to tell
            raise
        except (KeyboardInterrupt, PlanishError) as error:
            raise typer.Exit(_report(error, as_json)) from None
        except BrokenPipeError:
            # The reader (`| head`) has gone: nobody is left to tell. Python would complain on exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OK) from None
        except Exception as error:
            named = [value for value in kwargs.values() if isinstance(value, Path)]
            found = _of_the_system(error, named) or error
            raise typer.Exit(_report(found, as_json)) from None

    return run


def _of_the_system(error: Exception, named: Sequence[Path]) -> PlanishError | None:
    """What the system refused, if it is about a file that the command line names or a full disk;
    None for errors whose cause may be planish."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    path = None if error.filename is None else Path(os.fsdecode(error.filename))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = tempfile.gettempdir() if path is None else path
        return PlanishError(f"cannot write '{where}': {error.strerror}; make room, or set TMPDIR")
    if path is None or not any(_is_about(path, name) for name in named):
        return None
    return PlanishError(f"cannot use '{path}': {error.strerror}")


def _is_about(path: Path, name: Path) -> bool:
    """Whether a path is the one that was named, in it, or a hidden one beside it."""
    full, named = Path(os.path.abspath(path)), Path(os.path.abspath(name))
    return full.is_relative_to(named) or named.is_relative_to(full) or (
        full.parent == named.parent and full.name.startswith(f".{named.name}.")
    )  # fmt: skip


@contextmanager
def _noted() -> Iterator[None]:
    """Prints each note once, however often a command reads the model."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **how: Any) -> None:
        if not issubclass(category, PlanishNote):
            usual(message, category, *place, **how)
        elif str(message) not in told:
            told.add(str(message))
            say(f"planish: note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PlanishNote)
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def _report(error: BaseException, as_json: bool) -> int:
    """Prints the error; its exit code."""
    if isinstance(error, KeyboardInterrupt):
        _print({"type": "Interrupted", "message": "interrupted; nothing was written"}, as_json)
        return INTERRUPTED
    users = isinstance(error, CustomPassError) or not isinstance(error, _OURS)
    if isinstance(error, PlanishError) and users:
        _print({"type": type(error).__name__, "message": str(error)}, as_json)
        return USERS_MISTAKE
    told = str(error) if isinstance(error, PlanishError) else f"{type(error).__name__}: {error}"
    facts = {"type": type(error).__name__, "message": told}
    try:
        facts["log"] = _write_log(error)
    except OSError:  # no place for temporary files: then here, or nobody ever knows
        facts["trace"] = "".join(traceback.format_exception(error))
    _print(facts, as_json)
    return OUR_FAILURE


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps({"error": facts}), file=sys.stderr)
        return
    say(f"planish: {facts['message']}", file=sys.stderr)
    if "log" in facts:
        say(
            f"This is a failure of planish; please report it with the log {facts['log']}",
            file=sys.stderr,
        )
    if "trace" in facts:
        say(f"{facts['trace']}This is a failure of planish; please report it", file=sys.stderr)


def _write_log(error: BaseException) -> str:
    """Everything that a report needs, in a file of its own; the file's path."""
    handle, path = tempfile.mkstemp(prefix="planish-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as log:
        log.write(f"planish {planish.__version__}, Python {sys.version}\n{platform.platform()}\n")
        log.write(f"command: {sys.argv}\n\n")
        log.write("".join(traceback.format_exception(error)))
    return path
