"""Whatever a candidate does is a result, and the next candidate is measured right."""

from __future__ import annotations

import dataclasses
import os
import signal

import pytest

from planish.autotune.measure import Candidate, Incumbent, Measurer, Options, Status
from planish.autotune.measure.results import Built, Result
from planish.ir.errors import TuningError
from tests.measure.kernels_in_c import C_BACKEND, HOST, in_c, multiplication, problem_of

KERNEL = multiplication()

FAULTS = {
    "segv": (Status.CRASH, "running it: killed by SIGSEGV"),
    "segv_later": (Status.CRASH, "running it: killed by SIGSEGV"),
    "abort": (Status.CRASH, "running it: killed by SIGABRT"),
    "exit": (Status.CRASH, "running it: it ended its process with status 0"),
    "stack": (Status.CRASH, "running it: killed by SIGSEGV"),
    "hang": (Status.TIMEOUT, "running it: no end within 1.5 s"),
    "spin": (Status.TIMEOUT, "running it: no end within 1.5 s"),
    "memory": (Status.OUT_OF_MEMORY, "running it: it took more than 64 MiB"),
    "fails": (Status.CRASH, "running it: the kernel returned -7"),
    "wrong": (Status.WRONG, "output 0: 1 of 1000 elements are out of tolerance"),
    "untouched": (Status.WRONG, "output 0: 992 of 1000 elements are out of tolerance"),
    "nan": (Status.WRONG, "output 0 has 1 NaN of 1000 elements"),
    "wrong_later": (Status.WRONG, "but only after many calls"),
    "outside": (Status.WRONG, "it writes beside output 0"),
    "before": (Status.WRONG, "it writes beside input 0"),
    "input": (Status.WRONG, "it writes to input 0"),
    "weights": (Status.CRASH, "running it: killed by SIGSEGV"),
    "this is no C": (Status.BUILD_ERROR, "building it: "),
    "build_refused": (Status.REFUSED, "building it: no loop is named 'q'"),
}


def test_faults_are_results_and_the_next_candidate_is_measured(measurer: Measurer) -> None:
    problem = problem_of(KERNEL)
    candidates = [in_c(KERNEL, name) for name in FAULTS]
    good = [dataclasses.replace(in_c(KERNEL, "right"), id=f"right {name}") for name in FAULTS]
    together = [candidate for pair in zip(candidates, good) for candidate in pair]
    results = {result.candidate: result for result in measurer.measure(problem, together)}
    assert len(results) == len(together)
    for name, (status, message) in FAULTS.items():
        result = results[name]
        assert (result.status, result.timing) == (status, None), result
        assert message in result.message
        after = results[f"right {name}"]
        assert after.status in (Status.OK, Status.NOISY), after
        assert after.timing is not None
        assert after.timing.seconds.median > 0


def test_generated_kernel_is_measured(measurer: Measurer) -> None:
    (result,) = measurer.measure(problem_of(KERNEL), [Candidate("default", KERNEL)])
    assert result.status in (Status.OK, Status.NOISY), result.message
    assert result.timing is not None


def test_kernels_share_the_harnesss_pool(measurer: Measurer) -> None:
    incumbent = Incumbent(in_c(KERNEL, "parallel"), 1.0)
    (result,) = measurer.measure(problem_of(KERNEL), [in_c(KERNEL, "parallel")], incumbent)
    assert result.timing is not None, result
    assert result.timing.ratio is not None


def test_builder_that_crashes(measurer: Measurer) -> None:
    crashed, built = measurer.builder.build([in_c(KERNEL, n) for n in ("build_abort", "right")])
    assert isinstance(crashed, Result)
    assert crashed.status is Status.CRASH
    assert "building it: killed by SIGABRT" in crashed.message
    assert built.candidate == "right"
    assert isinstance(built, Built)


def test_killed_workers_cost_nothing(measurer: Measurer) -> None:
    problem = problem_of(KERNEL)
    list(measurer.measure(problem, [in_c(KERNEL, "right")]))
    for workers in (measurer.builder.workers, measurer.runner.workers):  # type: ignore[attr-defined]
        (pid,) = workers.pids
        os.kill(pid, signal.SIGKILL)
        (result,) = measurer.measure(problem, [in_c(KERNEL, "right")])
        assert result.status in (Status.OK, Status.NOISY), result.message
        assert pid not in workers.pids


def test_leaving_early_ends_the_work(measurer: Measurer) -> None:
    problem = problem_of(KERNEL)
    for result in measurer.measure(problem, [in_c(KERNEL, name) for name in ("right", "hang")]):
        assert result.candidate == "right"
        break
    (result,) = measurer.measure(problem, [in_c(KERNEL, "right")])
    assert result.timing is not None


def test_harness_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    with (
        pytest.raises(TuningError, match=r"the measuring harness cannot be built: .*/nowhere/cc"),
        Measurer(C_BACKEND, HOST, Options(), builders=1, base=tmp_path),  # type: ignore[arg-type]
    ):
        pass
