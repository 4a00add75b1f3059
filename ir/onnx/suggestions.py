"""Sizes to suggest for open dimensions: batch 1, images of 224, sequences of 128.

A suggestion is a guess from names, ranks and places; the importer tries it before it is made.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence

from planish.ir.dim import substitute
from planish.ir.errors import InvalidModel
from planish.ir.onnx.declared import Declared
from planish.ir.types import TensorType

#: Seconds for trying sizes.
_TRYING_SECONDS = 5.0

#: Sizes of images, sequences and all else in the order in which they are tried: weights behind a
#: Flatten, or learned positions, may allow one of them only.
_IMAGES = (224, 32, 28, 256, 299, 512, 64, 640)
_SEQUENCES = (128, 16, 512, 77)
_CHANNELS = (3, 1)
#: Samples of a waveform: a second at 16 kHz.
_SAMPLES = 16000
#: Channels that an image may have, and what tells NHWC from NCHW.
_IMAGE_CHANNELS = (1, 3, 4)

_WORDS = {
    "batch": re.compile(r"batch|^n$|^b$|^bs$|^bsz$|^num_samples$"),
    "past": re.compile(r"past|cache"),
    "image": re.compile(r"height|width|^h$|^w$|image|pixel|resolution"),
    "channel": re.compile(r"channel|^c$"),
    "samples": re.compile(r"samples|waveform|audio"),
    "sequence": re.compile(r"seq|len|time|frame|token|step|word|^s$|^t$|^l$"),
}


def try_sizes(
    declared: Sequence[Declared],
    types: Sequence[TensorType | None],
    use: Callable[[Sequence[TensorType]], object],
) -> dict[str, int]:
    """The first suggestion for what is symbolic in `types` that `use` takes, else the first of all.

    `use` raises InvalidModel for types that do not fit; other errors go through. It is not asked
    where the rank of an input (None) is not known.
    """
    known = [type_ for type_ in types if type_ is not None]
    first: dict[str, int] = {}
    until = time.monotonic() + _TRYING_SECONDS
    for sizes in suggestions(declared):
        first = first or sizes
        if len(known) < len(types) or time.monotonic() > until:
            break
        try:
            use([_fixed(type_, sizes) for type_ in known])
        except InvalidModel:
            continue  # these sizes are not the model's
        return sizes
    return first


def _fixed(type_: TensorType, sizes: dict[str, int]) -> TensorType:
    return TensorType(type_.dtype, tuple(substitute(dim, sizes) for dim in type_.shape))


def suggestions(declared: Sequence[Declared]) -> Iterator[dict[str, int]]:
    """Sizes for all open dimensions by name, the likeliest first."""
    kinds: dict[str, str] = {}
    for by_name in (True, False):  # what a name says counts more than a place
        for entry in declared:
            for axis, dim in enumerate(entry.dims or ()):
                if isinstance(dim, str) and dim not in kinds:
                    kind = _by_name(dim, entry.name) if by_name else _by_place(entry, axis)
                    if kind:
                        kinds[dim] = kind
    tried = max((len(_sizes(kind)) for kind in kinds.values()), default=1)
    for turn in range(tried):
        yield {dim: _sized(dim, kind, turn) for dim, kind in kinds.items()}


def _sizes(kind: str) -> tuple[int, ...]:
    return {
        "image": _IMAGES,
        "sequence": _SEQUENCES,
        "past": _SEQUENCES,
        "samples": (_SAMPLES,),
        "channel": _CHANNELS,
        "frames": (16, 8),
    }.get(kind, (1,))


def _sized(dim: str, kind: str, turn: int) -> int:
    """The size of a dimension in a turn; a sum such as "past + sequence" is that of its parts."""
    parts = [part.strip() for part in dim.split("+")]
    if len(parts) > 1:
        return sum(
            int(part)
            if part.isdecimal() and len(part) < 10
            else _sized(part, _by_name(part, "") or kind, turn)
            for part in parts
        )
    sizes = _sizes(kind)
    return sizes[min(turn, len(sizes) - 1)]


def _by_name(dim: str, owner: str) -> str:
    if dim.startswith(f"{owner}."):  # it has no name of its own
        return ""
    lower = dim.lower()
    return next((kind for kind, word in _WORDS.items() if word.search(lower)), "")


def _by_place(entry: Declared, axis: int) -> str:
    dims = entry.dims or ()
    rank = len(dims)
    if axis == 0:
        return "batch"
    if rank == 4:
        last = dims[3] in _IMAGE_CHANNELS and dims[1] not in _IMAGE_CHANNELS
        return "channel" if axis == (3 if last else 1) else "image"
    if rank == 5:
        return {1: "channel", 2: "frames"}.get(axis, "image")
    if rank == 2 and entry.dtype.is_float and _WORDS["samples"].search(entry.name.lower()):
        return "samples"
    return "sequence"
