"""`planish tune` as users run it: an artefact, a log, a report; then a compile for nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

import planish
import planish.deciding
import planish.racing
import planish.tuning
from planish.autotune.apply_log import KernelOutcome
from planish.autotune.log import Race, TuningLog
from planish.autotune.log.record import present
from planish.autotune.measure import Measurer, Options
from planish.autotune.search import Budget
from planish.bench.peaks import Bandwidth, Level, Peaks
from planish.cli.app import app
from planish.cli.tuning import TuningProgress, live_table, parse_budget
from planish.ir.errors import PlanishError, TuningError
from planish.ir.seconds import read_seconds
from planish.targets.hardware import usable_cores
from tests.autotune_log.logged_model import log_of
from tests.compiler.small_models import perceptron
from tests.search.standings import STANDING, TUNING

#: Two threads at most: the machine of a test may be small.
THREADS = min(2, usable_cores())


def invoke(*arguments: object) -> Result:
    """Runs the command."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """All files of an artefact."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def race_of(speed: float) -> Callable[..., tuple[Race, float]]:
    """In place of a race: one of this outcome."""

    def race(
        graph: object, plain: Path, best: Path, points: str, threads: int, *others: object
    ) -> tuple[Race, float]:
        return Race(points, threads, 1e-6, speed * 1e-6, speed, present()), 0.0

    return race


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short trials and turns: what comes of them does not matter here."""
    monkeypatch.setattr(planish.racing, "_ROUNDS", 1)
    monkeypatch.setattr(planish.racing, "_TURN_SECONDS", 0.01)
    hasty = Options(budget=0.02, patience=0.0, precision=9.0)  # never too noisy
    monkeypatch.setattr(
        planish.tuning, "Measurer", lambda backend, target, _: Measurer(backend, target, hasty)
    )
    levels = (Level("L1", 32 << 10, False), Level("DRAM", None, True))
    peaks = Peaks(
        dict.fromkeys(range(1, usable_cores() + 1), 1e11),
        tuple(Bandwidth(v, n, 1, 1e10) for v in levels for n in range(1, usable_cores() + 1)),
    )
    monkeypatch.setattr(planish.tuning, "measure_peaks", lambda threads, progress: peaks)


@pytest.mark.usefixtures("quick")
def test_tune_then_compile_without_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is faster is not the question here.
    monkeypatch.setattr(planish.deciding, "race_artefacts", race_of(2.0))
    monkeypatch.setattr(planish.deciding, "losing_tasks", lambda *arguments: ())
    monkeypatch.setattr(planish.tuning, "confirm", lambda tuning, *others: tuning)
    model = perceptron(tmp_path / "small.onnx")
    log, output, report = tmp_path / "log", tmp_path / "out", tmp_path / "report"
    done = invoke(
        "tune", model, "-o", output, "--trials", 6, "--log", log, "--report", report,
        "--threads", THREADS, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["tuning"]["trials"] == 6
    if told["race"] is not None:  # else the defaults won
        assert told["shipped"] == "tuned"
        assert told["race"]["speed"] == 2.0
    assert len(TuningLog.read([log]).records) == 6
    assert json.loads((report / "report.json").read_text()) == told
    assert "<svg" in (report / "report.html").read_text()
    # Compiled from the log: no trial, the same bytes.
    again = tmp_path / "again"
    compiled = invoke("compile", model, "-o", again, "--log", log, "--threads", THREADS, "--json")
    assert compiled.exit_code == 0, compiled.output
    logged = json.loads(compiled.stdout)["log"]
    assert logged["exact"] == 2
    assert len(TuningLog.read([log]).records) == 6
    assert folder_bytes(output) == folder_bytes(again)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again", "log", "out", "report", "small.onnx"
    ]  # fmt: skip
    assert planish.tune is planish.tuning.tune
    x = np.random.default_rng(0).standard_normal((2, 12)).astype("f4")
    assert planish.load(output).run({"x": x})["y"].shape == (2, 5)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measuring is done: what is in the log is all there is."""
    monkeypatch.setattr(planish.tuning, "_measure", lambda *arguments: TUNING)
    monkeypatch.setattr(planish.racing, "_ROUNDS", 1)
    monkeypatch.setattr(planish.racing, "_TURN_SECONDS", 0.01)


@pytest.mark.usefixtures("measured")
def test_slower_than_untuned_is_never_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perceptron(tmp_path / "small.onnx")
    log = log_of(tmp_path / "log", model)
    monkeypatch.setattr(planish.deciding, "race_artefacts", race_of(0.909))
    report = planish.tuning.tune(model, tmp_path / "out", log=log)
    assert not report.tuned
    assert report.verdict == (
        "the tuned artefact is only 0.909 times as fast as untuned, "
        "so the untuned one was put in place"
    )
    planish.compile(model, tmp_path / "untuned", log=False)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "untuned")
    # The log has fast points, and knows that they are slow together.
    compiled = planish.compile(model, tmp_path / "again", log=log)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "again")
    assert compiled.log is not None
    assert compiled.log.count("untuned") == 2
    assert "only 0.909 times as fast as without" in str(compiled.log)
    once_more = planish.tuning.tune(model, tmp_path / "out", log=log)
    assert once_more.race is None
    assert "only 0.909 times as fast as without" in once_more.verdict


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("speeds", "left"), [((0.95, 1.05), 1), ((1.02, 1.05), 1), ((1.02, 1.01), 0), ((0.95, 0.9), 2)]
)
def test_tasks_that_lose_in_the_model_are_left_untuned_if_that_is_faster(
    speeds: tuple[float, float], left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perceptron(tmp_path / "small.onnx")
    log = log_of(tmp_path / "log", model)
    races = iter([race_of(speed) for speed in speeds])
    monkeypatch.setattr(
        planish.deciding, "race_artefacts", lambda *arguments: next(races)(*arguments)
    )
    asked: list[tuple[KernelOutcome, ...]] = []

    def losing(graph: object, plain: Path, best: Path, outcomes: Any, *others: object) -> Any:
        asked.append(outcomes)
        return (outcomes[0].task,)

    monkeypatch.setattr(planish.deciding, "losing_tasks", losing)
    report = planish.tuning.tune(model, tmp_path / "out", log=log)
    assert [outcome.outcome for (outcomes,) in [asked] for outcome in outcomes] == ["exact"] * 2
    assert report.tuned == (left < 2)
    if left == 1:
        assert "the tuned artefact, with 1 kernel left untuned, is 1.050 times" in report.verdict
    compiled = planish.compile(model, tmp_path / "again", log=log)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "again")
    assert compiled.log is not None
    assert compiled.log.count("untuned") == left
    if left == 1:
        assert compiled.log.left == compiled.log.kernels[:1]
        assert "1 of them left so because they were slower in the model" in str(compiled.log)


@pytest.mark.usefixtures("measured")
def test_artefacts_take_turns(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx")
    report = planish.tuning.tune(model, tmp_path / "out", log=log_of(tmp_path / "log", model))
    race = report.race
    assert race is not None
    assert race.tuned > 0
    assert race.untuned > 0
    assert report.tuned == (race.speed >= 1)
    assert f"{race.speed:.3f} times as fast as untuned" in report.verdict


@pytest.mark.usefixtures("measured")
def test_same_code_takes_no_turns(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx")
    (tmp_path / "log").touch()
    report = planish.tuning.tune(model, tmp_path / "out", log=tmp_path / "log")
    assert report.race is None
    assert not report.tuned
    assert report.verdict.startswith("no kernel has a better schedule than its default")


def test_interrupt_while_measuring_ends_in_an_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perceptron(tmp_path / "small.onnx")
    interrupted = dataclasses.replace(TUNING, interrupted=True)
    monkeypatch.setattr(planish.tuning, "_measure", lambda *arguments: interrupted)
    (tmp_path / "log").touch()
    done = invoke("tune", model, "-o", tmp_path / "out", "--log", tmp_path / "log")
    assert done.exit_code == 0, done.output
    assert "interrupted: `planish tune` with the same log goes on where it ended" in done.stdout
    assert (tmp_path / "out/manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "soon"), "--budget soon is no time; write 90s, 10m, 1m30s or 1.5h"),
        (("--budget", "0s"), "--budget 0s is no time"),
        (("--target", "cortex-a72"), "target 'cortex-a72' is not this machine"),
        (("--report", __file__), "is a file; name a folder for the report"),
        (("--log", "/proc/none"), "tuning log '/proc/none' cannot be written"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_users_mistakes(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx")
    log = () if "--log" in arguments else ("--log", tmp_path / "log")
    done = invoke("tune", model, "-o", tmp_path / "out", "--trials", 1, *log, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_output_that_is_no_artefact_is_refused_before_the_long_part(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").touch()
    model = perceptron(tmp_path / "small.onnx")
    done = invoke("tune", model, "-o", tmp_path / "out", "--log", tmp_path / "log")
    assert done.exit_code == 2
    assert "exists and is not an artefact" in done.stderr
    assert not (tmp_path / "log").exists()


def test_other_machine_is_an_error_of_its_own(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx")
    with pytest.raises(TuningError, match=r"bring its log with `planish log merge`"):
        planish.tuning.tune(model, tmp_path / "out", target="x86-64-v2", log=tmp_path / "log")


def test_too_small_a_budget_gives_an_untuned_artefact(tmp_path: Path) -> None:
    model = perceptron(tmp_path / "small.onnx")
    log, output = tmp_path / "log", tmp_path / "out"
    done = invoke("tune", model, "-o", output, "--budget", "0.01s", "--log", log)
    assert done.exit_code == 0, done.output
    assert re.search(r"0 trials of 2 tasks in 0 s, \d+ s of 0 s in all", done.stdout)
    assert "2 of 2 tasks were never measured" in done.stdout
    assert "the budget of 0.01 s is too short to measure anything" in done.stdout
    assert "; the artefact is as untuned" in done.stdout
    planish.compile(model, tmp_path / "untuned", log=False)
    assert folder_bytes(output) == folder_bytes(tmp_path / "untuned")


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """In place of time.monotonic."""
        return self.now


@pytest.mark.parametrize(("budget", "building"), [("90s", 25.0), (600, 40.0), ("2m", 70.0)])
def test_the_budget_is_for_the_whole_command(
    budget: str | float, building: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, measured, losing = Clock(), [], []
    model = perceptron(tmp_path / "small.onnx")
    log = log_of(tmp_path / "log", model)
    compile = planish.tuning.compile

    def slow(*arguments: Any, **options: Any) -> Any:
        clock.now += building
        return compile(*arguments, **options)

    def measure(job: object, means: object, seconds: float) -> Any:
        measured.append(seconds)
        clock.now += seconds
        return TUNING

    def race(*arguments: Any) -> Any:
        clock.now += planish.racing.shortest_race_seconds(0.0)
        return race_of(1.5)(*arguments)

    def lose(*arguments: Any) -> tuple[str, ...]:
        losing.append(clock.now)
        clock.now += planish.racing.losing_seconds(0.0)
        return (arguments[3][0].task,)

    monkeypatch.setattr(planish.tuning, "time", clock)
    monkeypatch.setattr(planish.tuning, "compile", slow)
    monkeypatch.setattr(planish.tuning, "_measure", measure)
    monkeypatch.setattr(planish.deciding, "race_artefacts", race)
    monkeypatch.setattr(planish.deciding, "losing_tasks", lose)
    report = planish.tune(model, tmp_path / "out", budget=budget, log=log)
    allowed = read_seconds(budget)
    assert clock.now - 1000.0 <= allowed
    assert report.elapsed == clock.now - 1000.0
    if budget == "2m":  # two compilations of 70 s do not fit: nothing but the untuned one
        assert (measured, report.tuned, report.race) == ([], False, None)
        assert "too short to measure anything" in report.verdict
        return
    assert sum(measured) >= 0.25 * allowed
    assert report.tuned
    # A second look at what loses takes a third compilation: only where that is a small part.
    assert bool(losing) == (budget == 600)
    assert ("no time to look for kernels" in report.note) == (budget == "90s")
    assert report.race is not None
    assert (report.before, report.after) == (report.race.untuned, report.race.tuned)


def test_interrupts_after_the_untuned_artefact_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    model = perceptron(tmp_path / "small.onnx")
    log = log_of(tmp_path / "log", model)
    planish.compile(model, tmp_path / "untuned", log=False)
    with monkeypatch.context() as patch:
        patch.setattr(planish.tuning, "fuse_kernels", interrupt)
        early = planish.tune(model, tmp_path / "out", log=log)
    assert early.tuning.interrupted
    assert "interrupted before anything was measured" in early.verdict
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "untuned")
    monkeypatch.setattr(planish.tuning, "_measure", lambda *arguments: TUNING)
    monkeypatch.setattr(planish.deciding, "race_artefacts", interrupt)
    late = planish.tune(model, tmp_path / "out", log=log)
    assert "interrupted before it was known whether tuned is faster" in late.verdict
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "untuned")


@pytest.mark.parametrize(
    ("text", "trials", "budget"),
    [
        (None, None, Budget(600.0, None)),
        (None, 64, Budget(None, 64)),
        ("10m", None, Budget(600.0, None)),
        ("90", 5, Budget(90.0, 5)),
        ("1.5h", None, Budget(5400.0, None)),
        ("1m30s", None, Budget(90.0, None)),
    ],
)
def test_budgets(text: str | None, trials: int | None, budget: Budget) -> None:
    assert parse_budget(text, trials) == budget
    with pytest.raises(PlanishError, match="--budget -1s is no time; write 90s"):
        parse_budget("-1s", None)


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with TuningProgress(console=Console(file=stream, width=60)) as progress:
        progress.stage("optimise", 0, 0)
        progress.observe(TUNING)
        progress.observe(TUNING)
        progress.observe(dataclasses.replace(TUNING, trials=48))
    lines = stream.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["40 trials", "48 trials"]
    assert "kernels 1.2 ms, 1.50 times as fast as untuned, 12 s left for measuring" in lines[0]
    assert lines[0].endswith(f"{STANDING.about}: 500 µs")


def test_live_table_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True)
    with TuningProgress(console=console) as progress:
        progress.observe(TUNING)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    for part in ("2x conv float32[1, 8]", "83.3%", "750 µs", "500 µs", "20%", "40/100"):
        assert part in shown
    many = dataclasses.replace(TUNING, standings=(STANDING,) * 20)
    assert live_table(many).row_count == 17
