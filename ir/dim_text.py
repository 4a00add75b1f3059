"""Reading the text form of symbolic dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from planish.ir.dim import Dim, DimLike, dim_max, dim_min
from planish.ir.errors import InvalidGraph

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)|'(?P<quoted>(?:[^'\\]|\\.)*)'"
    r"|(?P<sign>//|[-+*%(),]))",
    re.ASCII,
)
_DEEPEST = 100  # nested parentheses; far below the interpreter's limit, far above real shapes


def parse_dim(text: str, symbols: Mapping[str, Dim] | None = None) -> DimLike:
    """The dimension that `text` spells, the inverse of `str`.

    `symbols` gives the symbols by (unquoted) name, since the text has no ranges; without it every
    name is a symbol from 0. InvalidGraph names what is wrong and where.
    """
    reader = _Reader(text, symbols)
    dim = reader.sum()
    if reader.sign:
        raise reader.error(f"unexpected '{reader.sign}'")
    if not reader.at_end:
        raise reader.error("expected an operator")
    return dim


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, symbols: Mapping[str, Dim] | None) -> None:
        self.text = text
        self.symbols = symbols
        self.position = 0
        self.depth = 0
        self.match: re.Match[str] | None = None
        self._next()

    @property
    def sign(self) -> str | None:
        """The current token if it is an operator or bracket."""
        return self.match["sign"] if self.match else None

    @property
    def at_end(self) -> bool:
        return self.match is None

    def sum(self) -> DimLike:
        """Terms joined by + and -."""
        total = self._product()
        while (sign := self.sign) in ("+", "-"):
            self._next()
            term = self._product()
            total = total + term if sign == "+" else total - term
        return total

    def _product(self) -> DimLike:
        if self.sign == "-":
            self._next()
            return -self._factors()
        return self._factors()

    def _factors(self) -> DimLike:
        total = self._primary()
        while (sign := self.sign) in ("*", "//", "%"):
            self._next()
            factor = self._primary()
            try:
                total = (
                    total * factor
                    if sign == "*"
                    else total // factor
                    if sign == "//"
                    else total % factor
                )
            except ZeroDivisionError:
                raise self.error("division by zero") from None
        return total

    def _primary(self) -> DimLike:
        token = self.match
        if token is None:
            raise self.error("expected a number, a name or '('")
        if token["sign"] == "(":
            self._next()
            return self._nested()[0]
        if token["sign"]:
            raise self.error(f"expected a number, a name or '(', got '{token['sign']}'")
        self._next()
        if token["number"]:
            return int(token["number"])
        if token["name"] in ("max", "min"):
            if self.sign != "(":
                raise self.error(f"expected '(' after {token['name']}")
            self._next()
            operands = self._nested(several=True)
            return dim_max(*operands) if token["name"] == "max" else dim_min(*operands)
        return self._symbol(token["name"] or _unescaped(token["quoted"]))

    def _nested(self, several: bool = False) -> list[DimLike]:
        """What stands between '(' and ')', both consumed; `several` allows commas."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.error(f"more than {_DEEPEST} nested parentheses")
        found = [self.sum()]
        while several and self.sign == ",":
            self._next()
            found.append(self.sum())
        if self.sign != ")":
            raise self.error("expected ')'")
        self._next()
        self.depth -= 1
        return found

    def _symbol(self, name: str) -> Dim:
        if self.symbols is None:
            return Dim.symbol(name)
        if name not in self.symbols:
            raise self.error(f"unknown dimension '{name}'")
        return self.symbols[name]

    def _next(self) -> None:
        rest = self.text[self.position :]
        if not rest.strip():
            self.match = None
            return
        self.match = _TOKEN.match(self.text, self.position)
        if self.match is None:
            raise self.error("cannot be read")
        self.position = self.match.end()

    def error(self, problem: str) -> InvalidGraph:
        """An error that shows the text and the column."""
        return InvalidGraph(f"dimension '{self.text}', column {self.position + 1}: {problem}")


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", lambda escape: "\n" if escape[1] == "n" else escape[1], name)
