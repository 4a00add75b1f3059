"""Options that several commands take, read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from planish.ir.errors import PlanishError


def parse_dims(options: Sequence[str]) -> dict[str, int]:
    """`["batch=1"]` → `{"batch": 1}`."""
    dims = {}
    for option in options:
        name, equals, size = option.rpartition("=")
        if not equals or not name or not size.isdecimal():
            raise PlanishError(f"--dim {option} is not NAME=NUMBER, e.g. --dim batch=1")
        dims[name] = int(size)
    return dims


def parse_shapes(options: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`["x=1,3"]` → `{"x": (1, 3)}`; `x=` is a scalar."""
    shapes = {}
    for option in options:
        name, equals, text = option.rpartition("=")
        sizes = text.split(",") if text else []
        if not equals or not name or not all(size.strip().isdecimal() for size in sizes):
            raise PlanishError(
                f"--shape {option} is not INPUT=N,N,…, e.g. --shape input=1,3,224,224"
            )
        shapes[name] = tuple(map(int, sizes))
    return shapes


def check_writable(*paths: Path | None) -> None:
    """PlanishError for a file that cannot be written, before the work whose result it is for."""
    for path in paths:
        if path is None:
            continue
        folder = path.parent
        if path.is_dir():
            raise PlanishError(f"'{path}' is a folder; name a file")
        if not folder.is_dir():
            raise PlanishError(f"cannot write '{path}': there is no folder '{folder}'; make it")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise PlanishError(f"cannot write '{path}': no permission; name another file")
