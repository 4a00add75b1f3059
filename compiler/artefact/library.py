"""The library of an artefact in this process: its bytes checked, loaded once, called by ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import dataclasses
import platform
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planish.artefact.code import load_code
from planish.artefact.folder import OpenFolder
from planish.artefact.format import Manifest, TensorInfo
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


_POINTER, _TEXT, _STATUS = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int


class _Tensor(ctypes.Structure):
    """The struct <name>_tensor of the C interface."""

    _fields_ = (
        ("name", _TEXT),
        ("dtype", _TEXT),
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_uint64),
    )


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "open_file": (_STATUS, [ctypes.c_int, ctypes.c_int, _POINTER]),
    "close": (None, [_POINTER]),
    "context_create": (_STATUS, [_POINTER, ctypes.c_int, _POINTER]),
    "context_destroy": (None, [_POINTER]),
    "context_threads": (ctypes.c_int, [_POINTER]),
    "run_threads": (_STATUS, [_POINTER, ctypes.c_int, _POINTER, _POINTER]),
    "trace": (_STATUS, [_POINTER, _POINTER, _POINTER, _POINTER, _POINTER]),
    "error": (_TEXT, []),
    "kernel_count": (ctypes.c_int, []),
    "kernel_name": (_TEXT, [ctypes.c_int]),
    "input_count": (ctypes.c_int, []),
    "input": (ctypes.POINTER(_Tensor), [ctypes.c_int]),
    "output_count": (ctypes.c_int, []),
    "output": (ctypes.POINTER(_Tensor), [ctypes.c_int]),
    "weights_bytes": (ctypes.c_uint64, []),
    "arena_bytes": (ctypes.c_uint64, []),
}
"""The functions of <name>.h that Python calls: result and arguments."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a library's own tables say, and its manifest has to say as well."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    kernels: int
    weights_bytes: int
    arena_bytes: int


def _tensor_info(found: Any) -> TensorInfo:
    tensor = found.contents
    name, dtype = (text.decode("utf-8", "surrogateescape") for text in (tensor.name, tensor.dtype))
    return TensorInfo(name, dtype, tuple(tensor.shape[: tensor.rank]))


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

    def signature(self) -> Signature:
        """Give what the library was linked for."""
        return Signature(
            tuple(map(_tensor_info, map(self.c_input, range(self.c_input_count())))),
            tuple(map(_tensor_info, map(self.c_output, range(self.c_output_count())))),
            self.c_kernel_count(),
            self.c_weights_bytes(),
            self.c_arena_bytes(),
        )

    def error(self) -> str:
        """Give the text of this thread's last error."""
        text: bytes = self.c_error()
        return text.decode("utf-8", "replace")


def _unload(handle: int) -> None:
    with loading:
        _ctypes.dlclose(handle)


_loaded: weakref.WeakValueDictionary[tuple[str, str], Library] = weakref.WeakValueDictionary()


def load_library(folder: OpenFolder, manifest: Manifest) -> Library:
    """Load a library whose bytes are those of the manifest; the same bytes are loaded once.

    Raises ArtefactError where they are not, or the library's interface is another.
    """
    info = manifest.files[manifest.library]
    code = folder.read_checked(manifest.library, info)
    with loading:
        key = (manifest.name, info.sha256)
        library = _loaded.get(key)
        if library is None:
            library = _loaded[key] = Library(manifest.name, code)
    _check_signature(library.signature(), manifest, folder.path)
    return library


def _check_signature(found: Signature, manifest: Manifest, folder: Path) -> None:
    """Raise ArtefactError where a manifest describes another library: no array would be safe."""
    told = Signature(
        manifest.inputs,
        manifest.outputs,
        len(manifest.kernels),
        manifest.weights_bytes,
        manifest.arena_bytes,
    )
    for field in dataclasses.fields(Signature):
        expected, got = getattr(told, field.name), getattr(found, field.name)
        if expected != got:
            raise ArtefactError(
                f"the manifest of '{folder}' and its library differ in "
                f"{field.name.replace('_', ' ')}: {_spell(expected)} and {_spell(got)}; copy the "
                "artefact again or recompile it"
            )


def _spell(value: int | tuple[TensorInfo, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    listed = ", ".join(f"{t.name!a} {t.dtype} {list(t.shape)}" for t in value)
    return f"({listed if len(listed) <= 200 else listed[:197] + '...'})"
