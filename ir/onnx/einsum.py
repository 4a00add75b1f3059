"""Converter of Einsum: sums, transposes and one matmul for each further operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from planish.ir.dim import DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value, constant
from planish.ir.onnx.call import Call, product


class _Term(NamedTuple):
    """A tensor and the letter of each of its dimensions."""

    letters: str
    value: Value


def einsum(call: Call) -> Value:
    """Einsum of any number of operands, taken from the left."""
    values = call.values()
    operands, output = _parse(call, call.text("equation"), [v.type.rank for v in values])
    terms = [_without_repeats(call, *pair) for pair in zip(operands, values)]
    result = terms[0]
    for index, term in enumerate(terms[1:], start=1):
        later = set(output).union(*(other.letters for other in terms[index + 1 :]))
        result = _multiplied(call, result, term, later)
    result = _summed(call, result, set(output))
    missing = set(output) - set(result.letters)
    if missing:
        raise InvalidModel(f"node '{call.label}' (Einsum) makes {sorted(missing)} from nothing")
    return call.transpose(result.value, [result.letters.index(letter) for letter in output])


def _parse(call: Call, equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of each operand and of the output; an ellipsis becomes digits from the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        raise InvalidModel(f"node '{call.label}' (Einsum) '{equation}' has {len(ranks)} operands")
    widths = [rank - len(term.replace("...", "")) for term, rank in zip(operands, ranks)]
    width = max((w for w, term in zip(widths, operands) if "..." in term), default=0)
    if width > 10 or any(w < 0 or (w and "..." not in t) for w, t in zip(widths, operands)):
        raise InvalidModel(f"node '{call.label}' (Einsum) '{equation}' does not fit ranks {ranks}")
    dots = "0123456789"[:width]
    spelled = [term.replace("...", dots[width - max(w, 0) :]) for term, w in zip(operands, widths)]
    if not arrow:
        once = sorted(c for c in set("".join(operands)) - {"."} if left.count(c) == 1)
        return spelled, dots + "".join(once)
    return spelled, right.replace("...", dots)


def _without_repeats(call: Call, letters: str, value: Value) -> _Term:
    """The diagonal over dimensions that share a letter, as a masked sum."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            first, second = letters.index(letter), letters.rindex(letter)
            shape = call.static_shape(value)
            size = shape[first]
            spread = tuple(n if i in (first, second) else 1 for i, n in enumerate(shape))
            mask = constant(np.eye(size, shape[second], dtype=bool).reshape(spread))
            kept = call.emit("where", mask, value, call.like(0, value))
            value = call.emit("reduce_sum", kept, axes=(second,), keepdims=False)
            letters = letters[:second] + letters[second + 1 :]
    return _Term(letters, value)


def _summed(call: Call, term: _Term, needed: set[str]) -> _Term:
    """Sums over the dimensions that nothing needs."""
    axes = tuple(i for i, letter in enumerate(term.letters) if letter not in needed)
    if not axes:
        return term
    kept = "".join(letter for letter in term.letters if letter in needed)
    return _Term(kept, call.emit("reduce_sum", term.value, axes=axes, keepdims=False))


def _multiplied(call: Call, a: _Term, b: _Term, later: set[str]) -> _Term:
    """The product of two terms, summed over the letters that both have and nothing needs later."""
    a = _summed(call, a, later | set(b.letters))
    b = _summed(call, b, later | set(a.letters))
    batch = [c for c in a.letters if c in b.letters and c in later]
    inner = [c for c in a.letters if c in b.letters and c not in later]
    rows = [c for c in a.letters if c not in b.letters]
    columns = [c for c in b.letters if c not in a.letters]
    left, right = _dims(a), _dims(b)
    if any(left[c] != right[c] for c in inner):
        raise UnsupportedModel("sums over a broadcast dimension")
    x = call.reshape(
        _ordered(call, a, batch + rows + inner),
        (
            *(left[c] for c in batch),
            product([left[c] for c in rows]),
            product([left[c] for c in inner]),
        ),
    )
    y = call.reshape(
        _ordered(call, b, batch + inner + columns),
        (
            *(right[c] for c in batch),
            product([right[c] for c in inner]),
            product([right[c] for c in columns]),
        ),
    )
    result = call.emit("matmul", x, y)
    outer = (*(left[c] for c in rows), *(right[c] for c in columns))
    shape = (*result.type.shape[: len(batch)], *outer)
    return _Term("".join(batch + rows + columns), call.reshape(result, shape))


def _dims(term: _Term) -> dict[str, DimLike]:
    return dict(zip(term.letters, term.value.type.shape))


def _ordered(call: Call, term: _Term, letters: Sequence[str]) -> Value:
    return call.transpose(term.value, [term.letters.index(letter) for letter in letters])
