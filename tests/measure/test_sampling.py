"""When the harness stops, what it counts, and what is cached: by counts and ratios, not times."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from planish.autotune.measure import Cache, Candidate, Incumbent, Measurer, Result, Status
from planish.autotune.measure import runner as running
from planish.autotune.measure.layout import Ended, Report, Spec, make_spec, report_bytes
from planish.autotune.measure.verdict import make_judge
from planish.ir.errors import TuningError
from tests.measure.conftest import OPTIONS
from tests.measure.kernels_in_c import C_BACKEND, HOST, in_c, multiplication, problem_of

KERNEL = multiplication()


@contextlib.contextmanager
def _with_options(measurer: Measurer, **changed: Any) -> Iterator[None]:
    """The measurer's runner under other options."""
    runner = measurer.runner
    assert isinstance(runner, running.ProcessRunner)
    kept = runner._options, runner._judge
    runner._options = dataclasses.replace(OPTIONS, **{"timeout": 30.0} | changed)
    runner._judge = make_judge(C_BACKEND, runner._options)
    try:
        yield
    finally:
        runner._options, runner._judge = kept


def _measure(
    measurer: Measurer,
    body: str,
    beside: str | None = None,
    *,
    seconds: float = 1.0,
    weights: int = 0,
) -> Result:
    incumbent = None if beside is None else Incumbent(in_c(KERNEL, beside), seconds)
    problem = problem_of(KERNEL, model_weights=weights)
    (result,) = measurer.measure(problem, [in_c(KERNEL, body)], incumbent)
    return result


def test_times_are_the_incumbents_times_the_ratio(measurer: Measurer) -> None:
    with _with_options(measurer, precision=0.2, budget=2.0):
        result = _measure(measurer, "slow", "slow", seconds=42.0)
    timing = result.timing
    assert timing is not None
    assert timing.ratio is not None
    assert timing.seconds == timing.ratio.scaled(42.0)
    assert timing.ratio.low <= 1.3
    assert timing.ratio.high >= 0.7
    assert len(timing.samples) == len(timing.incumbent) >= OPTIONS.least_pairs
    assert min(timing.samples) > 3e-3


def test_hopeless_candidate_is_given_up_early(measurer: Measurer) -> None:
    with _with_options(measurer, budget=2.0):
        result = _measure(measurer, "slower", "slow")
        utterly = _measure(measurer, "slow", "right")
    assert result.status is Status.OK
    assert result.hopeless
    assert "given up: " in result.message
    assert "times the incumbent's time" in result.message
    assert result.timing is not None
    assert 2 <= len(result.timing.samples) < OPTIONS.least_pairs
    assert utterly.timing is not None
    assert len(utterly.timing.samples) == 2


def test_uneven_times_are_noisy(measurer: Measurer) -> None:
    with _with_options(measurer, least_sample=0.0, precision=0.002, budget=0.5):
        result = _measure(measurer, "uneven")
    assert result.status is Status.NOISY
    assert "samples is known to ±" in result.message
    assert result.timing is not None
    assert len(result.timing.samples) > OPTIONS.least_pairs


def test_short_calls_are_timed_together_and_long_ones_alone(measurer: Measurer) -> None:
    with _with_options(measurer):
        short, long = _measure(measurer, "right"), _measure(measurer, "slow")
    assert short.timing is not None
    assert long.timing is not None
    assert short.timing.calls > 10
    assert long.timing.calls == 1


def test_weights_take_turns_as_in_the_model(measurer: Measurer) -> None:
    found = {
        (cache, body, weights): _measured(measurer, cache, body, weights)
        for cache, body, weights in (
            (Cache.MODEL, "rotates", 1 << 20),
            (Cache.MODEL, "stays", 0),
            (Cache.WARM, "stays", 1 << 20),
            (Cache.WARM, "rotates", 1 << 20),
        )
    }
    states = [result.status is not Status.CRASH for result in found.values()]
    assert states == [True, True, True, False]


def _measured(measurer: Measurer, cache: Cache, body: str, weights: int) -> Result:
    with _with_options(measurer, cache=cache):
        return _measure(measurer, body, weights=weights)


def test_cold_calls_are_timed_one_by_one(measurer: Measurer) -> None:
    with _with_options(measurer, cache=Cache.COLD, budget=0.05):
        result = _measure(measurer, "stays")
    assert result.timing is not None, result
    assert result.timing.calls == 1


@pytest.mark.parametrize(
    ("weights", "model", "cache", "copies"),
    [
        (4096, 1 << 20, Cache.MODEL, 256),
        (4096, 1 << 40, Cache.MODEL, 2 * HOST.l3 // 4096),
        (1 << 40, 1 << 20, Cache.MODEL, 1),
        (4096, 1 << 20, Cache.WARM, 1),
        (4096, 1 << 20, Cache.COLD, 1),
    ],
)
def test_copies_of_weights(weights: int, model: int, cache: Cache, copies: int) -> None:
    options = dataclasses.replace(OPTIONS, cache=cache)
    target = dataclasses.replace(HOST, l3=max(HOST.l3, 1 << 22))
    if model == 1 << 40:
        copies = 2 * target.l3 // 4096
    assert options.rotated(weights, model, target) // weights == copies
    assert (options.flushed(target) >= 2 * target.l3) == (cache is Cache.COLD)


def test_failing_incumbent_is_left_out(measurer: Measurer) -> None:
    with _with_options(measurer):
        result = _measure(measurer, "right", "segv_later")
    assert result.status in (Status.OK, Status.NOISY), result
    assert result.timing is not None
    assert result.timing.ratio is None


def test_incumbent_that_cannot_be_built(measurer: Measurer) -> None:
    with pytest.raises(TuningError, match="the incumbent 'no C' fails building it: "):
        _measure(measurer, "right", "no C")


def test_incumbent_is_built_once(measurer: Measurer, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    build = measurer.builder.build

    def counted(candidates: list[Candidate]) -> object:
        built.extend(candidate.id for candidate in candidates)
        return build(candidates)

    monkeypatch.setattr(measurer.builder, "build", counted)
    incumbent = Incumbent(in_c(KERNEL, "slow"), 1.0)
    problem = problem_of(KERNEL)
    for _ in range(3):
        list(measurer.measure(problem, [in_c(KERNEL, "right")], incumbent))
    assert built == ["slow", "right", "right", "right"]


def _report(spec: Spec, foreign_cpus: float) -> Report:
    outputs = problem_of(KERNEL).expected[0].tobytes() + bytes(32)
    times = (1e-3,) * 20
    return Report(Ended.DONE, 0, False, "", times, (), 1, False, True, foreign_cpus, (outputs,) * 2)


@pytest.mark.parametrize(("loads", "naps"), [([0.9, 0.0], 1), ([0.9] * 9, 7), ([0.0], 0)])
def test_loaded_machine_is_waited_for_and_told_of(
    loads: list[float], naps: int, measurer: Measurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    pending = list(loads)
    monkeypatch.setattr(running.time, "sleep", slept.append)
    monkeypatch.setattr(running, "read_report", lambda spec, content: _report(spec, pending.pop(0)))
    with _with_options(measurer, patience=2.0):
        result = _measure(measurer, "right")
    assert slept == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 1 / 32][:naps]
    assert result.status is Status.OK
    told = "other processes kept 0.9 CPUs busy meanwhile" in result.message
    assert told == (naps == 7)


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [(1.15, 1.25, Status.OK), (1.05, 1.35, Status.NOISY), (0.95, 1.05, Status.NOISY)],
)
def test_less_is_asked_of_what_is_surely_slower(low: float, high: float, status: Status) -> None:
    outputs = problem_of(KERNEL).expected[0].tobytes() + bytes(32)
    own = tuple(1e-3 * (low if i % 2 else high) for i in range(20))
    report = Report(
        Ended.DONE, 0, False, "", own, (1e-3,) * 20, 1, False, True, 0.0, (outputs, outputs)
    )
    judge = make_judge(C_BACKEND, dataclasses.replace(OPTIONS, precision=0.02, losing=0.08))
    assert judge(problem_of(KERNEL), "candidate", 1.0, report).result.status is status


def test_sizes_agree_with_the_harness(measurer: Measurer) -> None:
    import ctypes

    harness = ctypes.CDLL(str(measurer._folder / "harness.so"))
    size = harness.planish_trial_report_bytes
    size.restype = ctypes.c_uint64
    spec = make_spec(problem_of(KERNEL), HOST, OPTIONS, "a", "b")
    assert size(ctypes.byref(spec)) == report_bytes(spec)


def test_kernel_with_too_many_parameters(measurer: Measurer) -> None:
    problem = dataclasses.replace(problem_of(KERNEL), inputs=problem_of(KERNEL).inputs * 40)
    with pytest.raises(TuningError, match="has 81 inputs and outputs, and 64 can be measured"):
        make_spec(problem, HOST, OPTIONS, "a", "")
