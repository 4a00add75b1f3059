"""What reaches the terminal: text, and nothing that it would obey."""

from __future__ import annotations

import sys
import unicodedata
from typing import TextIO

#: Characters that move what stands beside them (bidirectional overrides and isolates), beside those
#: that control a terminal: a name could show what is not there.
_MOVING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)))
#: Control characters, what no encoding has, and separators of lines and paragraphs.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """`"\\x1b[2J"` → `"\\\\x1b[2J"`: what is no text is spelled out, but for line breaks and tabs.

    Names come from models, logs and artefacts of others, and a terminal obeys what it is sent.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_spelled, text))


def _spelled(char: str) -> str:
    if char in "\n\t" or not (unicodedata.category(char) in _CONTROLS or char in _MOVING):
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def say(*values: object, file: TextIO | None = None) -> None:
    """Prints a line; all that the command line prints goes through here or `print_table`."""
    print(printable(" ".join(map(str, values))), file=file or sys.stdout)
