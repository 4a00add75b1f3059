"""Passes and ops of one's own, from Python, the command line and installed packages."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import planish
from planish import custom
from planish.cli.app import app
from planish.custom import PASSES, assemble, labelled
from planish.ir.builder import emit
from planish.ir.errors import InvalidGraph, PlanishError, TargetError
from planish.ir.extension import CustomOp, extended
from planish.ir.graph import Graph, Input, Node, Value
from planish.ir.onnx.call import Call
from planish.ir.op import AttrSpec, OpDef, OpKind
from planish.ir.ops import OPS, op_def
from planish.ir.schedule import Directive, Schedule
from planish.ir.target import Target
from planish.ir.types import tensor
from planish.passes.pass_ import Step
from planish.passes.pattern import Match, op, value
from planish.passes.rewrite import Refusal, Rule
from tests.compiler.small_models import own_op, perceptron

# -- passes ---------------------------------------------------------------------------------------


def mine(graph: Graph, target: Target) -> Graph:
    """Changes nothing."""
    return graph


def _as_maximum(match: Match) -> Value:
    zero = planish.ir.graph.constant(np.zeros((), "f4"))
    return emit("maximum", match["x"], zero)


RELU_AS_MAXIMUM = Rule("relu as maximum", op("relu", value("x")), _as_maximum)


@planish.local_pass
def scalar_loops(kernel: Node, target: Target) -> Schedule | Refusal | None:
    """No directives for element-wise kernels; the others keep what they have."""
    if kernel.attrs["schedule"].space != "pointwise":
        return Refusal("has an anchor")
    return Schedule.of("pointwise", directives=())


def labels(*passes: custom.CustomPass) -> list[str]:
    """What runs, by label."""
    return labelled(assemble(passes))


def test_graph_passes_run_after_the_first_clean_up_and_local_passes_last() -> None:
    names = labels(scalar_loops, mine, RELU_AS_MAXIMUM)
    at = names.index("simplify")
    assert names[at + 1 : at + 3] == ["mine", "relu_as_maximum"]
    assert names[-2:] == ["assign_default_schedules", "scalar_loops"]
    assert [n for n in names if n not in {"mine", "relu_as_maximum", "scalar_loops"}] == labels()


def test_passes_are_placed_before_or_after_a_named_one() -> None:
    names = labels(planish.place(mine, before="fuse"), planish.place(mine, after="simplify#2"))
    assert names[names.index("fuse") - 1].startswith("mine")
    assert names[names.index("simplify#2") + 1] == "mine"
    assert labels(planish.place(mine, before=names[0]))[0] == "mine"
    with pytest.raises(PlanishError, match="'mine' is placed after 'nix', but there is no such"):
        assemble([planish.place(mine, after="nix")])
    with pytest.raises(PlanishError, match="takes one of before= and after="):
        planish.place(mine)


@pytest.mark.parametrize("wrong", [3, str, None])
def test_what_is_no_pass_is_refused(wrong: object) -> None:
    with pytest.raises(PlanishError, match=r"is no pass; a pass is a function \(Graph, Target\)"):
        assemble([wrong])  # type: ignore[list-item]


def test_custom_passes_are_observed_verified_and_numerically_checked(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "m.onnx")
    seen: dict[str, bool] = {}
    report = planish.compile(
        model,
        tmp_path / "out",
        passes=[RELU_AS_MAXIMUM, Step(scalar_loops, "to see it")],
        observer=lambda name, before, after, seconds: seen.update({name: after is not before}),
    )
    assert seen["relu_as_maximum"]
    assert "scalar_loops" in seen
    assert report.verification is not None
    assert report.verification.ok
    wrong = Rule("relu as abs", op("relu", value("x")), lambda match: emit("abs", match["x"]))
    with pytest.raises(planish.ir.errors.CustomPassError, match="out of tolerance") as error:
        planish.compile(model, tmp_path / "wrong", passes=[mine, wrong])
    assert "pass 'relu_as_abs' (from " in str(error.value)
    assert "changes what the model computes: output 'y': " in str(error.value)
    assert not (tmp_path / "wrong").exists()
    assert not (tmp_path / "wrong.rejected").exists()


def crash(graph: Graph, target: Target) -> Graph:
    """Fails."""
    raise KeyError("lost")


def forget(graph: Graph, target: Target) -> Graph:
    """Gives nothing back."""


def rename(graph: Graph, target: Target) -> Graph:
    """Loses the names of the outputs."""
    return Graph(graph.inputs, (emit("neg", emit("neg", graph.outputs[0])),), ("other",))


@planish.local_pass
def wrong_schedule(kernel: Node, target: Target) -> Schedule | Refusal | None:
    """Gives no schedule."""
    return "fast"  # type: ignore[return-value]


@planish.local_pass
def illegal_schedule(kernel: Node, target: Target) -> Schedule | Refusal | None:
    """Names a loop that there is not."""
    schedule = kernel.attrs["schedule"]
    return dataclasses.replace(schedule, directives=(Directive("parallel", ("out", "sideways")),))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (illegal_schedule, r"pass 'illegal_schedule' .* parallel\(out, sideways\): .*'sideways'"),
        (crash, r"pass 'crash' \(from .*test_custom:crash\) failed at .*test_custom.py:\d+ on gr"),
        (forget, r"pass 'forget' .* must return a Graph, got None"),
        (rename, r"pass 'rename' .* renamed the outputs \['y'\] to \['other'\]; hand them on"),
        (wrong_schedule, r"'wrong_schedule' must give a Schedule, a Refusal or None, got 'fast'"),
    ],
)
def test_errors_name_the_pass_and_its_author(
    wrong: custom.CustomPass, message: str, tmp_path: Path
) -> None:
    model = perceptron(tmp_path / "m.onnx")
    with pytest.raises(planish.ir.errors.CustomPassError, match=message):
        planish.compile(model, tmp_path / "out", passes=[wrong])


class Mute(Exception):
    """Cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no message")

    __repr__ = __str__


class Stop(BaseException):
    """Is no Exception."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(0),
        SystemExit("done"),
        GeneratorExit(),
        Stop("stop"),
        Mute(),
        RecursionError("deep"),
        MemoryError(),
        AssertionError(),
        StopIteration(),
        planish.PassError("mine"),
        planish.InvalidGraph("mine"),
        planish.ScheduleError("mine"),
        planish.TargetError("mine"),
        planish.ArtefactError("mine"),
        planish.UnsupportedModel("mine"),
        planish.InvalidModel("mine"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("local", [False, True])
def test_whatever_a_pass_raises_is_told_with_its_name(
    error: BaseException, local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(subject: object, target: Target) -> object:
        raise error

    passes = type(sys)("failing_passes")
    passes.__dict__["fails"] = planish.local_pass(fails) if local else fails  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "failing_passes", passes)
    model = perceptron(tmp_path / "m.onnx")
    command = ["compile", str(model), "-o", str(tmp_path / "out"), "--pass", "failing_passes:fails"]
    done = CliRunner().invoke(app, [*command, "--no-log"])
    assert done.exit_code == 2, done.output
    assert "pass 'fails' (from failing_passes:fails)" in done.stderr
    assert "failure of planish" not in done.stderr
    assert not (tmp_path / "out").exists()


class Unreadable:
    """A result that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize("made", [3, "graph", [1] * 1000, Unreadable(), Graph, iter(())])
def test_what_a_pass_gives_back_is_told(made: object, tmp_path: Path) -> None:
    model = perceptron(tmp_path / "m.onnx")
    with pytest.raises(planish.ir.errors.CustomPassError) as error:
        planish.compile(model, tmp_path / "out", passes=[lambda graph, target: made])
    assert "must return a Graph, got" in str(error.value)
    assert type(made).__name__ in str(error.value)
    assert len(str(error.value)) < 300


def changed(**fields: object) -> custom.CustomPass:
    """A local pass that gives matmuls their schedule but for some fields."""

    def odd(kernel: Node, target: Target) -> Schedule | None:
        schedule = kernel.attrs["schedule"]
        made = {k: v(schedule) if callable(v) else v for k, v in fields.items()}
        return dataclasses.replace(schedule, **made)

    return planish.local_pass(odd)


def with_choice(name: str, value: object) -> custom.CustomPass:
    """The same with one choice more, or another one."""
    return changed(choices=lambda s: (*((k, v) for k, v in s.choices if k != name), (name, value)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changed(directives=(Directive("vectorize", ("none", "m")),)), "vectorize(none, m): no"),
        (changed(directives=(Directive("split", ("out", [1], 2, "a", "b")),)), "split(out, [1], 2"),
        (changed(directives=(Directive("split", ("out", "m", "x", "a", "b")),)), "split(out, m, x"),
        (changed(directives=(Directive("split", ("out", "m", -2, "a", "b")),)), "split(out, m, -2"),
        (changed(directives=(Directive("reorder", ("out", 3)),)), "reorder(out, 3)"),
        (changed(directives=("vectorize",)), "'vectorize' among the directives is no Directive"),
        (changed(directives=None), "'directives' of the schedule is None, expected a tuple"),
        (changed(directives=[]), "'directives' of the schedule is [], expected a tuple"),
        (changed(choices=None), "'choices' of the schedule is None, expected a tuple"),
        (changed(choices=("m",)), "'m' among the choices is no (name, value)"),
        (changed(choices=()), "has no choice 'm'"),
        (changed(choices=(), directives=()), "has no choice 'm'"),
        (changed(space="mine"), "the schedule is of space 'mine', the kernel's is 'matmul'"),
        (changed(emitter="mine"), "there is no emitter 'mine'; known are attention"),
        (changed(emitter=3), "'emitter' of the schedule is 3, expected a name"),
        (changed(emitter="attention"), "no code can be made of"),
        (with_choice("width", 8), "space 'matmul' has no choice 'width'; it has m, n"),
        (with_choice("outer", "sideways"), "choice 'outer' is 'sideways', expected one such as"),
        (with_choice("parallel", "yes"), "choice 'parallel' is 'yes', expected one such as"),
        (with_choice("m", "wide"), "'wide'"),
        (with_choice("m", -1), "-1"),
    ],
)
def test_illegal_schedules_are_errors_and_no_defaults(
    wrong: custom.CustomPass, message: str, tmp_path: Path
) -> None:
    model = perceptron(tmp_path / "m.onnx")
    with pytest.raises(planish.ir.errors.CustomPassError) as error:
        planish.compile(model, tmp_path / "out", passes=[wrong], log=False)
    assert "pass 'odd' (from " in str(error.value)
    assert "kernel (from 'first', 'bias', 'activation')" in str(error.value)
    assert message in str(error.value)


def test_schedules_that_graph_passes_give_are_checked_too(tmp_path: Path) -> None:
    def odd(graph: Graph, target: Target) -> Graph:
        return changed(space="mine")(graph, target)  # type: ignore[operator,no-any-return]

    model = perceptron(tmp_path / "m.onnx")
    last = planish.place(odd, after="assign_default_schedules")
    with pytest.raises(planish.ir.errors.CustomPassError, match=r"'odd' .* of space 'mine'"):
        planish.compile(model, tmp_path / "out", passes=[last], log=False)


def test_local_passes_come_after_the_kernels() -> None:
    for where in ({"before": "fuse"}, {"after": "simplify"}, {"before": "fold_constants"}):
        with pytest.raises(PlanishError, match="'scalar_loops' is placed where there are no"):
            assemble([planish.place(scalar_loops, **where)])
    assert labels(planish.place(scalar_loops, after="fuse"))[-2:] == [
        "scalar_loops", "assign_default_schedules"
    ]  # fmt: skip


def test_compile_tells_what_passes_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = type(sys)("refusing_passes")
    passes.__dict__["mine"] = scalar_loops
    monkeypatch.setitem(sys.modules, "refusing_passes", passes)
    model = perceptron(tmp_path / "m.onnx")
    command = ["compile", str(model), "-o", str(tmp_path / "out"), "--no-log", "--no-verify"]
    command += ["--pass", "refusing_passes:mine"]
    told = CliRunner().invoke(app, command).stdout
    assert (
        "pass 'scalar_loops' (from refusing_passes:mine) refused: has an anchor; "
        "at kernel (from 'first', 'bias', 'activation'), kernel (from 'second')"
    ) in told
    shown = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["refused"]
    assert {"scalar_loops"} == {entry["pass"] for entry in shown if entry["origin"]}
    explained = CliRunner().invoke(app, [*command, "--explain"]).stdout
    own = [entry for entry in shown if not entry["origin"]]
    assert all(entry["reason"] in explained for entry in own)
    assert ("--explain tells why" in told) == bool(own)


MODULE = """
import planish
from planish.ir.builder import emit
from planish.passes.pattern import op, value
from planish.passes.rewrite import Rule

def double_neg(match):
    return emit("neg", emit("neg", emit("relu", match["x"])))

rule = Rule("relu by way of neg", op("relu", value("x"), where=lambda n: n.provenance), double_neg)

def my_pass(graph, target):
    return graph

def broken(graph, target):
    raise ValueError("no")

placed = planish.place(my_pass, before="fuse")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module and a model, as the current one."""
    (tmp_path / "users_passes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "users_passes", raising=False)
    return perceptron(tmp_path / "m.onnx")


def test_passes_are_loaded_by_name(module: Path) -> None:
    assert "my_pass" in labels("users_passes:my_pass")
    names = labels("users_passes:placed", "users_passes:my_pass@after=fold_scale")
    assert names[names.index("fuse") - 1] == "my_pass#2"
    assert names[names.index("fold_scale") + 1] == "my_pass"
    with pytest.raises(PlanishError, match=r"cannot load 'users_passes:nix' .*AttributeError"):
        assemble(["users_passes:nix"])
    with pytest.raises(PlanishError, match="after the @ stands after=NAME or before=NAME"):
        assemble(["users_passes:my_pass@fuse"])


def test_passes_on_the_command_line(module: Path) -> None:
    command = ["compile", "m.onnx", "-o", "out", "--no-verify", "--pass"]
    shown = CliRunner().invoke(
        app, [*command, "users_passes:my_pass@before=fuse", "--print-after", "my_pass"]
    )
    assert shown.exit_code == 0, shown.output
    assert "// after my_pass, unchanged" in shown.output
    failed = CliRunner().invoke(app, [*command, "users_passes:broken"])
    assert failed.exit_code == 2, "a mistake in a user's pass is not a failure of planish"
    assert "pass 'broken' (from users_passes:broken) failed at" in failed.output
    assert "users_passes.py:16" in failed.output


class _Package:
    """Stands for the distribution that an entry point is of."""

    name = "their-package"


def _install(monkeypatch: pytest.MonkeyPatch, group: str, **values: str) -> None:
    points = [
        EntryPoint(name, spec, group)._for(_Package())  # type: ignore[attr-defined]
        for name, spec in values.items()
    ]
    monkeypatch.setattr(
        custom, "entry_points", lambda group: [p for p in points if p.group == group]
    )


def test_passes_of_installed_packages_are_known_by_name(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, custom.PASS_GROUP, theirs="users_passes:my_pass", bad="nix:nix")
    assert custom.installed_passes()["theirs"] == "their-package users_passes:my_pass"
    names = labels("theirs@after=fold_scale")
    assert names[names.index("fold_scale") + 1] == "my_pass"
    assert "my_pass" not in labels(), "an installed pass runs only if it is asked for"
    with pytest.raises(PlanishError, match=r"cannot load 'nix:nix' \(their-package nix:nix\)"):
        assemble(["bad"])
    with pytest.raises(PlanishError, match=r"'their' is not .*; installed are: bad, theirs"):
        assemble(["their"])


# -- ops ------------------------------------------------------------------------------------------


def _same(types: object, attrs: object) -> tuple[object, ...]:
    return (types[0],)  # type: ignore[index]


def softclip(name: str = "softclip", kind: OpKind = OpKind.ELEMENTWISE) -> OpDef:
    """x / (1 + |x| / limit)."""
    return OpDef(
        name,
        "x / (1 + |x| / limit)",
        kind,
        (1, 1),
        _same,  # type: ignore[arg-type]
        lambda arrays, attrs: ((arrays[0] / (1 + np.abs(arrays[0]) / np.float32(attrs["limit"]))),),
        {"limit": AttrSpec((float,), 1.0)},
    )


def convert(call: Call) -> Value:
    """com.example.SoftClip."""
    return call.emit("softclip", call.value(0), limit=call.number("limit", 1.0))


def expression(node: Node, x: object) -> object:
    """The same as a TVM scalar."""
    from tvm import tirx

    one = tirx.const(1, "float32")
    return x / (one + tirx.abs(x) / tirx.const(node.attrs["limit"], "float32"))  # type: ignore


SOFTCLIP = CustomOp(softclip(), expression, ("com.example", "SoftClip", convert))


@pytest.fixture
def clipped(tmp_path: Path) -> Path:
    """y = SoftClip(x + x), x float32 (3, 21)."""
    return own_op(tmp_path / "clip.onnx", "com.example", "SoftClip")


def test_a_custom_op_is_imported_fused_compiled_and_verified(clipped: Path, tmp_path: Path) -> None:
    report = planish.compile(clipped, tmp_path / "out", ops=[SOFTCLIP])
    assert report.verification is not None
    assert report.verification.ok
    assert "onnxruntime refused" in report.verification.reference
    assert [set(kernel.ops) for kernel in report.manifest.kernels] == [{"add", "softclip"}]
    x = np.random.default_rng(3).standard_normal((3, 21)).astype("f4")
    with planish.load(tmp_path / "out") as model:
        np.testing.assert_allclose(
            model.run({"x": x})["y"], 2 * x / (1 + np.abs(x)), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(planish.UnsupportedModel, match="'own'"):
        planish.compile(clipped, tmp_path / "without")


def test_an_op_that_is_no_element_wise_one_gives_a_view(clipped: Path, tmp_path: Path) -> None:
    from planish.targets.expressions.view import View

    def flipped(node: Node, views: list[View], stages: object, plan: object) -> View:
        (x,) = views
        last = x.shape[-1] - 1
        return View(x.shape, x.dtype, lambda idx: x.read((*idx[:-1], last - idx[-1])))

    flip = OpDef(
        "flip_last", "last axis backwards", OpKind.MOVEMENT, (1, 1), _same,  # type: ignore
        lambda arrays, attrs: (arrays[0][..., ::-1],),
    )  # fmt: skip
    source = (
        "com.example",
        "SoftClip",
        lambda call: (call.number("limit"), call.emit("flip_last", call.value(0)))[1],
    )
    report = planish.compile(clipped, tmp_path / "out", ops=[CustomOp(flip, flipped, source)])
    assert report.verification is not None
    assert report.verification.ok


def test_lowering_errors_name_op_and_node(clipped: Path, tmp_path: Path) -> None:
    source = ("com.example", "SoftClip", convert)
    none = CustomOp(softclip(), None, source)
    with pytest.raises(TargetError, match=r"from 'own'.* has no lowering"):
        planish.compile(clipped, tmp_path / "a", ops=[none])
    wrong = CustomOp(softclip(), lambda node, x: x.nothing, source)
    with pytest.raises(TargetError, match="the expression of custom op 'softclip' failed: Attr"):
        planish.compile(clipped, tmp_path / "b", ops=[wrong])
    other = CustomOp(softclip(), lambda node, x: x.astype("int32"), source)
    with pytest.raises(TargetError, match="'softclip' gives int32, inference float32"):
        planish.compile(clipped, tmp_path / "c", ops=[other])


def test_a_custom_op_is_known_only_within_its_compilation() -> None:
    with pytest.raises(InvalidGraph, match="no op 'softclip'"):
        op_def("softclip")
    with extended([SOFTCLIP]):
        assert op_def("softclip") is SOFTCLIP.definition
        x = Input(tensor("float32", (2,)), "x")
        assert emit("softclip", x).node.attrs["limit"] == 1.0
        with pytest.raises(InvalidGraph, match="did you mean softclip"):
            op_def("softclp")
        with extended([]):
            assert op_def("softclip") is SOFTCLIP.definition
    assert "softclip" not in OPS


def test_names_that_are_taken_are_refused() -> None:
    def entered(*ops: CustomOp) -> Iterator[None]:
        with extended(ops):
            yield

    with pytest.raises(PlanishError, match="custom op 'relu' has the name of an op of planish"):
        next(entered(CustomOp(softclip("relu"))))
    with pytest.raises(PlanishError, match="'softclip' has the name of an op of another custom"):
        next(entered(SOFTCLIP, CustomOp(softclip())))
    with pytest.raises(PlanishError, match="both stand for the ONNX op 'SoftClip' of domain 'com"):
        next(entered(SOFTCLIP, CustomOp(softclip("b"), None, SOFTCLIP.onnx)))
    with pytest.raises(PlanishError, match="holds graphs"):
        CustomOp(softclip("c", OpKind.REGION))


def test_ops_of_installed_packages_are_found(
    clipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(monkeypatch, custom.OP_GROUP, softclip=f"{__name__}:SOFTCLIP")
    report = planish.compile(clipped, tmp_path / "out")
    assert report.verification is not None
    assert report.verification.ok
    _install(monkeypatch, custom.OP_GROUP, nothing=f"{__name__}:crash")
    with pytest.raises(PlanishError, match=r"their-package .*:crash' is no CustomOp, but function"):
        planish.compile(clipped, tmp_path / "again")


def test_the_pipeline_itself_is_untouched() -> None:
    assert assemble([]) == PASSES
    assert not any(step.origin for step in PASSES)
