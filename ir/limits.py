"""What a model may not exceed. Sizes in a model are what its author wrote, who may be hostile.

The importer checks them once, for all tensors that it makes; nothing below it checks again, except
`planish.passes.pipeline` for the tensors that passes make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planish.ir.dim import DimLike
    from planish.ir.types import TensorType

#: Elements of a tensor. Kernels count elements, and loops over them, in 32 bits: a little is left
#: for the last block of a loop that is split. Bytes are counted in 64 bits.
MOST_ELEMENTS = 2**31 - 2**16

#: Dimensions of a tensor. numpy knows 64, and Tile passes through twice as many as its input has.
MOST_DIMENSIONS = 32

#: Bytes of a tensor that the import computes (Range, EyeLike, the mask of Trilu, a folded shape).
MOST_COMPUTED_BYTES = 2**28

#: Nodes in the bodies of all calls of functions; 25 functions that each call the next one twice
#: would be 2^25.
MOST_EXPANDED_NODES = 250_000

#: Terms of the expression of a dimension, factors of a term, bits of a number in it, characters of
#: its text: products of sums, and squares of squares, double them with each node.
MOST_TERMS = 1000
MOST_FACTORS = 64
MOST_BITS = 1024
MOST_TEXT = 100_000

#: Calls of functions, and branches, inside each other.
MOST_NESTED = 10_000


def excess(type_: TensorType) -> str | None:
    """What of a tensor type is beyond the limits, in words; None if it is within them.

    An empty tensor is judged by its other dimensions: numpy multiplies those as well.
    """
    if type_.rank > MOST_DIMENSIONS:
        return f"a tensor of {type_.rank} dimensions; {MOST_DIMENSIONS} are the most"
    elements = 1
    for dim in type_.shape:
        elements *= max(1, dim) if isinstance(dim, int) else 1
    if elements > MOST_ELEMENTS:
        return f"{_spell(type_)}, a tensor of more than {MOST_ELEMENTS:,} elements"
    return None


def computed_excess(type_: TensorType) -> str | None:
    """As `excess`, for a static tensor that is computed while a model is imported."""
    found = excess(type_)
    if found is None and type_.nbytes > MOST_COMPUTED_BYTES:
        return f"{type_} when compiling, more than {MOST_COMPUTED_BYTES >> 20} MiB"
    return found


def _spell(type_: TensorType) -> str:
    """The type with huge numbers shortened."""

    def dim(size: DimLike) -> str:
        text = str(size)
        return text if len(text) <= 40 else f"{text[:20]}…"

    return f"{type_.dtype.value}[{', '.join(map(dim, type_.shape))}]"
