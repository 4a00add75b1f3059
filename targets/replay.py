"""Replays a Schedule's directives on a TVM `s_tir.Schedule`; the only place that does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tvm import s_tir, tirx

from planish.ir.errors import ScheduleError
from planish.ir.schedule import Directive, Schedule
from planish.targets.expressions.view import Stages

Loop = Any  # a TVM loop random variable
Block = Any  # a TVM block random variable


def replay(func: tirx.PrimFunc, stages: Stages, plan: Schedule) -> tirx.PrimFunc:
    """`func` with the directives of `plan` applied; `stages` names its loops.

    Raises ScheduleError that names the directive which TVM or we refuse, and why.
    """
    state = start(func, stages)
    apply(state, plan.directives)
    return state.schedule.mod["main"]


def start(func: tirx.PrimFunc, stages: Stages) -> Replay:
    """A replay of no directive yet."""
    schedule = s_tir.Schedule(func, debug_mask="none", error_render_level="fast")
    reduced = {name: set(axes) for name, axes in stages.reduced.items()}
    return Replay(schedule, stages.axes, reduced)


def apply(state: Replay, directives: Iterable[Directive]) -> None:
    """Apply directives in order; errors as those of `replay`."""
    for directive in directives:
        try:
            _STEPS[directive.name](state, *directive.args)
        except ScheduleError as error:
            raise ScheduleError(f"{directive}: {error}") from None
        except Exception as error:  # TVM raises many types here
            reason = str(error).strip().splitlines()
            raise ScheduleError(f"{directive}: {reason[-1] if reason else error!r}") from error


@dataclass(slots=True)
class Replay:
    """A TVM schedule, and what stages and axes are called in it."""

    schedule: Any
    axes: dict[str, tuple[str, ...]]
    reduced: dict[str, set[str]]
    blocks: dict[str, Block] = field(default_factory=dict)
    loops: dict[str, dict[str, Loop]] = field(default_factory=dict)

    def block(self, stage: str) -> Block:
        if stage not in self.blocks:
            if stage not in self.axes:
                known = dict.fromkeys((*self.axes, *self.blocks))
                raise ScheduleError(f"no stage '{stage}'; there are {', '.join(known)}")
            self.blocks[stage] = self.schedule.get_sblock(stage)
        return self.blocks[stage]

    def named(self, stage: str) -> dict[str, Loop]:
        """The stage's own loops by name, outermost first."""
        if stage not in self.loops:
            names = self.axes.get(stage, ())
            loops = self.schedule.get_loops(self.block(stage))
            self.loops[stage] = dict(zip(names, loops[-len(names) :]))
        return self.loops[stage]

    def loop(self, stage: str, axis: str) -> Loop:
        loops = self.named(stage)
        if axis not in loops:
            raise ScheduleError(f"stage '{stage}' has no loop '{axis}'; it has {', '.join(loops)}")
        return loops[axis]

    def replace(self, stage: str, old: tuple[str, ...], new: Mapping[str, Loop]) -> None:
        """Put the loops `new` where the first of `old` was, and drop `old`."""
        updated: dict[str, Loop] = {}
        for name, loop in self.named(stage).items():
            if name == old[0]:
                updated.update(new)
            if name not in old:
                updated[name] = loop
        self.loops[stage] = updated


def _split(r: Replay, stage: str, axis: str, factor: int, outer: str, inner: str) -> None:
    first, second = r.schedule.split(r.loop(stage, axis), [None, factor])
    r.replace(stage, (axis,), {outer: first, inner: second})
    if axis in r.reduced[stage]:
        r.reduced[stage] |= {outer, inner}


def _fuse(r: Replay, stage: str, axes: tuple[str, ...], fused: str) -> None:
    loop = r.schedule.fuse(*(r.loop(stage, axis) for axis in axes))
    r.replace(stage, axes, {fused: loop})
    if r.reduced[stage].intersection(axes):
        r.reduced[stage].add(fused)


def _reorder(r: Replay, stage: str, axes: tuple[str, ...]) -> None:
    loops = r.named(stage)
    r.schedule.reorder(*(r.loop(stage, axis) for axis in axes))
    rest = iter(axes)
    order = [next(rest) if name in axes else name for name in loops]
    r.loops[stage] = {name: loops[name] for name in order}


def _compute_at(r: Replay, stage: str, consumer: str, axis: str) -> None:
    names = tuple(r.named(stage))
    loop = r.loop(consumer, axis)
    r.schedule.compute_at(r.block(stage), loop, preserve_unit_loops=True)
    loops = r.schedule.get_loops(r.block(stage))
    r.loops[stage] = dict(zip(names, loops[-len(names) :]))


def _reverse_compute_at(r: Replay, stage: str, producer: str, axis: str) -> None:
    names = tuple(r.named(stage))
    loop = r.loop(producer, axis)
    r.schedule.reverse_compute_at(r.block(stage), loop, preserve_unit_loops=True)
    loops = r.schedule.get_loops(r.block(stage))
    r.loops[stage] = dict(zip(names, loops[-len(names) :]))


def _decompose_reduction(r: Replay, stage: str, axis: str) -> None:
    """The new stage `STAGE.init` has the loops inside `axis` that are not reduced."""
    loop, names = r.loop(stage, axis), list(r.named(stage))
    inner = [name for name in names[names.index(axis) :] if name not in r.reduced[stage]]
    init = r.schedule.decompose_reduction(r.block(stage), loop)
    r.blocks[f"{stage}.init"] = init
    r.reduced[f"{stage}.init"] = set()
    found = r.schedule.get_loops(init)
    r.loops[f"{stage}.init"] = dict(zip(inner, found[-len(inner) :])) if inner else {}


_STEPS: dict[str, Any] = {
    "split": _split,
    "fuse": _fuse,
    "reorder": _reorder,
    "vectorize": lambda r, stage, axis: r.schedule.vectorize(r.loop(stage, axis)),
    "parallel": lambda r, stage, axis: r.schedule.parallel(r.loop(stage, axis)),
    "unroll": lambda r, stage, axis: r.schedule.unroll(r.loop(stage, axis)),
    "inline": lambda r, stage: r.schedule.compute_inline(r.block(stage)),
    "compute_at": _compute_at,
    "reverse_compute_at": _reverse_compute_at,
    "set_scope": lambda r, stage, scope: r.schedule.set_scope(r.block(stage), 0, scope),
    "decompose_reduction": _decompose_reduction,
}
