"""An artefact's folder, held open while its files are read.

An artefact is replaced as a whole folder, so what is read through one open folder belongs together.
What lies in it is not trusted: only plain files of the expected size are read, nothing is waited
for.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from planish.artefact.locks import loading
from planish.ir.errors import ArtefactError

if TYPE_CHECKING:
    from planish.artefact.format import FileInfo

_BLOCK = 1 << 20


class OpenFolder:
    """A folder that is open until the with statement ends; `path` is for messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ArtefactError(
                f"there is no artefact '{path}'; compile one with `planish compile MODEL -o DIR`"
            ) from None
        except NotADirectoryError:
            raise ArtefactError(
                f"'{path}' is a file; an artefact is a folder, as `planish compile` writes it"
            ) from None
        except (OSError, ValueError) as error:  # a name with a null character is a ValueError
            raise _unreadable(path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def was_replaced(self) -> bool:
        """True if another folder, or none, has taken its place meanwhile."""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            return True

    def holds(self, name: str) -> bool:
        """True if there is anything of that name."""
        try:
            os.stat(name, dir_fd=self._descriptor)
        except OSError as error:
            return error.errno != errno.ENOENT
        return True

    def open(self, name: str) -> int:
        """Give the descriptor of a file. Raises ArtefactError if it is not a plain file."""
        # Non-blocking: a pipe in the file's place has nobody at its other end.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except OSError as error:
            raise _unreadable(self.path / name, error) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ArtefactError(
                f"'{self.path / name}' is a folder, pipe or device, expected a file; copy the "
                "artefact again"
            )
        return descriptor

    def read(self, name: str, most: int) -> bytes:
        """Read a file whole. Raises ArtefactError where it has more than `most` bytes."""
        with open(self.open(name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise ArtefactError(
                    f"'{self.path / name}' has {size} bytes, expected at most {most}; copy the "
                    "artefact again"
                )
            try:
                return file.read(most + 1)
            except OSError as error:
                raise _unreadable(self.path / name, error) from None

    def read_checked(self, name: str, info: FileInfo) -> bytes:
        """Read a file whole. Raises ArtefactError unless size and SHA-256 are as `info` says."""
        descriptor = self._open_sized(name, info)
        with open(descriptor, "rb") as file:
            try:
                content = file.read(info.bytes + 1)
            except OSError as error:
                raise _unreadable(self.path / name, error) from None
        sha256 = _new_sha256()
        sha256.update(content)
        if sha256.hexdigest() != info.sha256:
            raise self._changed(name)
        return content

    def check(self, name: str, info: FileInfo, *, content: bool) -> None:
        """Raise ArtefactError unless a file has its size and, with `content`, its SHA-256."""
        with open(self._open_sized(name, info), "rb") as file:
            if not content:
                return
            sha256 = _new_sha256()
            try:
                while block := file.read(_BLOCK):
                    sha256.update(block)
            except OSError as error:
                raise _unreadable(self.path / name, error) from None
        if sha256.hexdigest() != info.sha256:
            raise self._changed(name)

    def _open_sized(self, name: str, info: FileInfo) -> int:
        descriptor = self.open(name)
        size = os.fstat(descriptor).st_size
        if size != info.bytes:
            os.close(descriptor)
            raise ArtefactError(
                f"'{self.path / name}' has {size} bytes, expected {info.bytes}; copy the artefact "
                "again"
            )
        return descriptor

    def _changed(self, name: str) -> ArtefactError:
        return ArtefactError(
            f"'{self.path / name}' was changed after it was written (its SHA-256 differs from the "
            "manifest's); copy the artefact again or recompile it"
        )


def _unreadable(path: Path, error: OSError | ValueError) -> ArtefactError:
    reason = error.strerror if isinstance(error, OSError) else error
    return ArtefactError(f"cannot read '{path}': {reason}; copy the artefact again")


def _new_sha256() -> hashlib._Hash:
    with loading:  # OpenSSL takes locks to find the algorithm: a fork has to wait
        return hashlib.sha256()
