"""Checked bytes of a library to code in this process, whatever is loaded already.

The system knows a library by the path it was loaded from and by the device and inode of its file,
and takes whatever has either for the library that it has. So each library comes from a file of its
own, which has no name afterwards, by a path that is used once. Nothing of it stays open: a program
may close descriptors that it did not open.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from planish.ir.errors import ArtefactError

_MFD_NOEXEC_SEAL = 8
"""Not in Python's os before 3.14. The file can never be a program, which some systems insist on."""


def load_code(name: str, code: bytes) -> ctypes.CDLL:
    """Load the library of the model `name`. Raises ArtefactError where the system does not let us.

    Hardened systems forbid to run code from memory or from some folders: places are tried in turn.
    """
    errors = []
    for create in (_in_memory, *map(_creator, _folders())):
        try:
            return _load_from(create, name, code)
        except (OSError, AttributeError) as error:
            errors.append(str(error))
    raise ArtefactError(
        f"the system does not load the library of '{name}': {'; '.join(dict.fromkeys(errors))}"
    )


_Creator = Callable[[str], tuple[int, str, bool]]
"""Gives the descriptor of a new file, a path to load it from, and whether that is its name."""


def _load_from(create: _Creator, name: str, code: bytes) -> ctypes.CDLL:
    descriptor, path, is_name = create(name)
    try:
        with open(descriptor, "wb") as file:
            file.write(code)
            file.flush()
            _require_unknown(path)
            return ctypes.CDLL(path)
    finally:
        if is_name:
            os.unlink(path)


def _require_unknown(path: str) -> None:
    """Raise OSError if the system would take the file for a library that it has loaded already."""
    try:
        handle = _ctypes.dlopen(path, os.RTLD_NOW | os.RTLD_NOLOAD)
    except OSError:
        return
    _ctypes.dlclose(handle)
    raise OSError(f"'{path}' is taken for another library")


def _in_memory(name: str) -> tuple[int, str, bool]:
    try:
        descriptor = os.memfd_create(f"lib{name}.so", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:  # Linux before 6.3 does not know the flag
        descriptor = os.memfd_create(f"lib{name}.so", os.MFD_CLOEXEC)
    return descriptor, unique_path(descriptor), False


def unique_path(descriptor: int) -> str:
    """Give a path of an open file that was never used before.

    The number of a descriptor comes again, and the system compares paths as text. Empty steps in it
    spell a random number: "/./" and "//" lead where "/" does.
    """
    steps = "".join("/." if bit == "1" else "/" for bit in f"{secrets.randbits(64):064b}")
    return f"/proc/self/fd{steps}/{descriptor}"


def _folders() -> Iterator[Path]:
    """Places for a short-lived file, the user's choice first."""
    with suppress(OSError):  # no temporary folder can be written to
        yield Path(tempfile.gettempdir())
    yield Path("/var/tmp")
    yield Path("/dev/shm")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime)


def _creator(folder: Path) -> _Creator:
    def on_disk(name: str) -> tuple[int, str, bool]:
        path = folder / f"lib{name}-{secrets.token_hex(16)}.so"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o600), str(path), True

    return on_disk
