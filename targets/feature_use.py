"""Which features of a CPU the code of a kernel uses, so that an artefact asks for no others.

A feature for narrow element types is given to the code generator only for kernels that have such
elements; whether it was used is then read in the assembly. All other features (vectors,
multiply-add, bit counts) come in the levels that CPUs have, and are given and asked for together:
code of any element type may use them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from tvm import ir, tirx
from tvm_ffi.structural import structural_walk

from planish.ir.target import Target

_HALF, _BRAIN, _BYTE = "half", "brain", "byte"

#: Element types by family. bool is none: it is stored in bytes, but nobody multiplies it.
_FAMILIES = {
    "float16": _HALF,
    "bfloat16": _BRAIN,
    "int8": _BYTE,
    "uint8": _BYTE,
    "int16": _BYTE,
    "uint16": _BYTE,
}

#: Architecture → feature → (family, what its instructions look like in LLVM's assembly).
#: Sources: Intel SDM volume 2, Arm ARM; a test has the assembler check that none is missed.
_GATED: dict[str, dict[str, tuple[str, str]]] = {
    "x86_64": {
        "f16c": (_HALF, r"vcvtph2ps\s|vcvtps2ph\s"),
        "avx512fp16": (
            _HALF,
            r"(?!vcvtph2ps\s|vcvtps2ph\s)v(?:cvt\w*(?:ph|sh)\w*|movw|\w*(?:ph|sh))\s",
        ),
        "avx512bf16": (_BRAIN, r"v\w*bf16\w*\s"),
        "avxvnni": (_BYTE, r"\{vex\}\s+vpdp\w+\s"),
        "avx512vnni": (_BYTE, r"vpdp\w+\s"),
        "avx512vbmi": (_BYTE, r"vperm(?:i2|t2)?b\s|vpmultishiftqb\s"),
    },
    "aarch64": {
        "fullfp16": (_HALF, r"(?!fcvt[ln]?2?\s)[fsu]\w+\s.*(?:\.[48]h\b|\bh\d+\b)"),
        "bf16": (_BRAIN, r"bf\w+\s"),
        "dotprod": (_BYTE, r"[su]dot\s"),
        "i8mm": (_BYTE, r"(?:us|su)dot\s|(?:s|u|us)mmla\s"),
    },
}


def element_families(func: tirx.PrimFunc) -> frozenset[str]:
    """The families of narrow types that a function computes with, loads or stores."""
    found: set[str] = set()

    def note(dtype: Any) -> None:
        family = _FAMILIES.get(str(dtype).split("x")[0])
        if family is not None:
            found.add(family)

    for buffer in func.params:
        note(buffer.dtype)
    structural_walk(
        func.body,
        [
            (ir.PrimType, lambda node: note(node.dtype)),  # of buffers and variables
            ((tirx.Cast, ir.Call), lambda node: note(node.ty)),
        ],
    )
    return frozenset(found)


def allowed(target: Target, families: Iterable[str]) -> Target:
    """The target with those of its features that code for these families of types may use."""
    gated, wanted = _GATED.get(target.arch, {}), frozenset(families)
    features = (name for name in target.features if name not in gated or gated[name][0] in wanted)
    return dataclasses.replace(target, features=tuple(features))


def forbidden(target: Target) -> tuple[str, ...]:
    """Features that LLVM may not use, though its name for the CPU may include them.

    On x86-64 there are none: its name is a level that has none of them, and switching one off
    switches off what includes it.
    """
    if target.arch != "aarch64":
        return ()
    return tuple(sorted(_GATED["aarch64"].keys() - set(target.features)))


def is_gated(target: Target) -> bool:
    """True if there is a feature among the target's that may be given and not used."""
    return any(name in _GATED.get(target.arch, {}) for name in target.features)


def used(target: Target, assembly: str) -> tuple[str, ...]:
    """The features of the target that code, as LLVM's assembly, needs."""
    gated = _GATED.get(target.arch, {})
    return tuple(
        name
        for name in target.features
        if name not in gated or re.search(rf"^\s+(?:{gated[name][1]})", assembly, re.MULTILINE)
    )
