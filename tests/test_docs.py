"""What the documents show works: their Python runs, their links and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from planish.cli.app import app
from tests.compiler.small_models import own_op, perceptron

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


#: What an example begins with that runs only where torch is installed.
TORCH = "import torch\n"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_examples_run(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [text for text in blocks(document, "python") if not text.startswith(TORCH)]
    if not examples:
        pytest.skip("has no Python")
    perceptron(tmp_path / "model.onnx", batch="batch" if document.stem == "README" else 1)
    perceptron(tmp_path / "tanh.onnx", op="Tanh")
    own_op(tmp_path / "soft_clip.onnx", "com.example", "SoftClip")
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(0).standard_normal((1, 12)).astype("f4")
    names = {"array": array, "__name__": "example"}
    for example in examples:
        exec(compile(example, str(document), "exec"), names)


@pytest.mark.slow
def test_torch_examples_run() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    examples = [text for page in DOCUMENTS for text in blocks(page, "python")]
    chosen = [text for text in examples if text.startswith(TORCH)]
    assert len(chosen) == 2
    for example in chosen:
        exec(compile(example, "docs", "exec"), {"__name__": "example"})


def test_worked_examples_are_short() -> None:
    examples = [
        block
        for document in DOCUMENTS
        for block in blocks(document, "python")
        if block.startswith("# example: ")
    ]
    titles = [block.splitlines()[0] for block in examples]
    assert titles == [
        "# example: a custom op",
        "# example: replace an activation",
        "# example: a rewrite with a refusal",
    ]
    for block in examples:
        assert len(block.splitlines()) <= 41, "the title, and at most 40 lines"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link


def test_commands_and_options_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text()
    names = ("compile", "run", "inspect", "opt", "bisect", "tune", "log", "bench", "targets")
    commands = {name: [name] for name in names} | {"log": ["log", "ls"]}
    helps = {
        name: CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout
        for name, command in commands.items()
    }
    rows = re.findall(r"^\| `planish (\w+)[^`]*` \| (.*) \|$", text, re.M)
    assert [name for name, _ in rows] == list(helps)
    for name, row in rows:
        for option in re.findall(r"(?<=`)--?[\w-]+", row):
            assert option in helps[name], f"planish {name} has no {option}"
    assert all("--json" in shown for shown in helps.values())


def test_readme_has_one_block_to_install_and_one_to_test() -> None:
    install, test = blocks(ROOT / "README.md", "bash")
    assert "planish compile" in install
    assert "examples/digits/read.py" in install
    assert test == ".venv/bin/python -m pytest\n"
