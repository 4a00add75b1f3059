"""The commands that docs/tuning-logs.md shows work, on the log that its Python makes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from planish.cli.app import app
from tests.compiler.small_models import perceptron
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs/tuning-logs.md"


def test_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    perceptron(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    (example,), (commands,) = blocks(PAGE, "python"), blocks(PAGE, "bash")
    exec(compile(example, str(PAGE), "exec"), {"__name__": "example"})
    printed = {}
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "planish"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}: {result.stderr}"
        printed[arguments[1]] = result.stdout
    assert "exact" in printed["ls"]
    assert "2 kernels as measured on this hardware" in printed["explain"]
    assert "team.jsonl: 2 records" in printed["export"]
    assert "3 lines added, 0 were there" in printed["merge"]
    assert "1.000" in printed["diff"]
    assert "0 records would be dropped" in printed["prune"]
    assert "2 kernels as measured on this hardware" in printed["model.onnx"]


def test_every_command_is_on_the_page() -> None:
    result = CliRunner().invoke(app, ["log", "--help"], env={"COLUMNS": "200"})
    for name in ("ls", "show", "explain", "merge", "diff", "prune", "export"):
        assert f"| `planish log {name} " in PAGE.read_text()
        assert f" {name} " in result.stdout
