"""Passes and ops of one's own: from Python, by name from the command line, from packages."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeAlias

from planish.autotune.default_schedules import assign_default_schedules
from planish.ir.errors import PlanishError
from planish.ir.extension import CustomOp
from planish.ir.graph import Graph
from planish.ir.target import Target
from planish.passes.local_pass import LocalPass
from planish.passes.pass_ import Pass, Step
from planish.passes.pipeline import PIPELINE
from planish.passes.rewrite import Rule, rewrite

PASSES: tuple[Step, ...] = (
    *PIPELINE,
    Step(assign_default_schedules, "what nothing has scheduled better"),
)
"""What a compilation runs unless it is told otherwise."""

#: Where a graph pass or rule goes that names no place: constants are folded and exporter noise is
#: gone, nothing is lowered or fused yet, and all of planish's passes improve on what it builds.
GRAPH_PLACE = "simplify"

#: The pass that makes kernels, which local passes are about.
KERNELS = "fuse"

PASS_GROUP, OP_GROUP = "planish.passes", "planish.ops"


@dataclass(frozen=True, slots=True)
class Placed:
    """A pass with its place: before or after a named one."""

    what: CustomPass
    before: str = ""
    after: str = ""


#: What `passes=[…]` takes: a graph pass, a rule, a local pass, each of them placed or not, a step,
#: or text: `module:attribute` or the name of an entry point, with `@after=NAME` or `@before=NAME`.
CustomPass: TypeAlias = "Pass | Rule | LocalPass | Step | Placed | str"


def place(what: CustomPass, *, before: str = "", after: str = "") -> Placed:
    """`what`, to run right before or after the named pass: `place(mine, after="simplify")`.

    A pass that runs more than once is meant where it first runs; "simplify#2" is its second time.
    """
    if bool(before) == bool(after):
        raise PlanishError("place(…) takes one of before= and after=, each the name of a pass")
    return Placed(what, before, after)


def assemble(
    custom: Sequence[CustomPass], pipeline: Sequence[Step] | None = None
) -> tuple[Step, ...]:
    """The pipeline, PASSES by default, with the custom passes in their places, as given at each.

    Without a place, graph passes and rules run after the first GRAPH_PLACE, and local passes last.
    PlanishError for what is no pass, or a place that there is not.
    """
    pipeline = PASSES if pipeline is None else pipeline
    labels = labelled(pipeline)
    slots: list[list[Step]] = [[] for _ in range(len(pipeline) + 1)]
    for given in custom:
        placed, step = _resolve(given)
        slots[_position(placed, step, labels)].append(_checked(step))
    steps = list(slots[0])
    for step, added in zip(pipeline, slots[1:]):
        steps += [step, *added]
    return tuple(steps)


def _checked(step: Step) -> Step:
    """The step, whose kernels' schedules are found illegal here and not when code is made."""

    def run(graph: Graph, target: Target) -> Graph:
        after = step.run(graph, target)
        if isinstance(after, Graph):  # the pipeline tells of anything else
            # The graph level does not import TVM.
            from planish.custom_schedules import check_schedules

            check_schedules(graph, after, target)
        return after

    return Step(run, step.why, step.origin, step.name)


def labelled(steps: Sequence[Step]) -> list[str]:
    """A name for each step: "simplify", its second time "simplify#2"."""
    seen: dict[str, int] = {}
    labels = []
    for step in steps:
        seen[step.name] = seen.get(step.name, 0) + 1
        labels.append(step.name + (f"#{seen[step.name]}" if seen[step.name] > 1 else ""))
    return labels


def _position(placed: Placed, step: Step, labels: Sequence[str]) -> int:
    """How many steps of the pipeline run before `step`."""
    if not placed.before and not placed.after:
        if isinstance(step.run, LocalPass):
            return len(labels)
        return labels.index(GRAPH_PLACE) + 1 if GRAPH_PLACE in labels else len(labels)
    name = placed.before or placed.after
    if name not in labels:
        raise PlanishError(
            f"pass '{step.name}' is placed {'before' if placed.before else 'after'} '{name}', "
            f"but there is no such pass; passes are {', '.join(labels)}"
        )
    position = labels.index(name) + bool(placed.after)
    if isinstance(step.run, LocalPass) and KERNELS in labels and position <= labels.index(KERNELS):
        raise PlanishError(
            f"local pass '{step.name}' is placed where there are no kernels yet: these are made by "
            f"'{KERNELS}'; place it after that one"
        )
    return position


def _resolve(given: CustomPass) -> tuple[Placed, Step]:
    """The place and the step of what a user handed over."""
    outer = given if isinstance(given, Placed) else Placed(given)
    what, origin = outer.what, ""
    place_ = outer
    while not isinstance(what, Step):
        if isinstance(what, str):
            origin, what = what.partition("@")[0], load_pass(what)
        if isinstance(what, Placed):
            place_ = place_ if place_.before or place_.after else what
            what = what.what
        elif not isinstance(what, Step | str):
            what = _step(what, origin)
    if not what.origin:
        what = Step(what.run, what.why, origin or _home(what.run), what.label)
    return place_, what


def _step(what: Pass | Rule | LocalPass, origin: str) -> Step:
    if isinstance(what, LocalPass):
        return Step(what, "a local pass", origin or _home(what.schedule), what.name)
    if isinstance(what, Rule):
        return Step(_applying(what), f"the rule '{what.name}'", origin or _home(what.build))
    if not callable(what) or isinstance(what, type):
        raise PlanishError(
            f"{what!r} is no pass; a pass is a function (Graph, Target) -> Graph, a Rule, "
            "a function decorated with local_pass, or one of them placed by place(…)"
        )
    return Step(what, "a custom pass", origin or _home(what))


def _applying(rule: Rule) -> Pass:
    def run(graph: Graph, target: Target) -> Graph:
        return rewrite(graph, (rule,))

    run.__name__ = rule.name.replace(" ", "_")
    return run


def _home(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}:{name}"


def load_pass(text: str) -> CustomPass:
    """What `module:attribute[@after=NAME]`, or an entry point's name in its place, stands for."""
    spec, _, where = text.partition("@")
    found = _load(spec, PASS_GROUP, "my_module:my_pass, or the name of an installed pass")
    if not where:
        return found  # type: ignore[no-any-return]
    side, equals, name = where.partition("=")
    if side not in ("before", "after") or not equals or not name:
        raise PlanishError(f"'{text}': after the @ stands after=NAME or before=NAME of a pass")
    return Placed(found, **{side: name})


def installed_passes() -> dict[str, str]:
    """Name → "package module:attribute" of every installed pass; none of them is imported."""
    return {point.name: _spell(point) for point in entry_points(group=PASS_GROUP)}


def custom_ops(given: Sequence[CustomOp | str]) -> list[CustomOp]:
    """The ops given (or named `module:attribute`), and those of installed packages.

    Passes are taken from packages only by name, for they change every model; an op changes none but
    the models that hold it. PlanishError names what cannot be loaded, or is no CustomOp.
    """
    points = [(_spell(p), _loaded(p.load, p.value, _spell(p))) for p in _points(OP_GROUP)]
    named = [
        (op, _load(op, OP_GROUP, "my_module:my_op, or the name of an installed op"))
        if isinstance(op, str)
        else ("", op)
        for op in given
    ]
    found: dict[str, CustomOp] = {}
    for origin, op in (*points, *named):
        if not isinstance(op, CustomOp):
            raise PlanishError(f"{origin or op!r} is no CustomOp, but {type(op).__name__}")
        if found.setdefault(op.definition.name, op) is not op:
            raise PlanishError(
                f"there are two custom ops '{op.definition.name}'; leave one out or rename it"
            )
    return list(found.values())


def _points(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: point.name)


def _load(spec: str, group: str, expected: str) -> Any:
    """The object that `module:attribute`, or the name of an entry point, stands for."""
    module, colon, attribute = spec.partition(":")
    if not colon:
        for point in _points(group):
            if point.name == spec:
                return _loaded(point.load, point.value, _spell(point))
        names = ", ".join(point.name for point in _points(group)) or "none"
        raise PlanishError(f"'{spec}' is not {expected}; installed are: {names}")
    return _loaded(lambda: _attribute(module, attribute), spec, spec)


def _attribute(module: str, attribute: str) -> Any:
    # A console script has its own folder in sys.path, not the one it is called in.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _loaded(load: Callable[[], Any], spec: str, who: str) -> Any:
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a script that calls sys.exit, taken for a module
        raise PlanishError(
            f"cannot load '{spec}' ({who}): {type(error).__name__}: {error}"
        ) from error


def _spell(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an unknown package"
    return f"{package} {point.value}"
