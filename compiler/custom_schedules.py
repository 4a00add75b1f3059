"""Whether a schedule that somebody else's pass gave a kernel is legal, before it becomes code."""

from __future__ import annotations

from typing import Any

from planish.autotune.spaces import space_of
from planish.ir.errors import ScheduleError
from planish.ir.extension import custom_op
from planish.ir.graph import Graph, Node
from planish.ir.schedule import check_form
from planish.ir.target import Target
from planish.passes.local_pass import located
from planish.targets.emitters import WRITERS
from planish.targets.lowering import lower_kernel


def check_schedules(before: Graph, after: Graph, target: Target) -> None:
    """ScheduleError for the first kernel of `after` that is new and whose schedule is not legal.

    It names the kernel and what is wrong: a directive, a choice, the emitter. Nothing that a
    schedule says is passed over, as it would be where code is made of the choices that are known.
    """
    if before is after:
        return
    known = set(before.nodes)
    for node in after.nodes:
        if node.op == "kernel" and node not in known and node.attrs["schedule"] is not None:
            try:
                _check(node, node.attrs["schedule"], target)
            except ScheduleError as error:
                raise ScheduleError(located(node, str(error))) from None


def _check(kernel: Node, schedule: Any, target: Target) -> None:
    check_form(schedule)
    emitter = schedule.emitter
    if emitter is not None and emitter not in WRITERS and custom_op(emitter) is None:
        known = ", ".join(sorted(WRITERS))
        raise ScheduleError(f"there is no emitter {emitter!r}; known are {known}")
    space = space_of(kernel)
    if schedule.space != space.name:
        raise ScheduleError(
            f"the schedule is of space '{schedule.space}', the kernel's is '{space.name}'"
        )
    options = space.options(kernel, target)
    for name, value in schedule.choices:
        if name not in options:
            known = ", ".join(options) or "none"
            raise ScheduleError(f"space '{space.name}' has no choice '{name}'; it has {known}")
        if not _fits(value, options[name]):
            values = ", ".join(map(str, options[name]))
            raise ScheduleError(f"choice '{name}' is {value!r}, expected one such as {values}")
    try:
        lower_kernel(kernel)
    except ScheduleError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ScheduleError(f"no code can be made of {schedule}: {lines[-1].strip()}") from error


def _fits(value: Any, options: tuple[Any, ...]) -> bool:
    """Numbers may be others than the tuner tries; what has names has those alone."""
    if any(type(value) is type(option) and value == option for option in options):
        return True
    numbers = all(type(option) is int for option in options)
    return numbers and type(value) is int and value >= 0
