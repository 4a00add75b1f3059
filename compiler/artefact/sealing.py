"""The seal at the end of weights.bin, by which a library knows its weights.

Behind the weights, and zeros up to a multiple of 64, stand 32 bytes of text and the SHA-256 of all
bytes before. The library holds the same digest, and opens no other file (see weights.c of
targets/runtime). A file without weights is empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from planish.ir.errors import ArtefactError

Buffer = bytes | bytearray | memoryview
WeightBlock = tuple[int, Buffer]
"""Where a weight begins in weights.bin (bytes), and its bytes; numpy: `array.data`, contiguous."""

_TEXT = b"planish weights, SHA-256 before\0"
_SEAL_BYTES = len(_TEXT) + 32
_ALIGNMENT = 64
_ZEROS = bytes(1 << 16)


def sealed_bytes(weights_bytes: int) -> int:
    """Give the size of the file for so many bytes of weights."""
    return weights_bytes and _seal_begin(weights_bytes) + _SEAL_BYTES


def _seal_begin(weights_bytes: int) -> int:
    return -(-weights_bytes // _ALIGNMENT) * _ALIGNMENT


def seal(weights: Iterable[WeightBlock], weights_bytes: int) -> tuple[str, list[WeightBlock]]:
    """Give the digest of the weights, in hexadecimal, and the blocks of the file: these and a seal.

    Blocks come in ascending order, gaps are zeros. Raises ArtefactError for those that do not fit.
    """
    blocks = list(weights)
    begin = _seal_begin(weights_bytes)
    sha256 = hashlib.sha256()
    for part in filled(blocks, weights_bytes):
        sha256.update(part)
    sha256.update(bytes(begin - weights_bytes))
    if weights_bytes:
        blocks.append((begin, _TEXT + sha256.digest()))
    return sha256.hexdigest(), blocks


def filled(blocks: Iterable[WeightBlock], total: int) -> Iterator[Buffer]:
    """Give the bytes of a file in order, with zeros where no block lies."""
    at = 0
    for offset, block in blocks:
        view = memoryview(block)
        if view.nbytes == 0:
            continue
        if offset < at or offset + view.nbytes > total:
            raise ArtefactError(
                f"a weight at bytes {offset} to {offset + view.nbytes} does not fit: the one "
                f"before ends at {at}, the file at {total}"
            )
        yield from _zeros(offset - at)
        yield view.cast("B") if view.ndim != 1 or view.format != "B" else view
        at = offset + view.nbytes
    yield from _zeros(total - at)


def _zeros(count: int) -> Iterator[Buffer]:
    while count > 0:
        yield memoryview(_ZEROS)[: min(count, len(_ZEROS))]
        count -= len(_ZEROS)
