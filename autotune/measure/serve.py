"""A worker process: calls functions that it is sent, until its parent is gone.

`python -m planish.autotune.measure.serve DESCRIPTOR PARENT`; workers.py starts it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptor: int, parent: int) -> None:
    """Answers each (function, arguments) with ("returned", value) or ("raised", names, text)."""
    end_with(parent)
    connection = Connection(descriptor)
    sys.path[:] = connection.recv()
    try:
        while True:
            connection.send(_answer(connection))
    except (EOFError, ConnectionError):  # the parent closed its end
        return


def end_with(parent: int) -> None:
    """Have the system kill this process when `parent` ends, however it does.

    The system means the thread that started this process, so that must be one that stays.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _answer(connection: Connection) -> tuple[Any, ...]:
    try:
        function, arguments = connection.recv()  # imports the function's module
        return "returned", function(*arguments)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return "raised", names, str(error).strip() or names[0]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
