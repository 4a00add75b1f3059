"""Functions for workers that misbehave; imports nothing, so that workers start at once."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time


def triple(number: int) -> int:
    """Three times the number."""
    return 3 * number


def fail() -> None:
    """Raises."""
    raise KeyError("no such thing")


def abort() -> None:
    """Ends as LLVM does where it finds a fault in itself."""
    os.write(2, b"LLVM ERROR: cannot select\n")
    os.abort()


def segfault() -> None:
    """Reads from nowhere."""
    ctypes.string_at(16)


def leave() -> None:
    """Ends the process politely."""
    os._exit(3)


def be_killed() -> None:
    """Ends as by the system's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Never ends."""
    time.sleep(3600)


def hang_in_a_child(path: str) -> None:
    """Never ends, and neither does the process that it started, whose id it writes to a file."""
    child = subprocess.Popen(["sleep", "3600"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    child.wait()


def eat() -> None:
    """Takes all memory there is."""
    hoard = []
    while True:
        hoard.append(b"x" * (1 << 22))
