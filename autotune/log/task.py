"""What a log calls a kernel: a digest that its names are no part of, and a few words."""

from __future__ import annotations

from planish.ir.digest import digest
from planish.ir.graph import Node


def task_digest(kernel: Node) -> str:
    """SHA-256 (hex) of what the kernel computes; its name, provenance and schedule do not count."""
    return digest(kernel.regions[0])


def describe(kernel: Node) -> str:
    """The kernel for people: "blocked_conv+relu float32[1, 4, 56, 56, 16]"."""
    ops = [node.op for node in kernel.regions[0].nodes]
    told = "+".join(ops[:4]) + (f"+{len(ops) - 4} more" if len(ops) > 4 else "")
    return f"{told} {kernel.outputs[0].type}"
