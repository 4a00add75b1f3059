"""What an ELF library asks of the system that loads it, read from the library itself.

Source: System V ABI, chapters 4 and 5; Linux Standard Base core, "Symbol Versioning".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from planish.ir.errors import TargetError

_LOAD, _DYNAMIC = 1, 2
_STRINGS, _NEEDED_VERSIONS, _NEEDED_VERSION_COUNT = 5, 0x6FFFFFFE, 0x6FFFFFFF


def needed_glibc(library: bytes) -> str:
    """The oldest glibc that loads a library, such as "2.17"; empty if it needs none by version.

    Raises TargetError where the bytes are no 64-bit little-endian ELF library.
    """
    versions = {version for names in needed_versions(library).values() for version in names}
    numbers = [
        tuple(map(int, found[1].split(".")))
        for version in versions
        if (found := re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", version))
    ]
    return ".".join(map(str, max(numbers))) if numbers else ""


def needed_versions(library: bytes) -> dict[str, list[str]]:
    """The versions of symbols that a library needs, by the library that has to have them.

    Raises TargetError where the bytes are no 64-bit little-endian ELF library.
    """
    try:
        return dict(_needed_versions(library))
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
        raise TargetError(f"the linker did not write an ELF library: {error}") from error


def _needed_versions(library: bytes) -> Iterator[tuple[str, list[str]]]:
    if library[:6] != b"\x7fELF\x02\x01":
        raise ValueError("it does not begin as a 64-bit little-endian one")
    headers = list(_program_headers(library))
    entries = dict(_dynamic(library, headers))
    if _NEEDED_VERSIONS not in entries:
        return
    strings = _place(headers, entries[_STRINGS])
    at = _place(headers, entries[_NEEDED_VERSIONS])
    for _ in range(entries[_NEEDED_VERSION_COUNT]):
        _, count, file, first, following = struct.unpack_from("<HHIII", library, at)
        names, auxiliary = [], at + first
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from("<IHHII", library, auxiliary)
            names.append(_string(library, strings + name))
            auxiliary += step
        yield _string(library, strings + file), names
        at += following


def _program_headers(library: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, offset in the file, address and bytes in the file of each segment."""
    (begin,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    for number in range(count):
        fields = struct.unpack_from("<IIQQQQ", library, begin + number * size)
        yield fields[0], fields[2], fields[3], fields[5]


def _dynamic(library: bytes, headers: list[tuple[int, int, int, int]]) -> Iterator[tuple[int, int]]:
    for kind, offset, _, size in headers:
        if kind == _DYNAMIC:
            if offset + size > len(library):
                raise ValueError("its dynamic section is not whole")
            yield from struct.iter_unpack("<QQ", library[offset : offset + size])


def _place(headers: list[tuple[int, int, int, int]], address: int) -> int:
    """Where in the file an address is."""
    for kind, offset, begin, size in headers:
        if kind == _LOAD and begin <= address < begin + size:
            return offset + address - begin
    raise ValueError(f"address {address:#x} is in no segment")


def _string(library: bytes, at: int) -> str:
    return library[at : library.index(0, at)].decode("ascii")
