"""The artefact folder on disk: its manifest, writing it whole or not at all, reading it back.

    manifest.json   what the artefact is, and the SHA-256 of every other file
    lib<name>.so    kernels and runtime
    <name>.h        the C interface
    weights.bin     memory-mapped when the model is opened; it ends with a seal (see sealing)

Standard library only: this is read where no compiler is installed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planish.artefact.folder import OpenFolder
from planish.artefact.sealing import sealed_bytes
from planish.ir.errors import ArtefactError

FORMAT = "planish-artefact"
FORMAT_VERSION = 3
MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"

Json = dict[str, Any]

# What no artefact exceeds: a hostile one must not make its reader allocate or count without end.
_MOST_BYTES = 1 << 30
"""Of a file that is read whole."""
_LARGEST = 2**63 - 1
_MOST_DIMENSIONS = 64  # numpy's own
_WIDEST = 8
"""Bytes of the widest element."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: the model's name for it, numpy's dtype name, the shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KernelInfo:
    """A kernel call: the ONNX nodes and ops that it came from, its work and traffic.

    `lane` is (group, lane) for a call that is made beside others: the calls of a group are one
    launch, those of a lane follow each other on one thread.
    """

    name: str
    onnx_nodes: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    flops: int = 0
    bytes: int = 0
    lane: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a file must be: its size in bytes and the SHA-256 of its content, in hexadecimal."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that manifest.json says; `files` is filled in by write_artefact.

    `name` prefixes the C interface. `architecture` is as `uname -m` spells it. `features` maps the
    required CPU features, by LLVM's name, to their flags in /proc/cpuinfo. `glibc` is the oldest
    version that loads the library; empty where it was linked with another C library.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    kernels: tuple[KernelInfo, ...]
    architecture: str
    features: Mapping[str, str] = field(default_factory=dict)
    glibc: str = ""
    target: Json = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    verify: Json = field(default_factory=dict)
    weights_bytes: int = 0
    arena_bytes: int = 0
    files: Mapping[str, FileInfo] = field(default_factory=dict)

    @property
    def library(self) -> str:
        """File name of the library."""
        return f"lib{self.name}.so"

    @property
    def header(self) -> str:
        """File name of the C header."""
        return f"{self.name}.h"

    @property
    def threads(self) -> int | None:
        """How many threads the kernels were made for; None where that is not told."""
        cores = self.target.get("cores")
        return cores if type(cores) is int else None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: equal digests mean equal artefacts."""
        return digest_of(to_json(self))


def canonical(content: Json) -> bytes:
    """Give the one JSON text of some content: sorted keys, no spaces, ASCII."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def digest_of(content: Json) -> str:
    """Give the SHA-256, in hexadecimal, of a manifest's canonical JSON without its own digest."""
    return hashlib.sha256(
        canonical({k: v for k, v in content.items() if k != "digest"})
    ).hexdigest()


def to_json(manifest: Manifest) -> Json:
    """Turn a manifest into what stands in manifest.json, but for the digest."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": manifest.name,
        "inputs": [_tensor_json(tensor) for tensor in manifest.inputs],
        "outputs": [_tensor_json(tensor) for tensor in manifest.outputs],
        "cpu": {"architecture": manifest.architecture, "features": dict(manifest.features)},
        "glibc": manifest.glibc,
        "target": manifest.target,
        "versions": dict(manifest.versions),
        "options": manifest.options,
        "verify": manifest.verify,
        "weights_bytes": manifest.weights_bytes,
        "arena_bytes": manifest.arena_bytes,
        "files": {
            name: {"bytes": info.bytes, "sha256": info.sha256}
            for name, info in sorted(manifest.files.items())
        },
        "kernels": [_kernel_json(kernel) for kernel in manifest.kernels],
    }


def _tensor_json(tensor: TensorInfo) -> Json:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _kernel_json(kernel: KernelInfo) -> Json:
    return {
        "name": kernel.name,
        "onnx_nodes": list(kernel.onnx_nodes),
        "ops": list(kernel.ops),
        "flops": kernel.flops,
        "bytes": kernel.bytes,
        "lane": None if kernel.lane is None else list(kernel.lane),
    }


def render(content: Json) -> bytes:
    """Give the text of manifest.json, its digest included: the same content gives the same bytes.

    Raises ArtefactError for content that JSON cannot hold (NaN, a numpy number, an object).
    """
    try:
        signed = {**content, "digest": digest_of(content)}
        return (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode("ascii")
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"the manifest holds something that JSON cannot: {error}") from error


def read_manifest(folder: Path) -> Manifest:
    """Read and check manifest.json; the other files are not looked at.

    Raises ArtefactError where it is missing, of another format version, damaged or edited.
    """
    with OpenFolder(folder) as opened:
        return manifest_of(opened)


def manifest_of(folder: OpenFolder) -> Manifest:
    """Read and check the manifest of an open folder; raises what read_manifest does."""
    path = folder.path / MANIFEST
    if not folder.holds(MANIFEST):
        raise ArtefactError(
            f"'{folder.path}' has no {MANIFEST}, so it is not an artefact; choose the folder of one"
        )
    text = folder.read(MANIFEST, _MOST_BYTES)
    content = parse_json(text)
    if content is None or content.get("format") != FORMAT:
        raise ArtefactError(f"'{path}' is damaged, or not planish's; compile the model again")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ArtefactError(
            f"'{folder.path}' has artefact format {_shown(version)}, this planish reads "
            f"{FORMAT_VERSION}; compile the model again, or load it with the planish that compiled "
            "it"
        )
    # Compared as text, so that no changed byte passes, not even one that JSON ignores.
    if render_again(content) != text:
        raise ArtefactError(
            f"'{path}' was changed after it was written; copy the artefact again or recompile it"
        )
    return parse_manifest(content, path)


def parse_json(text: bytes) -> Json | None:
    """Parse a JSON object; None for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def render_again(content: Json) -> bytes | None:
    """Render parsed content with the digest that is right; None where JSON cannot hold it."""
    try:
        return render({k: v for k, v in content.items() if k != "digest"})
    except (ArtefactError, RecursionError):
        return None


def parse_manifest(content: Json, path: Path) -> Manifest:
    """Turn JSON content into a Manifest. Raises ArtefactError that names the field at fault."""
    reader = _Reader(path)
    cpu = reader.get(content, "cpu", dict)
    manifest = Manifest(
        name=reader.get(content, "name", str),
        inputs=reader.tensors(content, "inputs"),
        outputs=reader.tensors(content, "outputs"),
        kernels=tuple(reader.kernel(item) for item in reader.get(content, "kernels", list)),
        architecture=reader.get(cpu, "architecture", str),
        features=reader.texts(cpu, "features"),
        glibc=reader.get(content, "glibc", str) if "glibc" in content else "",
        target=reader.get(content, "target", dict),
        versions=reader.texts(content, "versions"),
        options=reader.get(content, "options", dict),
        verify=reader.get(content, "verify", dict),
        weights_bytes=reader.size(content, "weights_bytes"),
        arena_bytes=reader.size(content, "arena_bytes"),
        files=reader.files(content),
    )
    if not _NAME.match(manifest.name):
        raise reader.fault("name", manifest.name)
    # The names become paths: only the three that an artefact has are ever opened.
    if set(manifest.files) != {manifest.library, manifest.header, WEIGHTS}:
        raise reader.fault("files", sorted(manifest.files))
    if manifest.files[WEIGHTS].bytes != sealed_bytes(manifest.weights_bytes):
        raise reader.fault("weights_bytes", manifest.weights_bytes)
    for name in (manifest.library, manifest.header):
        if manifest.files[name].bytes > _MOST_BYTES:
            raise reader.fault("bytes", manifest.files[name].bytes)
    return manifest


def _shown(found: object) -> str:
    """Give a value of JSON for a message, whatever it is and however long."""
    shown = ascii(found)
    return shown if len(shown) <= 80 else shown[:77] + "..."


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes typed fields out of JSON; the path is for its errors."""

    path: Path

    def fault(self, key: str, found: object) -> ArtefactError:
        return ArtefactError(
            f"'{self.path}' has {_shown(found)} as '{key}'; it was not written by this planish: "
            "recompile"
        )

    def get(self, content: Any, key: str, kind: type) -> Any:
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fault(key, value)
        return value

    def size(self, content: Any, key: str) -> int:
        value: int = self.get(content, key, int)
        if not 0 <= value <= _LARGEST:
            raise self.fault(key, value)
        return value

    def texts(self, content: Any, key: str) -> dict[str, str]:
        value: dict[str, str] = self.get(content, key, dict)
        if not all(isinstance(text, str) for text in value.values()):
            raise self.fault(key, value)
        return value

    def words(self, content: Any, key: str) -> tuple[str, ...]:
        value: list[str] = self.get(content, key, list)
        if not all(isinstance(word, str) for word in value):
            raise self.fault(key, value)
        return tuple(value)

    def tensors(self, content: Any, key: str) -> tuple[TensorInfo, ...]:
        return tuple(self.tensor(item) for item in self.get(content, key, list))

    def tensor(self, content: Any) -> TensorInfo:
        shape = self.get(content, "shape", list)
        if any(type(dim) is not int or not 0 <= dim <= _LARGEST for dim in shape):
            raise self.fault("shape", shape)
        if len(shape) > _MOST_DIMENSIONS or math.prod(shape) * _WIDEST > _LARGEST:
            raise self.fault("shape", shape)
        name, dtype = self.get(content, "name", str), self.get(content, "dtype", str)
        return TensorInfo(name, dtype, tuple(shape))

    def kernel(self, content: Any) -> KernelInfo:
        return KernelInfo(
            self.get(content, "name", str),
            self.words(content, "onnx_nodes"),
            self.words(content, "ops"),
            self.size(content, "flops"),
            self.size(content, "bytes"),
            self.lane(content),
        )

    def lane(self, content: Any) -> tuple[int, int] | None:
        value = content.get("lane")
        if value is None:
            return None
        if not isinstance(value, list) or [type(n) for n in value] != [int, int]:
            raise self.fault("lane", value)
        if not all(0 <= number <= _LARGEST for number in value):
            raise self.fault("lane", value)
        return value[0], value[1]

    def files(self, content: Any) -> dict[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        for name, item in self.get(content, "files", dict).items():
            info = FileInfo(self.size(item, "bytes"), self.get(item, "sha256", str))
            if not _SHA256.match(info.sha256):
                raise self.fault("sha256", info.sha256)
            found[name] = info
        return found
