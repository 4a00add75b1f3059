"""What tests ask of emitted assembly: its loops, and the instructions in them.

x86-64 in AT&T syntax (operands before the destination) and aarch64, as LLVM prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LABEL = re.compile(r"^([.\w$]+):")
_BRANCH = re.compile(r"^(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)$")
_X86_FMA = re.compile(r"^vfn?m(?:add|sub)\d{3}([ps][sd])$")
_X86_VECTOR = re.compile(r"%[xyz]mm\d+")
_X86_MEMORY = re.compile(r"[-\w.$]*\(([^)]*)\)")
_ARM_VECTOR = re.compile(r"^(?:[sdqv]\d+|\{ ?v\d+)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """A mnemonic and its operands, comma separated as they are printed."""

    mnemonic: str
    operands: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mnemonic} {', '.join(self.operands)}".rstrip()

    @property
    def is_arm_memory(self) -> bool:
        """True for a load or store of aarch64."""
        return any(operand.startswith("[") for operand in self.operands)

    @property
    def is_call(self) -> bool:
        """True for a call."""
        return self.mnemonic in ("call", "callq", "bl", "blr")

    @property
    def is_copy(self) -> bool:
        """True if it copies a vector to another register, which takes no unit of the core."""
        if self.mnemonic in ("vmovaps", "vmovups"):
            return all(operand.startswith("%") for operand in self.operands)
        return self.mnemonic == "mov" and self.operands[0].startswith("v")

    @property
    def is_vector_fma(self) -> bool:
        """True for a fused multiply-add of vectors."""
        found = _X86_FMA.match(self.mnemonic)
        if found:
            return found[1][0] == "p"
        return self.mnemonic in ("fmla", "fmls") and self.operands[0].startswith("v")

    @property
    def is_scalar_fma(self) -> bool:
        """True for a fused multiply-add of single numbers."""
        found = _X86_FMA.match(self.mnemonic)
        return bool(found and found[1][0] == "s") or self.mnemonic in ("fmadd", "fmsub", "fnmsub")

    @property
    def vector_loads(self) -> int:
        """Vectors (or numbers broadcast to one) that it loads from memory."""
        if self.is_arm_memory:
            if not self.mnemonic.startswith("ld") or not _ARM_VECTOR.match(self.operands[0]):
                return 0
            return 2 if self.mnemonic == "ldp" else 1
        if not self.operands or not self._x86_vector:
            return 0
        return int(any(_X86_MEMORY.search(operand) for operand in self.operands[:-1]))

    @property
    def vector_stores(self) -> int:
        """Vectors that it stores."""
        if self.is_arm_memory:
            if not self.mnemonic.startswith("st") or not _ARM_VECTOR.match(self.operands[0]):
                return 0
            return 2 if self.mnemonic == "stp" else 1
        return int(bool(self._x86_vector and _X86_MEMORY.search(self.operands[-1])))

    @property
    def is_spill(self) -> bool:
        """True if it moves a vector between a register and a fixed place of the stack.

        Buffers on the stack are indexed, or reached by another register than the stack pointer.
        """
        if self.is_arm_memory:
            place = self.operands[-1] if self.operands[-1].startswith("[") else self.operands[-2]
            fixed = bool(re.match(r"^\[sp(?:, #\d+)?\]$", place))
            return fixed and bool(_ARM_VECTOR.match(self.operands[0]))
        places = [_X86_MEMORY.search(operand) for operand in self.operands]
        return self._x86_vector and any(found and found[1] == "%rsp" for found in places)

    @property
    def _x86_vector(self) -> bool:
        return any(_X86_VECTOR.search(operand) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Loop:
    """An innermost loop: the instructions from a label to the jump back to it."""

    function: str
    instructions: tuple[Instruction, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.function}:", *(f"    {i}" for i in self.instructions)])

    @property
    def fmas(self) -> int:
        """Fused multiply-adds of vectors."""
        return sum(i.is_vector_fma for i in self.instructions)

    @property
    def scalar_fmas(self) -> int:
        """Fused multiply-adds of single numbers."""
        return sum(i.is_scalar_fma for i in self.instructions)

    @property
    def loads(self) -> int:
        """Vectors and broadcast numbers that are loaded, spilled ones aside."""
        return sum(i.vector_loads for i in self.instructions if not i.is_spill)

    @property
    def stores(self) -> int:
        """Vectors that are stored, spilled ones aside."""
        return sum(i.vector_stores for i in self.instructions if not i.is_spill)

    @property
    def spills(self) -> list[Instruction]:
        """Moves of vectors from and to places of the stack that do not change with the loop."""
        return [i for i in self.instructions if i.is_spill]

    @property
    def copies(self) -> list[Instruction]:
        """Copies of vectors between registers."""
        return [i for i in self.instructions if i.is_copy]

    @property
    def calls(self) -> list[Instruction]:
        """Calls of other functions."""
        return [i for i in self.instructions if i.is_call]


def innermost_loops(assembly: str) -> list[Loop]:
    """The innermost loops of all functions, in the order of the text."""
    return [loop for name, lines in _functions(assembly) for loop in _loops(name, lines)]


def instructions(assembly: str) -> Iterator[Instruction]:
    """All instructions, in the order of the text."""
    for _, body in _functions(assembly):
        yield from (entry for entry in body if isinstance(entry, Instruction))


def hottest(assembly: str) -> Loop:
    """The innermost loop with the most fused multiply-adds of vectors, or instructions."""
    return max(innermost_loops(assembly), key=lambda loop: (loop.fmas, len(loop.instructions)))


def _functions(assembly: str) -> Iterator[tuple[str, list[str | Instruction]]]:
    """Function by function: its labels as text, and its instructions."""
    name, body = "", list[str | Instruction]()
    for raw in assembly.splitlines():
        line = re.split(r"\t//|\s+# ", raw)[0].rstrip()
        label = _LABEL.match(line)
        if label and not label[1].startswith("."):
            if body:
                yield name, body
            name, body = label[1], []
        elif label:
            body.append(label[1])
        elif line.startswith("\t") and not line.lstrip().startswith("."):
            mnemonic, _, rest = line.strip().partition("\t")
            body.append(Instruction(mnemonic, tuple(_operands(rest))))
    if body:
        yield name, body


def _operands(text: str) -> Iterator[str]:
    """Operands, split at commas that are in no bracket."""
    depth, current = 0, ""
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            yield current.strip()
            current = ""
        else:
            current += char
    if current.strip():
        yield current.strip()


def _loops(name: str, body: list[str | Instruction]) -> Iterator[Loop]:
    """Ranges from a label to a later jump to it that hold no other such range."""
    places = {entry: i for i, entry in enumerate(body) if isinstance(entry, str)}
    ranges = []
    for i, entry in enumerate(body):
        if isinstance(entry, Instruction) and _BRANCH.match(entry.mnemonic) and entry.operands:
            begin = places.get(entry.operands[-1], len(body))
            if begin < i:
                ranges.append((begin, i))
    for begin, end in ranges:
        if not any((b, e) != (begin, end) and begin <= b and e <= end for b, e in ranges):
            inside = [entry for entry in body[begin : end + 1] if isinstance(entry, Instruction)]
            yield Loop(name, tuple(inside))
