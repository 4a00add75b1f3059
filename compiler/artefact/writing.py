"""Writing an artefact: beside its place first, then into it in one step."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from planish.artefact.format import (
    FORMAT,
    MANIFEST,
    WEIGHTS,
    FileInfo,
    Manifest,
    parse_json,
    parse_manifest,
    render,
    to_json,
)
from planish.artefact.sealing import Buffer, WeightBlock, filled, sealed_bytes
from planish.ir.errors import ArtefactError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_BLOCK = 1 << 20


def write_artefact(
    folder: Path,
    manifest: Manifest,
    *,
    library: Path,
    header: Path,
    weights: Iterable[WeightBlock] = (),
) -> Manifest:
    """Write a whole artefact, or nothing; an artefact that is there already is replaced.

    `library` and `header` are copied; `weights` are sealed (see `sealing`). The manifest is
    completed with the files' hashes and returned. Raises ArtefactError where the folder holds
    anything but an artefact, the disk fails, or the manifest has hashes already and they differ.
    """
    folder = Path(os.path.realpath(folder))
    check_replaceable(folder)
    with beside(folder) as work:
        work.mkdir()
        sources = {
            manifest.library: _file_blocks(library),
            manifest.header: _file_blocks(header),
            WEIGHTS: filled(weights, sealed_bytes(manifest.weights_bytes)),
        }
        files = {name: _write_file(work / name, blocks) for name, blocks in sources.items()}
        for name, info in manifest.files.items():
            if files[name] != info:
                raise ArtefactError(
                    f"'{name}' is not the file that was written with its manifest; it was replaced "
                    "meanwhile: load the artefact again"
                )
        complete = replace(manifest, files=files)
        text = render(to_json(complete))
        parsed = parse_json(text)
        assert parsed is not None
        parse_manifest(parsed, folder / MANIFEST)  # never write what could not be read
        _write_file(work / MANIFEST, [text])
        _sync(work)
        _put(work, folder)
        _sync(folder.parent)
    return complete


def copy_artefact(source: Path, folder: Path, manifest: Manifest) -> Manifest:
    """Write the files of an artefact into another folder, described by `manifest` (its own, or one
    that tells more of the verification). Takes and raises what write_artefact does.
    """
    blocks = _file_blocks(source / WEIGHTS)
    starts = itertools.count(0, _BLOCK)  # all blocks are whole but the last
    return write_artefact(
        folder,
        manifest,
        library=source / manifest.library,
        header=source / manifest.header,
        weights=zip(starts, blocks),
    )


def check_replaceable(folder: Path) -> None:
    """Raise ArtefactError unless an artefact can be put in place there: nothing is lost by it (the
    folder is missing, empty, or an artefact and nothing else), and the system will let it be."""
    folder = Path(os.path.realpath(folder))
    try:
        _check_content(folder)
        _check_place(folder)
    except OSError as error:
        raise ArtefactError(
            f"cannot write artefact '{folder}': {error.strerror} ('{error.filename}'); choose "
            "another place"
        ) from error


def _check_place(folder: Path) -> None:
    """A finished folder is moved to its place, which takes writing beside it: tried, not asked for,
    as permissions do not tell of all that a system may refuse."""
    home = folder.parent
    while not home.exists():
        home = home.parent
    probe = home / f".planish-probe-{secrets.token_hex(6)}"
    probe.mkdir()
    probe.rmdir()
    if not folder.exists():
        return
    if is_mount_point(folder):
        raise ArtefactError(
            f"'{folder}' is a mount point, which no folder can take the place of; choose a folder "
            f"inside it, such as '{folder / 'model'}'"
        )
    owner, here = os.geteuid(), folder.stat()
    sticky = folder.parent.stat().st_mode & stat.S_ISVTX
    others = owner not in (0, here.st_uid, folder.parent.stat().st_uid)
    if (sticky and others) or not os.access(folder, os.W_OK | os.X_OK):
        raise ArtefactError(
            f"'{folder}' is another user's, and cannot be replaced; choose another folder"
        )


def is_mount_point(folder: Path) -> bool:
    """Whether something is mounted there; also a folder of the same file system, as containers do,
    which os.path.ismount does not see."""
    if os.path.ismount(folder):
        return True
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return str(folder) in {_unescaped(mount.split()[4]) for mount in mounts}


def _unescaped(place: str) -> str:
    """A path of mountinfo, in which blanks are octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)


def _check_content(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ArtefactError(f"'{folder}' is a file; choose another place for the artefact")
    present = {entry.name for entry in folder.iterdir()}
    if not present:
        return
    try:
        content = parse_json((folder / MANIFEST).read_bytes())
    except OSError:
        content = None
    if content is None or content.get("format") != FORMAT:
        raise ArtefactError(
            f"'{folder}' exists and is not an artefact; choose another folder, or remove it first"
        )
    listed = content.get("files")
    foreign = present - {MANIFEST} - set(listed if isinstance(listed, dict) else ())
    if foreign:
        raise ArtefactError(
            f"'{folder}' also holds '{min(foreign)}', which is not part of the artefact and would "
            "be lost; move it, or choose another folder"
        )


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """Give a path on the file system of a folder; what lies there, and next to it, is gone
    afterwards, whatever happens. Raises ArtefactError where nothing can be written there."""
    from planish.ir.scratch import scratch_folder  # not for who only loads

    folder = Path(os.path.realpath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder.parent) as scratch:
            yield scratch / folder.name
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtefactError(f"cannot write artefact '{folder}': {reason}") from error


def _file_blocks(path: Path) -> Iterator[Buffer]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _write_file(path: Path, blocks: Iterable[Buffer]) -> FileInfo:
    sha256, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for block in blocks:
            file.write(block)
            sha256.update(block)
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    return FileInfo(size, sha256.hexdigest())


def _sync(folder: Path) -> None:
    with suppress(OSError):  # not every file system lets a folder be synchronised
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _put(work: Path, folder: Path) -> None:
    """Move the finished folder into its place; what was there ends up in `work`."""
    if not folder.exists() or not any(folder.iterdir()):
        work.replace(folder)
        return
    if _exchange(work, folder):
        return
    # A file system without exchange (NFS): for a moment, the place is empty.
    old = work.with_suffix(".old")
    folder.replace(old)
    try:
        work.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step: whoever reads meanwhile finds the old or the new one."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(first), os.fsencode(second)
    result: int = rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return result == 0
