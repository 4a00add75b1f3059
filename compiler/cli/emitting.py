"""`planish compile --emit`: the kernels' code for people to read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from planish.cli.terminal import say
from planish.custom import custom_ops
from planish.ir.errors import PlanishError
from planish.ir.extension import extended
from planish.ir.graph import Graph
from planish.ir.target import Target
from planish.targets.codegen import build_assembly, build_llvm, print_tir
from planish.targets.emit import KernelCode, kernel_code

#: Kind → how it is spelled, the ending of its files, and what begins a comment.
KINDS = {
    "tir": (print_tir, ".py", "#"),
    "llvm": (build_llvm, ".ll", ";"),
    "asm": (build_assembly, ".s", "#"),
}


@dataclass(frozen=True, slots=True)
class Emission:
    """What is asked for: a kind of KINDS, of one kernel or all (""), into a folder or to stdout."""

    kind: str
    kernel: str
    folder: Path | None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PlanishError(f"--emit {self.kind} is none of {', '.join(KINDS)}")
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise PlanishError(f"--emit-to {self.folder} is a file; name a folder")


def emit_kernels(
    emission: Emission, graph: Graph, target: Target, ops: Sequence[str], *, as_json: bool
) -> list[dict[str, object]]:
    """Writes or prints the code of scheduled kernels; gives it, or the files, for JSON."""
    spell, ending, comment = KINDS[emission.kind]
    told: list[dict[str, object]] = []
    with extended(custom_ops(ops)):
        for code in kernel_code(graph, target, spell, emission.kernel):
            heading = _heading(code, comment)
            entry: dict[str, object] = {
                "symbol": code.symbol,
                "kernels": list(code.names),
                "onnx_nodes": list(code.onnx_nodes),
            }
            if emission.folder is not None:
                path = emission.folder / f"{code.symbol}{ending}"
                _write(path, f"{heading}\n{code.text}")
                entry["file"] = str(path)
            else:
                entry["code"] = code.text
                if not as_json:
                    say(f"{heading}\n{code.text}")
            told.append(entry)
    if emission.folder is not None and not as_json:
        say(f"{emission.kind} of {len(told)} kernels is in {emission.folder}")
    return told


def _heading(code: KernelCode, comment: str) -> str:
    nodes = ", ".join(map(repr, code.onnx_nodes)) or "no ONNX node"
    return f"{comment} {code.symbol}: kernel {', '.join(code.names)}, from {ascii(nodes)[1:-1]}"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip(os.linesep) + "\n", encoding="utf-8")
    except OSError as error:
        raise PlanishError(f"cannot write '{path}': {error.strerror}") from None
