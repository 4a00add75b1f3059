"""bisect names the pass and the node that are wrong, and writes a model of a few nodes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

import planish
from planish.bisection.cut import Cutter
from planish.bisection.shrink import shrink
from planish.cli.app import app
from planish.custom import assemble
from planish.ir.graph import Graph
from planish.ir.target import Target
from planish.passes.pattern import Match, op, value
from planish.passes.rewrite import Rule
from planish.targets.expressions import elementwise
from tests.compiler.small_models import perceptron
from tests.compiler.wrong_rewrites import WRONG, light_model
from tests.zoo.models import zoo_model

#: Wrong rewrite → model, ONNX op that it spoils, and the step after which it is planted.
PLANTED = {
    "relu as abs": ("squeezenet", "Relu", "simplify"),
    "forget bias": ("squeezenet", "Conv", "eliminate_common_subexpressions"),
    "swap parts": ("squeezenet", "Concat", "simplify"),
    "double weights": ("shufflenet", "Conv", "fold_scale"),
    "max to mean": ("squeezenet", "MaxPool", "fold_batch_norm"),
}


def op_types(model: onnx.ModelProto) -> list[str]:
    """The op of each node."""
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name in ("forget bias", "relu as abs", "double weights")
        else name
        for name in PLANTED
    ],
)
def test_a_planted_wrong_rewrite_is_found_in_a_real_architecture(name: str) -> None:
    architecture, culprit, place = PLANTED[name]
    steps = assemble([planish.place(WRONG[name], after=place)])  # a copy of the pipeline
    found = planish.bisect(light_model(architecture), pipeline=steps, compiled=False)
    assert found is not None
    assert (found.stage, found.step, found.crash) == ("pass", name.replace(" ", "_"), False)
    assert "out of tolerance" in found.message
    assert found.minimal is not None
    assert culprit in op_types(found.minimal)
    assert len(found.minimal.graph.node) == len(found.minimal_nodes) <= 10
    onnx.checker.check_model(found.minimal, full_check=True)
    again = planish.bisect(found.minimal, pipeline=steps, compiled=False)
    assert again is not None
    assert again.step == found.step
    assert planish.bisect(found.minimal, compiled=False) is None  # planish itself is right


@pytest.mark.zoo
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("mtcnn_rnet", "max to mean"),
        pytest.param("mobilenet_v2", "double weights", marks=pytest.mark.slow),
        ("squeezenet1_1", "swap parts"),
        ("ppocr_cls", "other epsilon"),
        pytest.param("shufflenet_v2_x1_0", "relu as abs", marks=pytest.mark.slow),
    ],
)
def test_a_planted_wrong_rewrite_is_found_in_a_real_model(
    model: str, name: str, tmp_path: Path
) -> None:
    real = zoo_model(model, tmp_path)
    shapes = {key: array.shape for key, array in real.inputs.items()}
    place = "fold_constants" if name == "other epsilon" else "simplify"
    steps = assemble([planish.place(WRONG[name], after=place)])
    found = planish.bisect(real.path, shapes=shapes, pipeline=steps, compiled=False)
    assert found is not None
    assert (found.stage, found.step) == ("pass", name.replace(" ", "_"))
    assert found.minimal is not None
    assert len(found.minimal.graph.node) <= 10
    again = planish.bisect(found.minimal, pipeline=steps, compiled=False)
    assert again is not None
    assert again.step == found.step


def _crash(match: Match) -> None:
    if match["x"].type.shape[-1] == 16:
        raise ValueError("sixteen is too many")


def test_a_pass_that_crashes_is_found_with_its_node(tmp_path: Path) -> None:
    rule = Rule("count", op("relu", value("x")), _crash)
    found = planish.bisect(perceptron(tmp_path / "m.onnx"), passes=[rule])
    assert found is not None
    assert (found.step, found.crash, found.nodes) == ("count", True, ("activation",))
    assert "test_bisect.py" in found.message
    assert "rule 'count' failed at relu (from 'activation'): ValueError: sixteen" in found.message
    assert found.minimal is not None
    assert op_types(found.minimal) == ["Relu"]


def test_a_pass_that_breaks_the_graph_is_found(tmp_path: Path) -> None:
    def drop_output(graph: Graph, target: Target) -> Graph:
        return Graph(graph.inputs, (graph.inputs[0],), graph.output_names)

    found = planish.bisect(perceptron(tmp_path / "m.onnx"), passes=[drop_output])
    assert found is not None
    assert found.crash
    assert "changed the outputs of the graph" in found.message


def _spoil(monkeypatch: pytest.MonkeyPatch, relu: Callable[..., object]) -> None:
    monkeypatch.setitem(elementwise.UNARY, "relu", relu)


def test_wrong_code_is_traced_to_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, lambda x: x * elementwise.like(3, x))
    found = planish.bisect(perceptron(tmp_path / "m.onnx"))
    assert found is not None
    assert (found.stage, found.crash) == ("code", False)
    assert "activation" in found.nodes
    assert found.minimal is not None
    assert op_types(found.minimal) == ["Relu"]


def test_a_crash_of_lowering_is_traced_to_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(x: object) -> object:
        raise RuntimeError("no relu today")

    _spoil(monkeypatch, fail)
    found = planish.bisect(perceptron(tmp_path / "m.onnx"))
    assert found is not None
    assert (found.stage, found.crash) == ("lowering", True)
    assert "no relu today" in found.message
    assert found.minimal_nodes == ("activation",)


def test_a_crash_of_compiled_code_is_survived_and_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvm import tirx

    _spoil(monkeypatch, lambda x: tirx.call_extern("float32", "abort") + x)
    found = planish.bisect(perceptron(tmp_path / "m.onnx"))
    assert found is not None
    assert (found.stage, found.crash) == ("code", True)
    assert "signal 6" in found.message
    assert found.minimal_nodes == ("activation",)


def test_all_is_well(tmp_path: Path) -> None:
    assert planish.bisect(perceptron(tmp_path / "m.onnx")) is None


def test_cut_models_have_fixed_inputs_and_the_weights_they_read(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "m.onnx", batch="batch")
    cutter = Cutter(model, {"batch": 4}, {})
    middle = cutter.positions_of(["bias", "activation"])
    cut = cutter.cut(middle)
    onnx.checker.check_model(cut, full_check=True)
    assert [node.name for node in cut.graph.node] == ["bias", "activation"]
    assert [tensor.name for tensor in cut.graph.initializer] == ["b"]
    assert [value.name for value in cut.graph.input] == ["xw"]
    assert [d.dim_value for d in cut.graph.input[0].type.tensor_type.shape.dim] == [4, 16]
    assert [value.name for value in cut.graph.output] == ["hidden"]
    assert cutter.around(middle) == set(range(4))


def test_shrink_leaves_out_all_that_is_not_needed() -> None:
    asked: list[int] = []

    def shows(items: object) -> bool:
        asked.append(1)
        return {3, 17, 40} <= set(items)  # type: ignore[call-overload]

    assert shrink(range(64), shows) == [3, 17, 40]
    assert len(asked) < 100
    assert shrink([5], lambda items: True) == [5]


MODULE = """
from planish.ir.builder import emit
from planish.passes.pattern import op, value
from planish.passes.rewrite import Rule
wrong = Rule("relu as abs", op("relu", value("x")), lambda match: emit("abs", match["x"]))
"""


def test_the_command_writes_the_minimal_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bisected_rule.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    perceptron(tmp_path / "m.onnx")
    command = ["bisect", "m.onnx", "--pass", "bisected_rule:wrong@after=fold_scale"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "pass 'relu_as_abs' (bisected_rule:wrong)" in done.output
    assert "minimal model" in done.output
    assert op_types(onnx.load("m.minimal.onnx")) == ["Relu"]
    told = json.loads(CliRunner().invoke(app, [*command, "--json", "-o", "x.onnx"]).stdout)
    assert (told["step"], told["minimal_nodes"]) == ("relu_as_abs", ["activation"])
    assert told["minimal"] == "x.onnx"
    fine = CliRunner().invoke(app, ["bisect", "m.onnx"])
    assert fine.exit_code == 0, fine.output
    assert "nothing is wrong" in fine.output
    assert sorted(os.listdir()) == ["bisected_rule.py", "m.minimal.onnx", "m.onnx", "x.onnx"]
