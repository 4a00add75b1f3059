"""The command line: what it prints, where errors go, and its exit codes."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import planish
from planish.cli.app import app
from planish.cli.latency import Latencies
from planish.cli.terminal import printable
from planish.ir.reference import evaluate
from tests.compiler.small_models import embedding, perceptron


def run(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small perceptron."""
    return perceptron(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def artefact(model: Path) -> Path:
    """The compiled perceptron."""
    planish.compile(model, model.parent / "out", verify=False)
    return model.parent / "out"


@pytest.fixture
def inputs() -> np.ndarray:
    """Inputs of the perceptron."""
    return np.random.default_rng(5).standard_normal((2, 12)).astype("f4")


def test_version() -> None:
    assert run("--version") == (0, f"planish {planish.__version__}\n", "")


def test_help_and_the_module() -> None:
    for command in ([], ["compile"], ["log"], ["log", "ls"], ["tune"]):
        short, long = run(*command, "-h"), run(*command, "--help")
        assert short == long
        assert short[0] == 0
        assert "-h, --help" in short[1]
    done = subprocess.run(
        [sys.executable, "-m", "planish", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"planish {planish.__version__}\n"


def test_the_shell_completes() -> None:
    environ = {
        "_PLANISH_COMPLETE": "complete_bash",
        "COMP_WORDS": "planish comp",
        "COMP_CWORD": "1",
    }
    result = CliRunner().invoke(app, [], env=environ, prog_name="planish")
    assert result.stdout.split() == ["compile"]


def test_compile_reports(model: Path, tmp_path: Path) -> None:
    code, out, _ = run("compile", model, "-o", tmp_path / "out", "-v", "--threads", 1)
    assert code == 0
    assert "kernels for target 'host'" in out
    assert "verified against" in out
    assert "activation" in out  # an ONNX node, in the table of kernels
    assert "generate" in out


def test_compile_reports_json(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "open.onnx", batch="n")
    flags = ["--dim", "n=3", "--name", "mlp", "--no-verify", "--json"]
    code, out, _ = run("compile", model, "-o", tmp_path / "out", *flags)
    assert code == 0
    report = json.loads(out)
    assert report["name"] == "mlp"
    assert report["verify"] == {"skipped": "not asked for"}
    assert report["artefact_bytes"] > report["weights_bytes"] > 0
    assert (tmp_path / "out/libmlp.so").exists()


def test_print_after_shows_the_graph(model: Path, tmp_path: Path) -> None:
    command = ["compile", model, "-o", tmp_path / "out", "--no-verify"]
    code, out, _ = run(*command, "--print-after", "fuse")
    assert code == 0
    assert "// after fuse\n" in out
    assert "kernel(" in out
    code, out, err = run(*command, "--print-after", "all", "--json")
    assert code == 0
    json.loads(out)
    assert "// after fold_constants" in err
    assert "// after assign_default_schedules" in err
    code, _, err = run(*command, "--print-after", "fusion")
    assert code == 2
    assert "--print-after fusion: there is no such pass; passes are fold_constants" in err


@pytest.mark.parametrize("form", ["npz", "one npz", "npy", "raw"])
def test_run_reads_and_writes_files(
    form: str, model: Path, artefact: Path, inputs: np.ndarray, tmp_path: Path
) -> None:
    expected = evaluate(planish.import_model(model), {"x": inputs})["y"]
    np.savez(tmp_path / "in.npz", x=inputs)
    np.save(tmp_path / "in.npy", inputs)
    inputs.tofile(tmp_path / "in.raw")
    flags = {
        "npz": ["--npz", tmp_path / "in.npz", "-o", tmp_path / "out.npz"],
        "one npz": ["-i", f"x={tmp_path / 'in.npz'}", "-o", tmp_path / "out.npz"],
        "npy": ["-i", f"x={tmp_path / 'in.npy'}", "-o", tmp_path / "out.npy"],
        "raw": ["-i", f"x={tmp_path / 'in.raw'}", "-o", tmp_path / "out.raw"],
    }
    code, out, err = run("run", artefact, *flags[form])
    assert (code, err) == (0, "")
    assert "outputs are in" in out
    read = {
        "npz": lambda: np.load(tmp_path / "out.npz")["y"],
        "one npz": lambda: np.load(tmp_path / "out.npz")["y"],
        "npy": lambda: np.load(tmp_path / "out.npy"),
        "raw": lambda: np.fromfile(tmp_path / "out.raw", "f4").reshape(2, 5),
    }
    np.testing.assert_allclose(read[form](), expected, rtol=1e-5, atol=1e-5)


def test_run_measures(artefact: Path) -> None:
    code, out, _ = run("run", artefact, "--random", "--repeat", 5, "--time", "--threads", 1)
    assert code == 0
    assert "latency of 5 runs: min " in out
    assert "float32[2, 5]" in out
    code, out, _ = run("run", artefact, "--random", "--repeat", 5, "--time", "--json")
    shown = json.loads(out)
    assert shown["seconds"]["runs"] == 5
    assert shown["outputs"] == {"y": {"dtype": "float32", "shape": [2, 5]}}
    assert len(shown["kernels"]) == len(planish.load(artefact).kernels)
    figures = [shown["seconds"][key] for key in ("min", "p50", "p90", "p99", "max")]
    assert figures[0] > 0
    assert figures == sorted(figures)
    assert shown["throughput"] == pytest.approx(1 / shown["seconds"]["mean"])


def test_run_for_a_duration(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["run", artefact, "--random", "--json", "--warm-up", 3]
    shown = json.loads(run(*flags, "--duration", "0.05s")[1])
    assert shown["seconds"]["runs"] >= 1
    assert not shown["interrupted"]
    assert json.loads(run(*flags, "--duration", "1h", "--repeat", 4)[1])["seconds"]["runs"] == 4
    code, _, err = run(*flags[:-3], "--duration", "soon")
    assert (code, err) == (
        2,
        "planish: --duration 'soon' is no time; write 90s, 10m, 1m30s or 1.5h\n",
    )
    # Ctrl-C loses nothing of what was measured.
    model_run, calls = planish.Model.run, []

    def interrupted(self: planish.Model, *arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3 + 7:
            raise KeyboardInterrupt
        return model_run(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(planish.Model, "run", interrupted)
    code, out, _ = run(*flags, "--duration", "1h")
    assert code == 130
    assert json.loads(out)["seconds"]["runs"] == 6
    assert json.loads(out)["interrupted"]


def test_percentiles() -> None:
    found = Latencies(tuple(1e-3 * n for n in range(1, 102))).figures()
    assert {key: round(1e3 * value, 6) for key, value in found.items()} == {
        "min": 1, "mean": 51, "p50": 51, "p90": 91, "p99": 100, "max": 101
    }  # fmt: skip


def test_run_writes_a_trace(model: Path, artefact: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    before = time.monotonic()
    code, out, _ = run("run", artefact, "--random", "--trace", path)
    assert code == 0
    assert "ui.perfetto.dev" in out
    told = json.loads(path.read_text())
    kernels = [event for event in told["traceEvents"] if event.get("cat") == "kernel"]
    (whole,) = [event for event in told["traceEvents"] if event.get("cat") == "run"]
    loaded = planish.load(artefact)
    assert [event["name"] for event in kernels] == [kernel.name for kernel in loaded.kernels]
    nodes = [node for event in kernels for node in event["args"]["onnx_nodes"]]
    assert {"first", "second"} <= {*nodes}
    for event, following in pairwise(kernels):  # one after the other, in real time
        assert event["dur"] >= 0
        assert following["ts"] >= event["ts"] + event["dur"] - 2e-3
    assert whole["ts"] == kernels[0]["ts"] == 0
    assert whole["dur"] >= sum(event["dur"] for event in kernels) - 1e-2
    x = np.zeros((2, 12), "f4")
    begins = [begin for _, begin, _ in loaded.trace({"x": x})]
    assert begins == sorted(begins)
    assert before <= begins[0] <= time.monotonic()
    code, _, err = run("run", artefact, "--random", "--trace", tmp_path / "none/trace.json")
    assert code == 2
    assert "cannot write" in err


def test_random_ids_are_in_range(tmp_path: Path) -> None:
    planish.compile(embedding(tmp_path / "rows.onnx"), tmp_path / "out", verify=False)
    code, _, _ = run("run", tmp_path / "out", "--random", "-o", tmp_path / "out.npz")
    assert code == 0
    assert np.abs(np.load(tmp_path / "out.npz")["rows"]).max() > 0.1
    code, _, err = run("run", tmp_path / "out", "--random", "-o", tmp_path / "out.npy")
    assert code == 2
    assert "the model has 2 outputs" in err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "no value for the inputs 'x' float32[2, 12]; give --input NAME=FILE"),
        (["-i", "z=in.npy"], "--input z=in.npy is not NAME=FILE for one of the inputs 'x'"),
        (["-i", "x=missing.npy"], "cannot read 'missing.npy' for input 'x'"),
        (["--npz", "missing.npz"], "cannot read 'missing.npz' as .npz"),
    ],
)
def test_run_tells_what_is_wrong_with_inputs(artefact: Path, flags: list[str], told: str) -> None:
    code, out, err = run("run", artefact, *flags)
    assert (code, out) == (2, "")
    assert told in err


def test_raw_input_of_the_wrong_size(artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(95))
    code, _, err = run("run", artefact, "-i", f"x={tmp_path / 'x.bin'}")
    assert code == 2
    assert "has 95 bytes, but input 'x' float32[2, 12] takes 96" in err


def test_inspect_artefact(artefact: Path, tmp_path: Path) -> None:
    code, out, _ = run("inspect", artefact, "--check")
    assert code == 0
    assert "every file is as the manifest.json says" in out
    assert "float32[2, 12]" in out
    assert "verified: no (not asked for)" in out
    code, out, _ = run("inspect", artefact, "--json")
    assert json.loads(out)["inputs"] == [{"name": "x", "dtype": "float32", "shape": [2, 12]}]


def test_inspect_finds_a_changed_weight(model: Path, tmp_path: Path) -> None:
    planish.compile(model, tmp_path / "out", verify=False)
    weights = tmp_path / "out/weights.bin"
    changed = bytearray(weights.read_bytes())
    changed[3] ^= 1
    weights.write_bytes(changed)
    assert run("inspect", tmp_path / "out")[0] == 0
    code, _, err = run("inspect", tmp_path / "out", "--check")
    assert code == 2
    assert "weights.bin' was changed after it was written" in err


def test_inspect_model(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "open.onnx", batch="batch")
    code, out, _ = run("inspect", model)
    assert code == 0
    assert "float32[batch, 12]" in out
    assert "matmul" in out
    code, out, _ = run("inspect", model, "--json")
    shown = json.loads(out)
    assert shown["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 12]}]
    assert shown["parameters"] == 12 * 16 + 16 + 16 * 5
    assert shown["ops"]["matmul"] == 2


def test_inspect_fixes_dimensions(artefact: Path, tmp_path: Path) -> None:
    model = perceptron(tmp_path / "open.onnx", batch="batch")
    for flags in (["--dim", "batch=7"], ["--shape", "x=7,12"]):
        code, out, err = run("inspect", model, *flags)
        assert (code, err) == (0, "")
        assert "float32[7, 12]" in out
        assert "float32[7, 5]" in out
    static = perceptron(tmp_path / "static.onnx")
    code, out, err = run("inspect", static, "--dim", "batch=7", "--json")
    assert code == 0
    assert err == (
        "planish: note: --dim batch=7 changes nothing: the model leaves no dimension open\n"
    )
    assert json.loads(out)["inputs"][0]["shape"] == [2, 12]
    code, _, err = run("inspect", artefact, "--dim", "batch=7")
    assert code == 2
    assert "--dim and --shape are of models; the artefact" in err


def test_inspect_shows_what_cannot_be_compiled(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "odd.onnx", batch="batch", op="NoSuchOp")
    code, out, err = run("inspect", model)
    assert code == 2
    assert "node 'activation' (NoSuchOp): this op is not supported" in err
    assert "--dim" not in err
    assert "Ops, as in the model" in out
    assert "float32[batch, 12]" in out.replace("float[", "float32[")
    code, out, err = run("inspect", model, "--json")
    shown = json.loads(out)
    assert shown["ops"] == {"MatMul": 2, "Add": 1, "NoSuchOp": 1}
    assert shown["parameters"] == 12 * 16 + 16 + 16 * 5
    assert shown["weights_bytes"] == 4 * shown["parameters"]
    assert json.loads(err)["error"]["type"] == "UnsupportedModel"
    compiled = run("compile", model, "-o", tmp_path / "out")
    assert "node 'activation' (NoSuchOp): this op is not supported" in compiled[2]


HOSTILE = "\x1b[2Jclear\x07\x9b31m\u202etxt [red]x[/red] \r"


def test_names_command_no_terminal(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "model.onnx", batch="batch")
    proto = onnx.load(model)
    proto.graph.node[2].name = HOSTILE
    proto.graph.node[2].op_type = HOSTILE
    proto.graph.node[3].input[0] = proto.graph.node[2].output[0] = HOSTILE
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = HOSTILE
    onnx.save(proto, model)
    shown = [run("inspect", model), run("compile", model, "-o", tmp_path / "out")]
    proto.graph.node[2].op_type = "Relu"
    onnx.save(proto, model)
    shown += [
        run("inspect", model),
        run("compile", model, "-o", tmp_path / "out"),
        run("compile", model, "-o", tmp_path / "out", "--shape", "x=1,12", "-v"),
        run("opt", model, "--shape", "x=1,12", "--print-after", "all", "--explain"),
        run("inspect", tmp_path / "out"),
        run("run", tmp_path / "out", "-i", f"{HOSTILE}=x"),
    ]
    for _, out, err in shown:
        assert not set(out + err) & set("\x1b\x07\x9b\u202e\r")
    assert "\\x1b[2Jclear\\x07" in shown[0][2]
    assert "[red]x[/red]" in shown[0][2]


def test_printable_keeps_text() -> None:
    for text in ("plain", "ünï → 日本", "a\tb\nc", "µs", "e\u0301"):
        assert printable(text) == text
    assert printable("\x00\x7f\x85\u2028\udc80\u2066") == ("\\x00\\x7f\\x85\\u2028\\udc80\\u2066")


def test_targets() -> None:
    code, out, _ = run("targets")
    assert code == 0
    assert "cortex-a72" in out
    code, out, _ = run("targets", "--json")
    assert json.loads(out)["targets"][0]["name"] == "host"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--target", "z80"], "unknown target 'z80'; known targets are host, x86-64-v2"),
        (["--dim", "batch"], "--dim batch is not NAME=NUMBER, e.g. --dim batch=1"),
        (["--dim", "batch=-1"], "--dim batch=-1 is not NAME=NUMBER"),
        (["--shape", "x=2,a"], "--shape x=2,a is not INPUT=N,N,…"),
        (["--shape", "x=3,12"], "--shape x=3,12"),
    ],
)
def test_users_mistakes_are_one_line_and_exit_code_2(
    model: Path, tmp_path: Path, flags: list[str], told: str
) -> None:
    code, out, err = run("compile", model, "-o", tmp_path / "out", *flags)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_broken_model_as_json(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("no model")
    code, out, err = run("compile", tmp_path / "model.onnx", "-o", tmp_path / "out", "--json")
    assert (code, out) == (2, "")
    error = json.loads(err)["error"]
    assert error["type"] == "InvalidModel"
    assert "model.onnx" in error["message"]
    assert "log" not in error


def test_missing_model(tmp_path: Path) -> None:
    code, _, err = run("compile", tmp_path / "model.onnx", "-o", tmp_path / "out")
    assert code == 2
    assert "cannot read" in err


def test_a_crash_is_ours_and_leaves_a_log(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the roof is down")

    monkeypatch.setattr("planish.driver.link_library", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run("compile", model, "-o", tmp_path / "out", "--json")
    assert (code, out) == (1, "")
    error = json.loads(err)["error"]
    assert error["message"] == "RuntimeError: the roof is down"
    log = Path(error["log"]).read_text()
    assert "Traceback" in log
    assert "in broken" in log
    code, _, err = run("compile", model, "-o", tmp_path / "out")
    assert code == 1
    assert err.startswith("planish: RuntimeError: the roof is down\nThis is a failure of planish")
    assert not (tmp_path / "out").exists()


def test_interrupt_leaves_nothing_and_exits_130(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planish.driver.emit", interrupted)
    code, _, err = run("compile", model, "-o", tmp_path / "out")
    assert code == 130
    assert err == "planish: interrupted; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_emits_code_of_kernels(model: Path, tmp_path: Path) -> None:
    flags = ["compile", model, "--no-log", "--threads", 1]
    marks = {"tir": "T.prim_func", "llvm": "define ", "asm": ".globl"}
    for kind, mark in marks.items():
        code, out, err = run(*flags, "--emit", kind)
        assert (code, err) == (0, "")
        assert out.count(": kernel ") == 2
        assert mark in out
        assert "from 'first', 'bias', 'activation'" in out
        code, one, _ = run(*flags, "--emit", kind, "--kernel", "second")  # an ONNX node
        assert one.count(": kernel ") == 1
        assert "'first'" not in one
        assert one.strip().splitlines()[0] in out
    folder = tmp_path / "code"
    code, out, _ = run(
        *flags, "-o", tmp_path / "out", "--emit", "asm", "--emit-to", folder, "--json"
    )
    shown = json.loads(out)
    assert code == 0
    assert (tmp_path / "out/manifest.json").exists()
    files = sorted(folder.iterdir())
    assert sorted(entry["file"] for entry in shown["emitted"]) == [str(path) for path in files]
    for path in files:
        assert f"{path.stem}:" in path.read_text()  # the label of the function
    for wrong, told in [
        (["--emit", "wasm"], "--emit wasm is none of tir, llvm, asm"),
        (["--emit", "asm", "--kernel", "third"], "no kernel is called 'third'"),
        (["--emit", "asm", "--emit-to", model], "is a file; name a folder"),
        (["--kernel", "first"], "--emit-to and --kernel are of --emit KIND"),
        ([], "planish compile takes --output FOLDER"),
    ]:
        code, out, err = run(*flags, *wrong)
        assert (code, out) == (2, "")
        assert told in err


def test_symbols_name_the_kernels(model: Path, tmp_path: Path) -> None:
    flags = ["compile", model, "--no-log", "--no-verify", "--json", "--symbols"]
    shown = [json.loads(run(*flags, "-o", tmp_path / name)[1]) for name in ("a", "b")]
    assert shown[0]["digest"] == shown[1]["digest"]  # the same bytes
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["options"]["symbols"] is True
    run(*flags[:-1], "-o", tmp_path / "stripped")
    emitted = json.loads(run("compile", model, "--no-log", "--json", "--emit", "tir")[1])["emitted"]
    (library,) = (tmp_path / "a").glob("*.so")
    (stripped,) = (tmp_path / "stripped").glob("*.so")
    for entry in emitted:
        symbol = entry["symbol"].encode()
        assert symbol in library.read_bytes()
        assert symbol not in stripped.read_bytes()
    assert "symbols" not in json.loads((tmp_path / "stripped/manifest.json").read_text())["options"]
    x = np.random.default_rng(1).standard_normal((2, 12)).astype("f4")
    plain, named = (planish.load(tmp_path / name).run({"x": x})["y"] for name in ("stripped", "a"))
    assert np.array_equal(plain, named)


def test_what_cannot_be_written_is_told_before_the_work(
    model: Path, artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("it was told too late")

    for work in ("tuning.tune", "optimising.explain", "bisecting.bisect", "running.run_course"):
        importlib.import_module(f"planish.cli.{work.partition('.')[0]}")
        monkeypatch.setattr(f"planish.cli.{work}", never)
    (tmp_path / "file").touch()
    missing = tmp_path / "none/here"
    for command in (
        ["run", artefact, "--random", "-o", missing],
        ["run", artefact, "--random", "--trace", missing],
        ["opt", model, "-o", missing.with_suffix(".txt")],
        ["opt", model, "-o", tmp_path / "file/x.dot"],
        ["bisect", model, "-o", missing],
        ["bisect", model, "-o", tmp_path],
        ["tune", model, "-o", tmp_path / "out", "--report", tmp_path / "file/report"],
        ["tune", model, "-o", tmp_path / "out", "--report", tmp_path / "file"],
    ):
        code, out, err = run(*command)
        assert (code, out) == (2, ""), command
        assert len(err.splitlines()) == 1
        assert str(tmp_path) in err


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device; make room"),
        (OSError(errno.EDQUOT, "Quota exceeded", "/x"), 2, "cannot write '/x': Quota exceeded"),
        (PermissionError(errno.EACCES, "Permission denied", "OUT/kernels"), 2, "cannot use '"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/our/own"), 1, "failure of planish"),
        (OSError("odd"), 1, "failure of planish"),
    ],
)
def test_what_the_system_refuses_is_no_failure_of_ours(
    error: OSError, expected: int, told: str, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*arguments: object, **options: object) -> None:
        if error.filename and error.filename.startswith("OUT"):
            error.filename = str(tmp_path / "out/kernels")
        raise error

    monkeypatch.setattr("planish.driver.emit", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, err = run("compile", model, "-o", tmp_path / "out")
    assert (code, out) == (expected, "")
    assert told in err
    # Nowhere to write a log: the trace goes where somebody sees it.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    if expected == 1:
        assert "Traceback" in run("compile", model, "-o", tmp_path / "out")[2]
