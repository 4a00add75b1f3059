"""The library of an artefact in this process: its bytes checked, loaded once, called by ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import platform
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from planish.artefact.code import load_code
from planish.artefact.format import FileInfo, Manifest
from planish.artefact.locks import loading
from planish.ir.errors import ArtefactError

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def check_cpu(manifest: Manifest, folder: Path) -> None:
    """Raise ArtefactError where this machine cannot run the artefact; runs no code of it."""
    machine = platform.machine().lower()
    machine = _ARCHITECTURES.get(machine, machine)
    if manifest.architecture != machine:
        raise ArtefactError(
            f"artefact '{folder}' is for {manifest.architecture}, this machine is {machine}; "
            "compile the model for a target of this machine (`planish targets`)"
        )
    flags = _cpu_flags() if manifest.features else frozenset()
    missing = [name for name, flag in manifest.features.items() if flag not in flags]
    # Without /proc there are no flags to look at; the library then checks the CPU itself, at open.
    if missing and flags:
        raise ArtefactError(
            f"artefact '{folder}' needs CPU features that this machine lacks: "
            f"{', '.join(missing)}; compile the model for this machine (`planish targets`)"
        )


def _cpu_flags() -> frozenset[str]:
    """Give the flags of /proc/cpuinfo that every CPU has; none where there is no such file."""
    common: set[str] | None = None
    seen: set[str] = set()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip().lower() in ("flags", "features") and value not in seen:
                    seen.add(value)  # nearly always one text for all CPUs: split it once
                    flags = set(value.split())
                    common = flags if common is None else common & flags
    except OSError:
        return frozenset()
    return frozenset(common or ())


def read_checked(path: Path, info: FileInfo) -> bytes:
    """Read a file whole. Raises ArtefactError unless size and SHA-256 are as the manifest says."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"cannot read '{path}': {error.strerror}; copy the artefact again"
        ) from error
    if len(content) != info.bytes or hashlib.sha256(content).hexdigest() != info.sha256:
        raise changed(path)
    return content


def check_file(path: Path, info: FileInfo, *, content: bool) -> None:
    """Raise ArtefactError unless a file has its size and, where `content` is set, its SHA-256."""
    try:
        size = path.stat().st_size
        if size != info.bytes:
            raise ArtefactError(
                f"'{path}' has {size} bytes, expected {info.bytes}; copy the artefact again"
            )
        if content:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != info.sha256:
                    raise changed(path)
    except OSError as error:
        raise ArtefactError(
            f"cannot read '{path}': {error.strerror}; copy the artefact again"
        ) from error


def changed(path: Path) -> ArtefactError:
    """Give the error for a file that is not the one that was written."""
    return ArtefactError(
        f"'{path}' was changed after it was written (its SHA-256 differs from the manifest's); "
        "copy the artefact again or recompile it"
    )


_POINTER, _TEXT, _STATUS = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "open": (_STATUS, [_TEXT, _POINTER]),
    "close": (None, [_POINTER]),
    "context_create": (_STATUS, [_POINTER, ctypes.c_int, _POINTER]),
    "context_destroy": (None, [_POINTER]),
    "context_threads": (ctypes.c_int, [_POINTER]),
    "run_threads": (_STATUS, [_POINTER, ctypes.c_int, _POINTER, _POINTER]),
    "trace": (_STATUS, [_POINTER, _POINTER, _POINTER, _POINTER, _POINTER]),
    "error": (_TEXT, []),
    "kernel_count": (ctypes.c_int, []),
    "kernel_name": (_TEXT, [ctypes.c_int]),
}
"""The functions of <name>.h that Python calls: result and arguments."""


class Library:
    """A loaded library and its C functions, as attributes c_open, c_trace, ...

    It is unloaded when the last reference to it is gone.
    """

    def __init__(self, name: str, code: bytes) -> None:
        dll = load_code(name, code)
        # Not at exit: threads may still be running the code then, and the system cleans up.
        weakref.finalize(self, _unload, dll._handle).atexit = False
        try:
            for function, (result, arguments) in _FUNCTIONS.items():
                entry = getattr(dll, f"{name}_{function}")
                entry.restype, entry.argtypes = result, arguments
                setattr(self, f"c_{function}", entry)
        except AttributeError as error:
            raise ArtefactError(
                f"the library of '{name}' has another C interface than this planish: {error}; "
                "compile the model again"
            ) from None

    def __getattr__(self, attribute: str) -> Callable[..., Any]:
        raise AttributeError(attribute)  # never called; tells a type checker what c_... are

    def error(self) -> str:
        """Give the text of this thread's last error."""
        text: bytes = self.c_error()
        return text.decode("utf-8", "replace")


def _unload(handle: int) -> None:
    with loading:
        _ctypes.dlclose(handle)


_loaded: weakref.WeakValueDictionary[tuple[str, str], Library] = weakref.WeakValueDictionary()


def load_library(path: Path, manifest: Manifest) -> Library:
    """Load a library whose bytes are those of the manifest; the same bytes are loaded once."""
    files: Mapping[str, FileInfo] = manifest.files
    info = files[manifest.library]
    code = read_checked(path / manifest.library, info)
    with loading:
        key = (manifest.name, info.sha256)
        library = _loaded.get(key)
        if library is None:
            library = _loaded[key] = Library(manifest.name, code)
        return library
