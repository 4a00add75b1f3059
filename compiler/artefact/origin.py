"""Where a loaded model is from: a folder, or files in memory; what a pickle of it holds."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from planish.artefact.format import WEIGHTS
from planish.ir.errors import ArtefactError


@dataclass(frozen=True, slots=True)
class Folder:
    """An artefact on disk: its absolute path, and the digest of the manifest that was loaded."""

    path: str
    digest: str


class Files:
    """The files of an artefact by name, held in memory; nothing of them need be on a disk.

    The weights are mapped, so that they share their pages with the models that are loaded from the
    same file, and take memory once. Pickles hold all bytes.
    """

    def __init__(self, folder: Path) -> None:
        """Hold the files of an artefact folder, which may be removed afterwards."""
        names = [name for name in os.listdir(folder) if name != WEIGHTS]
        self._small = {name: (folder / name).read_bytes() for name in names}
        self._weights = _Mapping(folder / WEIGHTS)

    def write(self, folder: Path) -> None:
        """Write the files into an empty folder."""
        for name, content in self._small.items():
            (folder / name).write_bytes(content)
        with (folder / WEIGHTS).open("wb") as file:
            file.write(self._weights.view())

    def __reduce__(self) -> tuple[object, ...]:
        return _from_bytes, ({**self._small, WEIGHTS: bytes(self._weights.view())},)


class _Mapping:
    """The bytes of a file, mapped; the file may be removed.

    Python's own mmap (before 3.13) keeps a descriptor, and closes whatever has its number by then
    in a process that has closed all of them, as daemons do. Here none is kept.
    """

    def __init__(self, path: Path) -> None:
        self._size = path.stat().st_size
        self._address = 0
        if self._size == 0:
            return
        with path.open("rb") as file:
            address = _libc.mmap(
                None, self._size, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 0
            )
        if address in (None, ctypes.c_void_p(-1).value):
            raise ArtefactError(f"cannot map '{path}': {os.strerror(ctypes.get_errno())}")
        self._address = address
        weakref.finalize(self, _libc.munmap, address, self._size).atexit = False

    def view(self) -> memoryview:
        """Give the bytes; not to be used after the mapping is gone."""
        if self._size == 0:
            return memoryview(b"")
        return memoryview((ctypes.c_char * self._size).from_address(self._address)).cast("B")


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def _from_bytes(files: Mapping[str, bytes]) -> Files:
    from planish.ir.scratch import scratch_folder  # not for who loads from a folder

    with scratch_folder() as folder:
        for name, content in files.items():
            (folder / Path(name).name).write_bytes(content)
        return Files(folder)
