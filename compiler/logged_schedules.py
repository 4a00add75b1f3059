"""The pipeline with a tuning log: kernels get logged points before they get defaults."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from planish.autotune.apply_log import LogReport, apply_log
from planish.autotune.default_schedules import assign_default_schedules
from planish.autotune.log.fingerprint import CpuFingerprint, fingerprint_of
from planish.autotune.log.lookup import TuningLog
from planish.custom import PASSES
from planish.ir.graph import Graph, Node
from planish.ir.target import Target
from planish.passes.pass_ import Step
from planish.passes.pipeline import Observer, run_pipeline
from planish.targets.hardware import detect_host


def hardware_of(target: Target) -> CpuFingerprint:
    """The fingerprint of what code for `target` runs on: of this machine, if it is the target."""
    # Only then may the host be asked for: it need not be one that planish compiles for.
    host = detect_host() if target.arch == platform.machine() else None
    return fingerprint_of(target, host)


def before_defaults(steps: Sequence[Step]) -> int:
    """How many steps run before kernels get their default schedules; all, if none ever do."""
    places = (i for i, step in enumerate(steps) if step.run is assign_default_schedules)
    return next(places, len(steps))


def run_logged_pipeline(
    graph: Graph,
    target: Target,
    steps: Sequence[Step],
    log: TuningLog | None,
    observer: Observer | None,
) -> tuple[Graph, LogReport | None]:
    """Runs the steps, and `apply_log` right before the default schedules; its report, if any."""
    if log is None:
        return run_pipeline(graph, target, steps, observer=observer), None
    reports: list[LogReport] = []

    def apply(graph: Graph, target: Target) -> Graph:
        after, report = apply_log(graph, target, log, hardware_of(target))
        reports.append(report)
        return after

    place = before_defaults(steps)
    logged = Step(apply, "what was measured goes before what is guessed", label="apply_log")
    # Not told to the observer, who knows the labels of the other steps and counts on them.
    fused = run_pipeline(graph, target, steps[:place], observer=observer)
    scheduled = run_pipeline(fused, target, [logged])
    return run_pipeline(scheduled, target, steps[place:], observer=observer), reports[0]


def fuse_kernels(graph: Graph, target: Target) -> list[Node]:
    """The kernels that planish's own passes make of a model, without schedules: a tuner's tasks."""
    fused = run_pipeline(graph, target, PASSES[: before_defaults(PASSES)])
    return [node for node in fused.nodes if node.op == "kernel"]
