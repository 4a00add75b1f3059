"""`planish log` and the options of `planish compile` that are about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from planish.cli.app import app
from planish.logged_schedules import hardware_of
from tests.autotune_log.logged_model import HOST, fused, kernels_of, log_of, sister, trial_of
from tests.autotune_log.logs import STRANGER, TASK, read, trial, write
from tests.compiler.small_models import perceptron


def run(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    return result.exit_code, result.stdout, result.stderr


def run_json(*args: object) -> Any:
    """The JSON that a command prints."""
    code, out, err = run(*args, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Records of this machine, one of its class and a stranger, and a torn line."""
    path = write(
        tmp_path / "log.jsonl",
        trial(2e-3, point={"vector": 4}, about="relu float32[7]"),
        trial(1e-3, about="relu float32[7]"),
        trial(None, "wrong", point={"vector": 2}, about="relu float32[7]"),
        hardware=hardware_of(HOST),
    )
    write(path, trial(3e-3, task="cd" * 32), hardware=sister())
    write(path, trial(4e-3), hardware=STRANGER)
    path.write_bytes(path.read_bytes() + b'# note\n{"torn')
    return path


def test_ls(log: Path) -> None:
    code, out, _ = run("log", "ls", log)
    assert code == 0
    for told in ("relu float32[7]", TASK[:12], "exact", "class", "seed", "pointwise v", "1 ms"):
        assert told in out
    facts = run_json("log", "ls", log)
    (file,) = facts["files"]
    assert file["bytes"] == log.stat().st_size + 1, "the torn line has no end"
    counts = {key: file[key] for key in ("records", "races", "torn", "foreign", "orphans")}
    assert counts == {"records": 5, "races": 0, "torn": 1, "foreign": 1, "orphans": 0}
    assert [h["grade"] for h in facts["hardware"]] == ["exact", "class", "seed"]
    assert [h["records"] for h in facts["hardware"]] == [3, 1, 1]
    first = facts["tasks"][0]
    assert (first["task"], first["trials"], first["failed"], first["best"]) == (TASK, 3, 1, 1e-3)


def test_show(log: Path) -> None:
    code, out, _ = run("log", "show", "abab", log)
    assert code == 0
    for told in (TASK, "vector=4", "2 ms", "wrong: a wrong", "1.9 ms to 2.2 ms"):
        assert told in out
    records = run_json("log", "show", "abab", log)["records"]
    assert [r.get("median") for r in records] == [2e-3, 1e-3, None, 4e-3]
    assert records[2]["kind"] == "wrong"
    assert records[0]["point"] == {"vector": 4}


def test_tasks_that_are_not_there(log: Path) -> None:
    code, _, err = run("log", "show", "77", log)
    assert (code, err) == (2, f"planish: no task '77' in {log}; `planish log ls` lists them\n")
    code, _, err = run("log", "show", "", log)
    assert (code, err) == (2, f"planish: '' begins 2 tasks: {TASK[:12]}, {'cd' * 6}\n")


def test_explain_a_task(log: Path) -> None:
    verdicts = run_json("log", "explain", TASK, log, "--threads", 2)["records"]
    assert [v["used"] for v in verdicts] == [False, True, False, False]
    assert [v["grade"] for v in verdicts] == ["exact", "exact", "exact", "seed"]
    assert verdicts[1]["reason"] == "used: the fastest point measured on this very hardware"
    code, out, _ = run("log", "explain", TASK, log, "--threads", 3)
    assert code == 0
    assert "a seed only: measured with 2 threads, and 3 are asked for" in out


def test_explain_spaces_that_are_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "log", trial(1e-3, space="novel"), spaces={"novel": 1})
    (verdict,) = run_json("log", "explain", TASK, path)["records"]
    assert (verdict["used"], verdict["grade"]) == (False, "seed")
    assert verdict["reason"] == "not used: planish has no space 'novel'"


def test_explain_a_model(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx", batch="n")
    fixed = perceptron(tmp_path / "fixed.onnx")
    path = log_of(tmp_path / "log", fixed)
    facts = run_json("log", "explain", model, path, "--dim", "n=2")
    assert (facts["exact"], facts["class"], facts["untuned"]) == (2, 0, 0)
    code, out, _ = run("log", "explain", fixed, path, "--target", "cortex-a72")
    assert code == 0
    assert "0 kernels as measured on this hardware, 0 as on its class, 2 untuned" in out


def test_merge_and_diff(log: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", trial(5e-4), trial(1.0, task="ef" * 32))
    write(other, trial(5e-4, about="relu"), hardware=hardware_of(HOST))
    code, out, _ = run("log", "diff", log, other)
    assert code == 0
    assert "0.500" in out
    assert f"5 tasks, 2 only in {log}, 2 only in {other}" in out
    rows = run_json("log", "diff", log, other)["tasks"]
    assert [(r["left"] or {}).get("median") for r in rows] == [1e-3, 3e-3, 4e-3, None, None]
    assert [(r["right"] or {}).get("median") for r in rows] == [5e-4, None, None, 5e-4, 1.0]
    assert rows[0]["about"] == "relu float32[7]"
    code, out, _ = run("log", "merge", log, other, "-o", tmp_path / "out")
    assert (code, out) == (0, f"{tmp_path / 'out'}: 14 lines added, 0 were there\n")
    again = run_json("log", "merge", other, log, "-o", tmp_path / "out")
    assert (again["added"], again["present"]) == (0, 14)
    assert b"# note\n" in (tmp_path / "out").read_bytes()


def test_prune(log: Path) -> None:
    before = log.read_bytes()
    told = "1 records {} (1 of slower points, 0 failures, 0 of older spaces), 4 kept\n"
    code, out, _ = run("log", "prune", log, "--keep", 1, "--dry-run")
    assert (code, out) == (0, f"{log}: {told.format('would be dropped')}")
    assert log.read_bytes() == before
    assert run_json("log", "prune", log, "--keep", 1, "--dry-run")["dropped"] == 1
    code, out, _ = run("log", "prune", log, "--keep", 1)
    assert (code, out) == (0, f"{log}: {told.format('dropped')}")
    assert len(log.read_bytes()) < len(before)


def test_export(log: Path, tmp_path: Path) -> None:
    code, out, _ = run("log", "export", log, "-o", tmp_path / "best")
    assert (code, out) == (0, f"{tmp_path / 'best'}: 3 records\n")
    assert [r.trial.median for r in read(tmp_path / "best").records] == [1e-3, 3e-3, 4e-3]
    code, _, err = run("log", "export", log, "-o", tmp_path / "best")
    assert code == 2
    assert err.startswith(f"planish: '{tmp_path / 'best'}' exists; ")


def test_what_is_stored_is_the_default(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    code, _, err = run("log", "ls")
    store = tmp_path / "data/planish/tuning.jsonl"
    assert (code, err) == (
        2,
        f"planish: there is no tuning log: '{store}' does not exist yet, and no file is named\n",
    )
    run("log", "merge", log, "-o", store)
    assert run_json("log", "ls")["files"][0]["file"] == str(store)
    assert run_json("log", "prune", "--dry-run")["file"] == str(store)
    monkeypatch.setenv("PLANISH_LOG", str(log))
    assert run_json("log", "ls")["files"][0]["file"] == str(log)


def test_errors_are_one_sentence(tmp_path: Path) -> None:
    for command in (
        ["ls", tmp_path / "none"],
        ["merge", tmp_path / "none", "-o", tmp_path / "out"],
        ["diff", tmp_path / "none", tmp_path / "none"],
        ["prune", tmp_path / "none"],
    ):
        code, out, err = run("log", *command)
        assert (code, out) == (2, "")
        assert err == (
            f"planish: tuning log '{tmp_path / 'none'}' cannot be read: No such file or directory\n"
        )
    code, _, err = run("log", "ls", tmp_path / "none", "--json")
    assert json.loads(err)["error"]["type"] == "TuningError"


def test_compile_with_a_log(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx")
    log = log_of(tmp_path / "log", model)
    first, _ = kernels_of(fused(model))
    write(log, trial_of(first, {"novel": 7}, 1e-9), hardware=hardware_of(HOST))
    command = ["compile", model, "-o", tmp_path / "out", "--no-verify"]
    code, out, _ = run(*command, "--log", log)
    assert code == 0
    assert "1 kernels as measured on this hardware, 0 as on its class, 1 untuned; " in out
    assert "refused: the point novel=7 of 2026-01-31T12:00:00Z" in out
    facts = run_json(*command, "--log", log)["log"]
    assert (facts["exact"], facts["untuned"], facts["refused"]) == (1, 1, 1)
    assert facts["files"] == [str(log)]
    assert run_json(*command, "--no-log")["log"] is None
    code, _, err = run(*command, "--no-log", "--log", log)
    assert (code, err) == (2, "planish: --log and --no-log exclude each other\n")
    code, _, err = run(*command, "--log", tmp_path / "none")
    assert code == 2
    assert "none' cannot be read: No such file or directory" in err
    code, out, _ = run(*command, "--log", log, "--print-after", "assign_default_schedules")
    assert code == 0
    assert out.count("// after ") == 1
