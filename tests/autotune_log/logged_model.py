"""The small perceptron, and logs for it."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

import planish
from planish.autotune.log import Fingerprint, Header, LogWriter, Trial, task_digest
from planish.autotune.log.task import describe
from planish.autotune.spaces import Choices, space_of
from planish.custom import PASSES
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Node
from planish.ir.target import Target
from planish.logged_schedules import before_defaults, hardware_of
from planish.passes.pipeline import run_pipeline
from planish.targets.hardware import detect_host
from tests.autotune_log.logs import timing

HOST: Target = detect_host()


def fused(model: Path, target: Target = HOST) -> Graph:
    """The model as kernels without schedules."""
    return run_pipeline(planish.import_model(model), target, PASSES[: before_defaults(PASSES)])


def kernels_of(graph: Graph) -> list[Node]:
    """The kernels of a graph, in order."""
    return [node for node in graph.nodes if node.op == "kernel"]


def other_than_the_pick(kernel: Node, target: Target = HOST) -> Choices:
    """The first point beside the analytic pick that gives another schedule."""
    space = space_of(kernel)
    pick = space.pick(kernel, target)
    usual = space.schedule(kernel, target, pick)
    for name, values in space.options(kernel, target).items():
        for value in values:
            point = {**pick, name: value}
            with suppress(ScheduleError):
                if space.schedule(kernel, target, point).directives != usual.directives:
                    return point
    raise AssertionError(f"space '{space.name}' has one point")


def choice_of_numbers(kernel: Node, target: Target = HOST) -> str:
    """The name of a choice among numbers, 1 being one of them."""
    for name, values in space_of(kernel).options(kernel, target).items():
        if 1 in values and not any(isinstance(value, bool) for value in values):
            return name
    raise AssertionError("a kernel without a choice among numbers")


def log_of(path: Path, model: Path, hardware: Fingerprint | None = None, **choices: object) -> Path:
    """A log with one trial of each kernel of the model, at a point that is not the pick."""
    header = Header.of(hardware or hardware_of(HOST))
    with LogWriter(path, header) as writer:
        for kernel in kernels_of(fused(model)):
            point = {**other_than_the_pick(kernel), **choices}
            writer.append(trial_of(kernel, point))
    return path


def trial_of(kernel: Node, point: Choices, median: float = 1e-3) -> Trial:
    """A trial of the kernel with all threads of this machine."""
    return Trial.of(
        task_digest(kernel),
        space_of(kernel).name,
        point,
        HOST.cores,
        timing(median),
        about=describe(kernel),
        date="2026-01-31T12:00:00Z",
    )


def sister() -> Fingerprint:
    """Another machine of this one's class."""
    return dataclasses.replace(hardware_of(HOST), stepping="another")


def stranger() -> Fingerprint:
    """A machine of another class."""
    return dataclasses.replace(hardware_of(HOST), l2=12345)
