"""Gives kernels the points that a tuning log has for them on this hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from planish.autotune.default_schedules import schedule_at
from planish.autotune.log.fingerprint import Fingerprint
from planish.autotune.log.lookup import TuningLog
from planish.autotune.log.race import Race, points_digest
from planish.autotune.log.record import Point, spell_point
from planish.autotune.log.task import task_digest
from planish.autotune.spaces import Choices, space_of
from planish.autotune.spaces.sharing import sharing_of
from planish.autotune.spaces.space import same_choice
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Node, Value, with_inputs
from planish.ir.schedule import Schedule
from planish.ir.target import Target
from planish.passes.local import with_schedule

Outcome = Literal["exact", "class", "untuned"]


@dataclass(frozen=True, slots=True)
class KernelOutcome:
    """What the log had for one kernel; `seconds` and `header` are the record's, if one is used.

    `onnx_nodes` are the names of those that the kernel came from: several kernels have its name.
    """

    kernel: str
    onnx_nodes: tuple[str, ...]
    task: str
    outcome: Outcome
    reason: str
    seconds: float | None = None
    header: str = ""
    point: Point | None = None


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a log had for the kernels of a graph, in the graph's order.

    `lost` is the race of the model with the log's points (but for those left untuned) in which it
    was slower than without; then all kernels are untuned.
    """

    files: tuple[str, ...]
    kernels: tuple[KernelOutcome, ...]
    lost: Race | None = None

    @property
    def points(self) -> str:
        """What a race of the model with these points is known by."""
        return points_digest((kernel.task, kernel.point) for kernel in self.kernels)

    def count(self, outcome: Outcome) -> int:
        """How many kernels had this outcome."""
        return Counter(kernel.outcome for kernel in self.kernels)[outcome]

    @property
    def why_lost(self) -> str:
        """Why the log's points are not used; empty if they are."""
        if self.lost is None:
            return ""
        return (
            "with the log's points the model as a whole was only "
            f"{self.lost.speed:.3f} times as fast as without ({self.lost.date})"
        )

    @property
    def left(self) -> tuple[KernelOutcome, ...]:
        """Kernels whose logged point made them slower in the model than their default."""
        return tuple(kernel for kernel in self.kernels if kernel.reason.startswith("left untuned"))

    @property
    def refused(self) -> tuple[KernelOutcome, ...]:
        """Kernels whose logged point their space no longer has."""
        return tuple(kernel for kernel in self.kernels if kernel.reason.startswith("refused"))

    def to_json(self) -> dict[str, Any]:
        """Plain data: the counts, and each kernel's outcome."""
        return {
            "files": list(self.files),
            **{outcome: self.count(outcome) for outcome in get_args(Outcome)},
            "left": len(self.left),
            "refused": len(self.refused),
            "lost": None if self.lost is None else asdict(self.lost),
            "kernels": [asdict(kernel) for kernel in self.kernels],
        }

    def __str__(self) -> str:
        told = (
            f"tuning log: {self.count('exact')} kernels as measured on this hardware, "
            f"{self.count('class')} as on its class, {self.count('untuned')} untuned"
        )
        if self.left:
            told += f", {len(self.left)} of them left so because they were slower in the model"
        if self.lost is not None:
            told += f"; {self.why_lost}"
        return "; ".join((told, *(f"{kernel.kernel}: {kernel.reason}" for kernel in self.refused)))


def apply_log(
    graph: Graph, target: Target, log: TuningLog, hardware: Fingerprint
) -> tuple[Graph, LogReport]:
    """The graph with the logged schedule on each kernel that has none yet, and what was found.

    A kernel is given a point that was measured on `hardware`, or on its class, with `target.cores`
    threads. A point that the space refuses is reported and not used: the kernel stays as it is. So
    do those that the last race of the model with just these points left untuned, and all of them if
    it was lost.

        k = kernel(…)   →   k = kernel(…, schedule=<space, logged point>)
    """
    waiting = [
        node for node in graph.nodes if node.op == "kernel" and node.attrs["schedule"] is None
    ]
    found = {node: _logged(node, target, log, hardware) for node in waiting}
    files = tuple(str(file.path) for file in log.files)
    outcomes = tuple(outcome for _, outcome in found.values())
    report = _raced(LogReport(files, outcomes), log, hardware, target)
    schedules = {
        node: schedule
        for (node, (schedule, _)), outcome in zip(found.items(), report.kernels)
        if schedule is not None and outcome.point is not None
    }

    def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        schedule = schedules.get(node)
        if schedule is None:
            return None
        return with_schedule(with_inputs(node, inputs), schedule).outputs

    return graph.rebuild(rewrite), report


def _raced(report: LogReport, log: TuningLog, hardware: Fingerprint, target: Target) -> LogReport:
    """The report without the points that races of the model as a whole decided against."""
    while race := log.race(report.points, hardware, target.cores):
        pointed = {kernel.task for kernel in report.kernels if kernel.point is not None}
        left = pointed.intersection(race.left)
        if left:
            reason = f"left untuned: in the model it was slower with its point ({race.date})"
            report = _without(report, left, reason)
            continue
        if race.speed >= 1:
            return report
        lost = replace(report, lost=race)
        return _without(lost, pointed, f"not used: {lost.why_lost}")
    return report


def _without(report: LogReport, tasks: Set[str], reason: str) -> LogReport:
    """The report with the kernels of some tasks that have points untuned, for this reason."""
    kernels = tuple(
        replace(kernel, outcome="untuned", reason=reason, seconds=None, header="", point=None)
        if kernel.point is not None and kernel.task in tasks
        else kernel
        for kernel in report.kernels
    )
    return replace(report, kernels=kernels)


def _logged(
    kernel: Node, target: Target, log: TuningLog, hardware: Fingerprint
) -> tuple[Schedule | None, KernelOutcome]:
    name, nodes = kernel.attrs["name"], kernel.provenance
    task, space = task_digest(kernel), space_of(kernel)
    found = log.best(task, space, hardware, target.cores)
    if found is None:
        reason = _why_none(log, kernel, task, target, hardware)
        return None, KernelOutcome(name, nodes, task, "untuned", reason)
    trial, header = found.record.trial, found.record.header
    try:
        schedule = schedule_at(kernel, target, checked_choices(kernel, target, trial.point))
    except ScheduleError as error:
        reason = f"refused: the point {spell_point(trial.point)} of {trial.date}: {error}"
        return None, KernelOutcome(name, nodes, task, "untuned", reason)
    reason = f"{spell_point(trial.point)}, measured on {trial.date}"
    return schedule, KernelOutcome(
        name, nodes, task, found.grade, reason, trial.median, header.id, trial.point
    )


def _why_none(
    log: TuningLog, kernel: Node, task: str, target: Target, hardware: Fingerprint
) -> str:
    verdicts = log.explain(task, space_of(kernel), hardware, target.cores)
    if not verdicts:
        return "never measured"
    seeds = sum(verdict.grade == "seed" for verdict in verdicts)
    return f"no record of {len(verdicts)} may be applied here, {seeds} of them are seeds"


def checked_choices(kernel: Node, target: Target, point: Point) -> Choices:
    """The point as choices, in the order of the space's; ScheduleError if it is not in the space,
    or shares the work between cores otherwise than the analytic pick.

    What the analytic pick chooses is in the space, though it is not among the options.
    """
    space = space_of(kernel)
    options, chosen = space.options(kernel, target), dict(point)
    pick = space.pick(kernel, target)
    if options.keys() != chosen.keys():
        raise ScheduleError(
            f"{kernel.where()}: space '{space.name}' has the choices "
            f"{', '.join(options) or 'none'}, and the point has {', '.join(chosen) or 'none'}"
        )
    if not all(same_choice(chosen[name], pick[name]) for name in options):
        for name, values in options.items():
            if not any(same_choice(chosen[name], value) for value in values):
                raise ScheduleError(
                    f"{kernel.where()}: '{name}' of space '{space.name}' may be "
                    f"{', '.join(map(str, values))}, and is {chosen[name]}"
                )
        if not space.is_legal(kernel, target, chosen):
            raise ScheduleError(
                f"{kernel.where()}: space '{space.name}' has no point {spell_point(point)}"
            )
    parts = [sharing_of(choices) for choices in (chosen, pick)]
    if parts[0] != parts[1]:
        raise ScheduleError(
            f"{kernel.where()}: the point shares its work by {parts[0]}, and the default, which "
            f"knows the kernels around it, by {parts[1]}"
        )
    return {name: chosen[name] for name in options}
