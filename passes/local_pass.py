"""Passes over the schedules of single kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planish.ir.errors import ScheduleError
from planish.ir.extension import custom_op
from planish.ir.graph import Graph, Node, Value, with_inputs
from planish.ir.schedule import Schedule, check_form
from planish.ir.target import Target
from planish.passes.local import loop_nest, with_schedule
from planish.passes.rewrite import Refusal
from planish.passes.trace import Event, report


@dataclass(frozen=True, slots=True)
class LocalPass:
    """A function from a kernel to the schedule that it shall have.

    A Refusal says why the kernel keeps the schedule it has, for those who ask; None says that the
    pass is not about such kernels. The kernel's present schedule is `kernel.attrs["schedule"]`,
    None before the default schedules are assigned.
    """

    schedule: Callable[[Node, Target], Schedule | Refusal | None]

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(self.schedule, "__name__", type(self.schedule).__name__)

    def __call__(self, graph: Graph, target: Target) -> Graph:
        """The graph with the new schedules: a local pass runs like any other.

        ScheduleError where the function gives something else than a schedule, or one that is not
        legal for the kernel.
        """
        events: list[Event] = []

        def rewrite(node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
            found = self.schedule(node, target) if node.op == "kernel" else None
            if isinstance(found, Refusal):
                events.append(Event(self.name, node.where(), found.reason))
                return None
            if found is None:
                return None
            if not isinstance(found, Schedule):
                raise ScheduleError(
                    f"{node.where()}: '{self.name}' must give a Schedule, a Refusal or None, "
                    f"got {found!r}"
                )
            new = _scheduled(node, found)
            if new is node:
                return None
            events.append(Event(self.name, node.where()))
            return with_inputs(new, inputs).outputs

        after = graph.rebuild(rewrite)
        report(events)
        return after


def _scheduled(kernel: Node, schedule: Schedule) -> Node:
    """The kernel with the schedule; the same if it has it; ScheduleError that names the kernel."""
    try:
        check_form(schedule)
        if schedule == kernel.attrs["schedule"]:
            return kernel
        new = with_schedule(kernel, schedule)
        _check(new, schedule)
    except ScheduleError as error:
        raise ScheduleError(located(kernel, str(error))) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ScheduleError(
            located(kernel, f"a choice is wrong: {error}, in {schedule}")
        ) from error
    return new


def located(kernel: Node, told: str) -> str:
    """The message of an error, which begins with the kernel that it is about."""
    where = kernel.where()
    return told if told.startswith(where) else f"{where}: {told}"


def _check(kernel: Node, schedule: Schedule) -> None:
    """Tries the directives now, where the pass is known, and not when the kernel is lowered."""
    inside = (node.op for region in kernel.regions for node in region.nodes)
    # What an emitter writes and what a custom op computes has loops that nobody else knows.
    if schedule.emitter is None and schedule.directives and not any(map(custom_op, inside)):
        loop_nest(kernel)


def local_pass(schedule: Callable[[Node, Target], Schedule | Refusal | None]) -> LocalPass:
    """Decorator: the function as a local pass."""
    return LocalPass(schedule)
