"""opt tells what each pass did, and shows the graph as text, DOT and a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from planish.cli.app import app
from planish.custom import PASSES
from planish.explain import explain
from planish.graph_views import dot, page, rows
from planish.ir.builder import emit
from planish.ir.parse import parse
from planish.ir.text import constants_of, print_graph
from planish.passes.pattern import op, value
from planish.passes.rewrite import Refusal, Rule
from tests.compiler.small_models import perceptron, save

WRONG = Rule("relu as abs", op("relu", value("x")), lambda match: emit("abs", match["x"]))
UNWILLING = Rule("no", op("relu", value("x")), lambda match: Refusal("it is a good relu"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small perceptron."""
    return perceptron(tmp_path / "m.onnx")


def test_records_tell_what_fired_what_changed_and_what_refused(model: Path) -> None:
    found = explain(model, passes=[UNWILLING, WRONG], numeric=True)
    records = {record.label: record for record in found.records}
    assert len(records) == len(PASSES) + 2
    refused = records["no"]
    assert (refused.changed, refused.numeric) == (False, None)
    assert refused.refusals == {("no", "it is a good relu"): 1}
    assert [event.where for event in refused.events] == ["relu (from 'activation')"]
    fired = records["relu_as_abs"]
    assert fired.fired == {"relu as abs": 1}
    change = fired.change()
    assert (dict(change.removed), dict(change.added)) == ({"relu": 1}, {"abs": 1})
    assert change.onnx_nodes == ("activation",)
    assert "out of tolerance" in (fired.numeric or "")
    assert records["fuse"].seconds > 0
    assert found.records[0].before is found.imported
    assert found.records[-1].after is found.optimised


def test_the_numeric_check_passes_what_is_right(model: Path) -> None:
    checked = [r.numeric for r in explain(model, numeric=True).records if r.changed]
    assert checked
    assert set(checked) == {""}


def test_rows_link_producers_and_consumers(model: Path) -> None:
    found = explain(model)
    for graph in (found.imported, found.optimised):
        listed = rows(graph)
        assert [row["id"] for row in listed] == list(range(len(listed)))
        for row in listed:
            assert all(read < row["id"] for read in row["reads"])
            assert all(row["id"] in listed[user]["reads"] for user in row["users"])
    last = rows(found.optimised)[-1]
    assert last["outputs"] == ["y"]
    assert "second" in last["onnx"]
    assert last["schedule"].startswith("space ")
    assert last["body"].startswith("graph ")


def test_dot_is_valid(model: Path) -> None:
    text = dot(explain(model).imported)
    assert text.count(" -> ") == 5
    assert "relu\\nfloat32[2, 16]\\nactivation" in text
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=text, text=True, check=True, capture_output=True)


def test_the_page_loads_nothing_and_survives_hostile_names(model: Path) -> None:
    text = page(explain(model), "</script><script>alert(1)</script>")
    assert not re.search(r"""(?:src|href)\s*=|https?://(?!www\.w3\.org/2000/svg)|@import""", text)
    assert text.count("</script>") == 2
    data = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert [graph["label"] for graph in data["graphs"]] == ["as imported", "optimised"]
    assert len(data["passes"]) == len(PASSES)


def chain(path: Path, nodes: int) -> Path:
    """A model so many nodes deep."""
    made = [
        helper.make_node(("Add", "Relu")[i % 2], [f"v{i}", "w"][: 2 - i % 2], [f"v{i + 1}"])
        for i in range(nodes)
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, (4,)) for n in ("v0", f"v{nodes}"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4,), [0.5, -1.5, 2.0, -0.25])
    return save(path, made, [x], [y], [weight])


def test_five_thousand_nodes_are_a_page_of_moderate_size(tmp_path: Path) -> None:
    found = explain(chain(tmp_path / "deep.onnx", 5000))
    start = time.perf_counter()
    text = page(found, "deep")
    assert time.perf_counter() - start < 10
    assert text.count('"id":') > 5000
    assert len(text) < 10_000_000


def opt(*arguments: object) -> str:
    """The command's stdout."""
    done = CliRunner().invoke(app, ["opt", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_shows_passes_and_explains(model: Path) -> None:
    shown = opt(model, "--explain", "--pass", "tests.compiler.test_opt:UNWILLING")
    assert re.search(r"4 nodes became \d kernels in .* custom\)", shown)
    assert "no: refused at relu (from 'activation'): it is a good relu" in shown
    told = json.loads(opt(model, "--json"))
    assert [entry["pass"] for entry in told["passes"]][:2] == ["fold_constants", "simplify"]
    assert told["imported_nodes"] == 4
    printed = opt(model, "--print-after", "simplify#2")
    assert printed.startswith("// after simplify#2")
    assert printed.count("// after") == 1


def test_the_command_lists_passes() -> None:
    shown = opt("--passes", "list")
    assert "fold_constants#2" in shown
    listed = json.loads(opt("--passes", "list", "--json", "--pass", f"{__name__}:WRONG"))
    assert [entry["name"] for entry in listed["passes"]][2] == "relu_as_abs"
    assert all(entry["why"] for entry in listed["passes"])


def test_the_command_writes_text_dot_and_page(model: Path, tmp_path: Path) -> None:
    for suffix in ("txt", "dot", "html"):
        opt(model, "-o", tmp_path / f"g.{suffix}")
    imported = explain(model).imported
    text = (tmp_path / "g.before.txt").read_text()
    assert text == print_graph(parse(text, constants_of(imported))) == print_graph(imported)
    assert "kernel(" in (tmp_path / "g.txt").read_text()
    assert (tmp_path / "g.dot").read_text().startswith("digraph {")
    assert (tmp_path / "g.html").read_text().startswith("<!doctype html>")


def test_mistakes_are_the_users(model: Path, tmp_path: Path) -> None:
    for arguments, message in [
        (["-o", "g.pdf"], "the graph is written as .txt, .dot, .html"),
        (["--print-after", "nix"], "--print-after nix: there is no such pass; passes are fold_"),
        (["--verify", "--pass", f"{__name__}:WRONG"], "pass 'relu_as_abs' changes the result: out"),
    ]:
        done = CliRunner().invoke(app, ["opt", str(model), *arguments])
        assert done.exit_code == 2, done.output
        assert message in done.output
    done = CliRunner().invoke(app, ["opt"])
    assert "planish opt takes a MODEL, or --passes list" in done.output
