"""The one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import signal
import sys
import tempfile
import threading
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

#: Signals that end a command as Ctrl-C does, with the exit code that shells give: 128 and the
#: number. What lies in temporary folders is then removed, and a tuning keeps what it has.
_ENDING = (signal.SIGTERM, signal.SIGHUP)
#: What the system says where a disk is full: no fault of ours.
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: Errors that no input may cause: they are reported like a crash, with a log to attach.
_OURS = (InvalidGraph, PassError, ScheduleError, VerificationFailed)


def guarded(command: Callable[Params, None]) -> Callable[Params, None]:
    """The command with its errors as one sentence on stderr and an exit code.

    0 done, 2 the user's mistake, 1 a failure of ours (with a log file to attach), 130 interrupted,
    143 terminated.
    With the command's `as_json` set the error is one JSON object.
    """

    @functools.wraps(command)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        ended: list[int] = []
        try:
            with _ending(ended), _noted(), on_command_line():
                command(*args, **kwargs)
            if ended:  # the command made what it had to a good end
                raise typer.Exit(128 + ended[0])
        except typer.Exit:  # the command has told all there is to tell
            raise
        except (KeyboardInterrupt, PlanishError) as error:
            code = _report(error, as_json)
            raise typer.Exit(128 + ended[0] if ended else code) from None
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
def _ending(ended: list[int]) -> Iterator[None]:
    """Turns signals that would end the process into KeyboardInterrupt, and notes their numbers.

    Those that the caller has ignored (nohup), or handles itself, stay as they are.
    """

    def interrupt(number: int, frame: object) -> None:
        ended.append(number)
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    taken = [number for number in _ENDING if ours and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


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
    if isinstance(error, OSError) and error.errno in _FULL:
        place = f"'{error.filename}'" if error.filename else "a file"
        told = f"no space is left to write {place}: free some, or set TMPDIR to another folder"
        _print({"type": "NoSpace", "message": told}, as_json)
        return USERS_MISTAKE
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
    """Everything that a report needs, in a file of its own; the file's path.

    Where none can be written it goes to stderr.
    """
    text = f"planish {planish.__version__}, Python {sys.version}\n{platform.platform()}\n"
    text += f"command: {sys.argv}\n\n" + "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="planish-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8") as log:
            log.write(text)
    except OSError as unwritten:
        say(text, file=sys.stderr)
        return f"above (no file could be written for it: {unwritten})"
    return path
