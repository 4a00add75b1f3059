"""Reading one line of the text form from left to right."""

from __future__ import annotations

import json
import re

from planish.ir.errors import InvalidGraph

WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')

_SPACE = re.compile(r"\s*")
_PIECE = re.compile(r"'(?:[^'\\]|\\.)*'|.")
_JSON = json.JSONDecoder()


class Scanner:
    """A position in one line of text."""

    def __init__(self, line: str) -> None:
        self.line = line.strip()
        self.position = 0

    def peek(self, prefix: str) -> bool:
        """True if what comes next, after spaces, is `prefix`."""
        return self.line.startswith(prefix, self._skip())

    def accept(self, prefix: str) -> bool:
        """Step over `prefix` if it comes next."""
        found = self.peek(prefix)
        if found:
            self.position = self._skip() + len(prefix)
        return found

    def expect(self, prefix: str) -> None:
        """Step over `prefix`; InvalidGraph if it does not come next."""
        if not self.accept(prefix):
            raise self.error(f"'{prefix}'")

    def match(self, pattern: re.Pattern[str], what: str) -> str:
        """Step over what `pattern` matches; InvalidGraph if it does not come next."""
        found = pattern.match(self.line, self._skip())
        if found is None:
            raise self.error(what)
        self.position = found.end()
        return found.group()

    def string(self) -> str:
        """A quoted string."""
        return str(json.loads(self.match(STRING, "a string in quotes")))

    def name(self) -> str:
        """A bare or quoted name."""
        return self.string() if self.peek('"') else self.match(WORD, "a name")

    def at(self, pattern: re.Pattern[str]) -> bool:
        """True if `pattern` matches what comes next."""
        return pattern.match(self.line, self._skip()) is not None

    def json(self) -> str:
        """The text of a JSON value."""
        start = self._skip()
        _, self.position = _JSON.raw_decode(self.line, start)
        return self.line[start : self.position]

    def balanced(self) -> str:
        """The text up to a comma or bracket that closes no bracket of its own."""
        start, depth = self._skip(), 0
        for piece in _PIECE.finditer(self.line, start):
            if depth == 0 and piece.group() in (",", ")", "]"):
                self.position = piece.start()
                return self.line[start : self.position].rstrip()
            depth += {"(": 1, ")": -1}.get(piece.group(), 0)
        raise self.error("an expression that ends in ',', ')' or ']'")

    def done(self) -> bool:
        """True at the end of the line."""
        return self._skip() == len(self.line)

    def error(self, expected: str) -> InvalidGraph:
        """The error for this place."""
        rest = self.line[self._skip() :] or "the end of the line"
        return InvalidGraph(f"expected {expected} at: {rest[:60]}")

    def _skip(self) -> int:
        found = _SPACE.match(self.line, self.position)
        return found.end() if found else self.position
