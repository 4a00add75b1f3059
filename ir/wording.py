"""How messages spell the options of a compilation: as Python has them, or the command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_ON_COMMAND_LINE: ContextVar[bool] = ContextVar("on_command_line", default=False)

#: Name in Python → on the command line.
_FLAGS = {"dims": "--dim", "shapes": "--shape", "target": "--target"}


@contextmanager
def on_command_line() -> Iterator[None]:
    """Messages that are made inside speak of flags."""
    token = _ON_COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _ON_COMMAND_LINE.reset(token)


def spell_option(name: str) -> str:
    """An option without a value: `dims=…` or `--dim`."""
    return _FLAGS[name] if _ON_COMMAND_LINE.get() else f"{name}=…"


def spell_dims(sizes: Mapping[str, int]) -> str:
    """Sizes of dimensions: `dims={'batch': 1}` or `--dim batch=1`, as they would be typed."""
    if _ON_COMMAND_LINE.get():
        return " ".join(f"--dim {shlex.quote(f'{name}={size}')}" for name, size in sizes.items())
    return f"dims={dict(sizes)!r}"


def spell_shape(name: str, shape: Sequence[int | str] | None = None) -> str:
    """The shape of an input, or any: `shapes={'x': (1, 3)}` or `--shape x=1,3`."""
    if _ON_COMMAND_LINE.get():
        sizes = "…" if shape is None else ",".join(map(str, shape))
        return f"--shape {shlex.quote(f'{name}={sizes}') if shape is not None else f'{name}=…'}"
    return f"shapes={{{name!r}: {'…' if shape is None else repr(tuple(shape))}}}"


def fix_by_dims(what: str = "it") -> str:
    """Advice where a dimension is open that must not be."""
    return f"fix {what} by {spell_option('dims')}"
