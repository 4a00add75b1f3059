"""From the harness's report to a result: right first, then quick."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planish.autotune.measure.backend import Backend
from planish.autotune.measure.intervals import median_interval
from planish.autotune.measure.layout import Ended, Report
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem, Role, split_outputs
from planish.autotune.measure.results import Result, Status, Timing
from planish.autotune.measure.workers import signal_name

#: Of calls so long that the budget does not hold more: that their times agree says something.
_LEAST_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """A result, and whether it is none of the candidate's doing: `lost` with the device or worker,
    or the fault of the incumbent beside it."""

    result: Result
    lost: bool = False
    by_incumbent: bool = False


Judge = Callable[[Problem, str, float, Report], Verdict]


def make_judge(backend: Backend, options: Options) -> Judge:
    """The function that judges reports: (problem, candidate, incumbent's seconds, report)."""

    def judge(problem: Problem, candidate: str, seconds: float, report: Report) -> Verdict:
        if report.ended is not Ended.DONE:
            status, message = _failure(problem, options, report)
            lost = report.ended is Ended.SYSTEM
            return Verdict(Result(candidate, status, message), lost, report.by_incumbent)
        wrong = _difference(problem, backend, report) or _nonsense(report)
        if wrong:
            return Verdict(Result(candidate, Status.WRONG, wrong))
        return Verdict(_timed(candidate, seconds, options, report))

    return judge


def _failure(problem: Problem, options: Options, report: Report) -> tuple[Status, str]:
    """Status and message of a trial that did not come to its end."""
    text, detail = report.message, report.detail
    if report.ended is Ended.CRASHED:
        how = f"killed by {signal_name(detail)}" if detail else text
        if detail == signal.SIGKILL:
            how += ", perhaps by the system for want of memory"
        return Status.CRASH, f"running it: {how}"
    if report.ended is Ended.TIMED_OUT:
        return Status.TIMEOUT, f"running it: no end within {options.timeout:g} s"
    if report.ended is Ended.OUT_OF_MEMORY:
        limit = options.memory >> 20
        return Status.OUT_OF_MEMORY, f"running it: it took more than {limit} MiB"
    if report.ended is Ended.NO_MEMORY:
        return Status.OUT_OF_MEMORY, f"before running it: {text}"
    if report.ended is Ended.KERNEL_FAILED:
        return Status.CRASH, f"running it: the kernel returned {detail}"
    if report.ended is Ended.WROTE_OUTSIDE:
        return Status.WRONG, f"it writes beside {_parameter(problem, detail)}"
    if report.ended is Ended.CHANGED_INPUT:
        return Status.WRONG, f"it writes to {_parameter(problem, detail)}"
    if report.ended is Ended.NOT_LOADED:
        return Status.BUILD_ERROR, f"loading it: {text}"
    if report.ended is Ended.UNSUPPORTED_CPU:
        return Status.REFUSED, text
    return Status.CRASH, f"the system refused the trial: {text}"


def _parameter(problem: Problem, index: int) -> str:
    inputs = len(problem.inputs)
    if index >= inputs:
        return f"output {index - inputs}"
    return f"{'input' if problem.inputs[index][0] is Role.INPUT else 'weights'} {index}"


def _difference(problem: Problem, backend: Backend, report: Report) -> str:
    """Why the outputs are wrong, after the first call or after the last; empty if they are not."""
    first, last = report.outputs
    again = () if last == first else ((last, ", but only after many calls"),)
    for data, when in ((first, ""), *again):
        for index, actual in enumerate(split_outputs(problem, data)):
            expected = problem.expected[index]
            if actual.dtype.kind in "fc" and np.isnan(actual).any():
                count = int(np.isnan(actual).sum())
                return f"output {index} has {count} NaN of {actual.size} elements{when}"
            reason = backend.compare(actual, expected)
            if reason:
                return f"output {index}: {reason}{when}"
    return ""


def _nonsense(report: Report) -> str:
    """A kernel that writes anywhere may have written over the times."""
    times = (*report.candidate, *report.incumbent)
    if times and all(0 < seconds < math.inf for seconds in times):
        return ""
    return "it writes over the harness's own memory"


def _timed(candidate: str, seconds: float, options: Options, report: Report) -> Result:
    own = median_interval(report.candidate)
    ratio = None
    if report.incumbent:
        pairs = zip(report.candidate, report.incumbent)
        ratio = median_interval([mine / theirs for mine, theirs in pairs])
        own = ratio.scaled(seconds)
    timing = Timing(own, report.candidate, report.calls, report.incumbent, ratio)
    messages = []
    if report.hopeless and ratio is not None:
        messages.append(f"given up: {ratio.median:.2f} times the incumbent's time")
    surely_slower = ratio is not None and ratio.low > 1
    wanted = options.losing if surely_slower else options.precision
    enough = len(report.candidate) >= _LEAST_SAMPLES and own.half_width <= wanted
    steady = report.hopeless or enough
    if not steady:
        share = math.ceil(1000 * own.half_width) / 10
        messages.append(
            f"the median of {len(report.candidate)} samples is known to ±{share} % only"
        )
    if report.foreign_cpus > options.quiet:
        messages.append(f"other processes kept {report.foreign_cpus:.1f} CPUs busy meanwhile")
    return Result(
        candidate,
        Status.OK if steady else Status.NOISY,
        "; ".join(messages),
        timing,
        report.hopeless,
        report.foreign_cpus,
    )
