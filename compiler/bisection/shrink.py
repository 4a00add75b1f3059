"""The smallest part of a list that still shows something (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shrink(
    items: Sequence[Item], shows: Callable[[Sequence[Item]], bool], *, most: int = 400
) -> list[Item]:
    """A part of `items`, in order, for which `shows` holds, and of which no item can be left out.

    `items` must show it. Removes chunks, ever smaller ones (Zeller and Hildebrandt, "Simplifying
    and isolating failure-inducing input", 2002, without its test of the chunks alone). Calls
    `shows` at most `most` times, and gives what it has then.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    calls = 0
    while len(kept) > 1 and calls < most:
        start, removed = 0, False
        while start < len(kept) and calls < most:
            rest = kept[:start] + kept[start + size :]
            calls += 1
            if rest and shows(rest):
                kept, removed = rest, True
            else:
                start += size
        if size == 1 and not removed:
            break
        size = max(1, min(size // 2, len(kept) // 2)) if not removed or size > 1 else 1
    return kept
