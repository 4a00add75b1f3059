"""What `planish` offers: importable, documented, and its documents name only what it offers."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import planish

ROOT = Path(__file__).parents[2]
LAYERS = ("compiler", "ir", "passes", "autotune", "targets")

#: Types of other packages that a docstring may name.
FOREIGN = {"ModelProto", "ONNXProgram", "ExportedProgram", "GraphModule", "Module", "PrimFunc"}


@functools.cache
def classes() -> set[str]:
    """The names of all of planish's public classes."""
    return {
        node.name
        for layer in LAYERS
        for path in (ROOT / layer).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }


def public() -> list[tuple[str, Any]]:
    """Everything that can be called or raised, by its name in `planish`."""
    found = [(name, getattr(planish, name)) for name in planish.__all__]
    return [(name, value) for name, value in found if not isinstance(value, str)]


def documented(value: Any) -> Iterator[str]:
    """The docstring of a function; of a class those of its public methods and properties, too."""
    yield inspect.getdoc(value) or ""
    if inspect.isclass(value):
        for name, member in vars(value).items():
            wanted = not name.startswith("_") or name in ("__init__", "__call__")
            member = getattr(member, "__func__", member)
            if wanted and (inspect.isfunction(member) or isinstance(member, property)):
                yield inspect.getdoc(member) or ""


def named_types(text: str, known: set[str]) -> set[str]:
    """CamelCase words, and words of one hump that are a class and begin no sentence."""
    humps = set(re.findall(r"\b[A-Z]+[a-z]+(?:[A-Z]+[a-z]*)+\b|\b[A-Z]\w*Error\b", text))
    words = set(re.findall(r"(?<=[a-z,(|] )[A-Z][a-z]+\b", re.sub(r"\s+", " ", text)))
    return humps | words & known


@pytest.mark.parametrize("name", [name for name, _ in public()])
def test_types_that_a_docstring_names_can_be_imported(name: str) -> None:
    texts = list(documented(getattr(planish, name)))
    assert texts[0], f"{name} has no docstring"
    for text in texts:
        for word in named_types(text, classes()):
            told = word.removesuffix("s") if word.removesuffix("s") in planish.__all__ else word
            assert told in {*planish.__all__, *FOREIGN, *dir(builtins)}, f"{name} names {word}"


def test_errors_are_one_family_and_all_are_offered() -> None:
    from planish.ir import errors

    family = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert family <= set(planish.__all__)
    raised = [value for _, value in public() if inspect.isclass(value)]
    for error in raised:
        if issubclass(error, Exception) and not issubclass(error, Warning):
            assert issubclass(error, planish.PlanishError), error
    assert set(planish.__all__) <= set(dir(planish))


@pytest.mark.parametrize("name", ["compile", "tune", "load", "bisect", "InferenceSession"])
def test_signatures_name_every_parameter(name: str) -> None:
    shown = inspect.signature(getattr(planish, name))
    hidden = [p for p in shown.parameters.values() if p.kind is p.VAR_POSITIONAL]
    assert not hidden
    assert " at 0x" not in str(shown), "defaults are spelled"


def test_help_shows_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    help(planish.compile)
    shown = capsys.readouterr().out
    for option in ("example_inputs", "external_data", "dims", "shapes", "verify", "threads"):
        assert f"{option}:" in shown
