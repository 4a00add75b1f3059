"""The loops of a kernel under its schedule, known without TVM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from planish.ir.errors import ScheduleError
from planish.ir.graph import Node
from planish.ir.schedule import Directive
from planish.passes.local.loop import Kind, Loop, divided, fused, reach, whole_axis
from planish.passes.local.stage import Links, Place, Stage
from planish.passes.local.stages import stages_of

#: Where a stage's buffer may live.
SCOPES = ("global", "local")


def loop_nest(kernel: Node) -> LoopNest:
    """The kernel's stages and loops after all directives of its schedule.

    ScheduleError for a kernel without schedule or written by an emitter, and for a directive that
    is not legal.
    """
    nest = LoopNest({stage.name: stage for stage in stages_of(kernel)})
    try:
        for directive in kernel.attrs["schedule"].directives:
            nest = nest.after(directive)
    except ScheduleError as error:
        raise ScheduleError(f"{kernel.where()}: {error}") from None
    return nest


@dataclass(frozen=True, slots=True)
class LoopNest:
    """Stages by name, in the order in which they are computed; immutable."""

    stages: Mapping[str, Stage]

    def stage(self, name: str) -> Stage:
        """The stage of that name; ScheduleError if there is none."""
        if name not in self.stages:
            raise ScheduleError(f"no stage '{name}'; there are {', '.join(self.stages)}")
        return self.stages[name]

    def after(self, directive: Directive) -> LoopNest:
        """The loops after one more directive; ScheduleError if it is not legal here."""
        try:
            return _STEPS[directive.name](self, *directive.args)
        except ScheduleError as error:
            raise ScheduleError(f"{directive}: {error}") from None
        except (TypeError, ValueError, AttributeError) as error:  # an argument of another kind
            raise ScheduleError(f"{directive}: its arguments are wrong: {error}") from error

    def inside(self, stage: str, axis: str) -> list[str]:
        """Stages computed under that very loop."""
        return [s.name for s in self.stages.values() if s.place == Place(stage, axis)]

    def around(self, stage: Stage) -> Iterator[Loop]:
        """Loops of other stages around all of `stage`, innermost first."""
        while stage.place is not None:
            axis, stage = stage.place.axis, self.stages[stage.place.stage]
            yield from reversed(stage.loops[: stage.axes.index(axis) + 1])

    def is_under(self, stage: Stage, place: Place) -> bool:
        """True if `stage`, or what it is computed under, is computed under the loop of `place`."""
        holder = self.stages[place.stage]
        depth = holder.axes.index(place.axis)
        while stage.place is not None:
            if stage.place.stage == place.stage:
                return holder.axes.index(stage.place.axis) >= depth
            stage = self.stages[stage.place.stage]
        return False

    def readers(self, name: str) -> list[Stage]:
        """Stages that read the stage `name`."""
        return [stage for stage in self.stages.values() if name in stage.reads]

    def _with(self, *changed: Stage) -> LoopNest:
        return LoopNest({**self.stages, **{stage.name: stage for stage in changed}})

    def _moved(self, stage: str, new: Mapping[str, str]) -> LoopNest:
        """With the stages under the loops in `new` under those loops' new names."""
        moved = [
            replace(s, place=Place(stage, new[s.place.axis]))
            for s in self.stages.values()
            if s.place is not None and s.place.stage == stage and s.place.axis in new
        ]
        return self._with(*moved)


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise ScheduleError(reason)


def _serial(stage: Stage, axis: str, kind: Kind = "serial") -> Loop:
    """The loop, if it is serial, or is of that kind already."""
    loop = stage.loop(axis)
    _require(loop.kind in ("serial", kind), f"loop '{axis}' is {loop.kind} already")
    return loop


def _require_new(stage: Stage, names: tuple[str, ...], replaced: tuple[str, ...]) -> None:
    taken = set(stage.axes) - set(replaced)
    for name in names:
        _require(name not in taken, f"stage '{stage.name}' has a loop '{name}' already")
        taken.add(name)


def _split(nest: LoopNest, name: str, axis: str, factor: int, outer: str, inner: str) -> LoopNest:
    stage = nest.stage(name)
    loop = _serial(stage, axis)
    _require(factor >= 1, f"the factor must be positive, got {factor}")
    _require_new(stage, (outer, inner), (axis,))
    at = stage.axes.index(axis)
    parts = divided(loop, factor, outer, inner)
    loops = (*stage.loops[:at], *parts, *stage.loops[at + 1 :])
    return nest._moved(name, {axis: inner})._with(replace(stage, loops=loops, begun=False))


def _fuse(nest: LoopNest, name: str, axes: tuple[str, ...], result: str) -> LoopNest:
    stage = nest.stage(name)
    _require(len(axes) > 0, "there is no loop to fuse")
    loops = tuple(_serial(stage, axis) for axis in axes)
    at = stage.axes.index(axes[0])
    _require(
        stage.axes[at : at + len(axes)] == tuple(axes),
        f"loops {', '.join(axes)} do not follow each other in ({', '.join(stage.axes)})",
    )
    kinds = {loop.reduced for loop in loops}
    _require(len(kinds) == 1, "a reduction loop cannot be fused with one that is not")
    for axis in axes[:-1]:
        _require_alone(nest, name, axis)
    _require_new(stage, (result,), tuple(axes))
    joined = (*stage.loops[:at], fused(loops, result), *stage.loops[at + len(axes) :])
    after = replace(stage, loops=joined, begun=False)
    return nest._moved(name, dict.fromkeys(axes, result))._with(after)


def _require_alone(nest: LoopNest, stage: str, axis: str) -> None:
    held = nest.inside(stage, axis)
    _require(not held, f"stage '{''.join(held[:1])}' is computed under the loop '{axis}'")


def _reorder(nest: LoopNest, name: str, axes: tuple[str, ...]) -> LoopNest:
    stage = nest.stage(name)
    named = {axis: stage.loop(axis) for axis in axes}
    _require(len(named) == len(axes), f"a loop is named twice in ({', '.join(axes)})")
    places = [i for i, axis in enumerate(stage.axes) if axis in named]
    loops = list(stage.loops)
    for place, axis in zip(places, axes):
        loops[place] = named[axis]
    after = replace(stage, loops=tuple(loops), begun=False)
    for axis in stage.axes[min(places, default=0) : max(places, default=0)]:
        _require_alone(nest, name, axis)
    if axes and loops[places[-1]].name != stage.axes[places[-1]]:
        _require_alone(nest, name, stage.axes[places[-1]])
    wide = [i for i, loop in enumerate(loops) if loop.extent > 1]
    for i, loop in enumerate(loops):
        outside = loop.kind == "vectorized" and i < max(wide, default=0)
        _require(not outside, f"the vector loop '{loop.name}' must stay innermost")
    return nest._with(after)


def _marked(nest: LoopNest, stage: Stage, axis: str, kind: Kind) -> LoopNest:
    loops = tuple(replace(loop, kind=kind) if loop.name == axis else loop for loop in stage.loops)
    return nest._with(replace(stage, loops=loops, begun=False))


def _vectorize(nest: LoopNest, name: str, axis: str) -> LoopNest:
    stage = nest.stage(name)
    loop = _serial(stage, axis, "vectorized")
    _require(not loop.reduced, f"'{axis}' is a reduction loop: its iterations add to one element")
    innermost = next(
        (loop.name for loop in reversed(stage.loops) if loop.extent > 1), stage.axes[-1]
    )
    inside = stage.loops[stage.axes.index(axis) + 1 :]
    _require(
        all(inner.extent == 1 for inner in inside),
        f"'{axis}' is not the innermost loop, which is '{innermost}'",
    )
    _require_alone(nest, name, axis)
    _require_not_begun_apart(nest, stage, axis)
    return _marked(nest, stage, axis, "vectorized")


def _require_not_begun_apart(nest: LoopNest, stage: Stage, axis: str) -> None:
    """TVM can no longer prove that iterations are independent, once a sum begins elsewhere."""
    for other in nest.stages.values():
        apart = other is stage or nest.is_under(other, Place(stage.name, axis))
        _require(not (apart and other.decomposed), f"'{other.name}' is decomposed: do this before")


def _parallel(nest: LoopNest, name: str, axis: str) -> LoopNest:
    stage = nest.stage(name)
    loop = _serial(stage, axis, "parallel")
    _require(not loop.reduced, f"'{axis}' is a reduction loop: its iterations add to one element")
    _require_not_begun_apart(nest, stage, axis)
    others = [*stage.loops, *nest.around(stage)]
    for other in nest.stages.values():
        if nest.is_under(other, Place(name, axis)):
            others += other.loops
    taken = [other.name for other in others if other.kind == "parallel" and other is not loop]
    _require(not taken, f"the loop '{''.join(taken[:1])}' around or inside it is parallel already")
    return _marked(nest, stage, axis, "parallel")


def _unroll(nest: LoopNest, name: str, axis: str) -> LoopNest:
    stage = nest.stage(name)
    _serial(stage, axis, "unrolled")
    return _marked(nest, stage, axis, "unrolled")


def _inline(nest: LoopNest, name: str) -> LoopNest:
    stage = nest.stage(name)
    _require_undecomposed(nest)
    _require(bool(nest.readers(name)), f"no stage reads '{name}'")
    _require(not any(loop.reduced for loop in stage.loops), f"'{name}' is a reduction")
    _require("lane" not in stage.axes, f"'{name}' has partial results, each of them read once more")
    _require(stage.begun and stage.place is None, f"the loops of '{name}' are scheduled already")
    for axis in stage.axes:
        _require_alone(nest, name, axis)
    changed = []
    for reader in nest.readers(name):
        links = reader.reads[name]
        through = {made: _through(links, read) for made, read in stage.reads.items()}
        kept = {made: read for made, read in reader.reads.items() if made != name}
        changed.append(replace(reader, reads=through | kept))
    rest = {key: value for key, value in nest.stages.items() if key != name}
    return LoopNest(rest)._with(*changed)


def _through(links: Links | None, read: Links | None) -> Links | None:
    """Links to what an inlined stage reads, `links` being those to the stage itself."""
    if links is None or read is None:
        return None
    return {own: read[via] for own, via in links.items() if via in read}


def _require_undecomposed(nest: LoopNest) -> None:
    for stage in nest.stages.values():
        _require(not stage.decomposed, f"'{stage.name}' is decomposed: stages move before that")


def _require_movable(nest: LoopNest, stage: Stage, target: Stage, axis: str) -> None:
    _require_undecomposed(nest)
    _require(stage is not target, f"'{stage.name}' cannot be computed under its own loop")
    _require(stage.place is None, f"'{stage.name}' is computed under another loop already")
    _require(stage.begun, f"the loops of '{stage.name}' are scheduled already; move it first")
    loop = target.loop(axis)
    _require(loop.kind != "vectorized", f"'{axis}' is a vector loop")
    for own in stage.axes:
        _require_alone(nest, stage.name, own)


def _compute_at(nest: LoopNest, name: str, consumer: str, axis: str) -> LoopNest:
    stage, target = nest.stage(name), nest.stage(consumer)
    _require_movable(nest, stage, target, axis)
    place = Place(consumer, axis)
    readers = nest.readers(name)
    _require(bool(readers), f"no stage reads '{name}'")
    for reader in readers:
        _require(
            reader is target or nest.is_under(reader, place),
            f"'{reader.name}' reads '{name}', but is not computed under that loop",
        )
    loops = []
    for loop in stage.loops:
        extent = loop.extent
        if not loop.reduced:
            extent = max(_read_extent(nest, reader, stage, loop, place) for reader in readers)
        loops.append(whole_axis(loop.name, extent, loop.reduced))
    return nest._with(replace(stage, loops=tuple(loops), place=place))


def _read_extent(nest: LoopNest, reader: Stage, stage: Stage, loop: Loop, place: Place) -> int:
    """Elements of an axis of `stage` that `reader` needs in one iteration of the loop there."""
    links = reader.reads[stage.name] or {}
    own = [axis for axis, read in links.items() if read == loop.name]
    if not own:
        return loop.extent
    loops = reader.loops
    if reader.name == place.stage:
        loops = loops[reader.axes.index(place.axis) + 1 :]
    elif reader.place is not None and reader.place.stage == place.stage and reader.place != place:
        # Further in: what it reads is needed for all that the loops between need of it.
        holder = nest.stages[place.stage]
        through = holder.reads.get(reader.name) or {}
        own = [axis for axis, read in through.items() if read == own[0]]
        loops = holder.loops[holder.axes.index(place.axis) + 1 :]
        if not own:
            return loop.extent
    elif reader.place != place:
        return loop.extent
    return reach(loops, own[0], loop.extent)


def _reverse_compute_at(nest: LoopNest, name: str, producer: str, axis: str) -> LoopNest:
    stage, source = nest.stage(name), nest.stage(producer)
    _require_movable(nest, stage, source, axis)
    _require(producer in stage.reads, f"'{name}' does not read '{producer}'")
    place = Place(producer, axis)
    for made in stage.reads:
        _require(
            made == producer or nest.is_under(nest.stages[made], place),
            f"'{name}' reads '{made}' too, which is not computed under that loop",
        )
    outer = source.loops[: source.axes.index(axis) + 1]
    for loop in (*outer, *nest.around(source)):
        _require(not loop.reduced, f"'{producer}' is complete only after its loop '{loop.name}'")
    links = stage.reads[producer]
    if links is None:
        raise ScheduleError(f"'{name}' reads '{producer}' in another order")
    linked = {read for own, read in links.items() if not stage.loop(own).reduced}
    if "lane" in stage.axes and "lane" not in linked:  # it reads several lanes for each of its own
        for loop in source.loops:
            _require(not loop.guarded, f"loop '{loop.name}' of '{producer}' may end early")
    for digit in (digit for loop in outer for digit in loop.digits):
        _require(
            digit.axis in linked or digit.extent == 1,
            f"'{name}' needs all of axis '{digit.axis}' of '{producer}' at once",
        )
    inner = source.loops[len(outer) :]
    loops = tuple(
        whole_axis(loop.name, reach(inner, links[loop.name], loop.extent), loop.reduced)
        if loop.name in links
        else loop
        for loop in stage.loops
    )
    return nest._with(replace(stage, loops=loops, place=place))


def _set_scope(nest: LoopNest, name: str, scope: str) -> LoopNest:
    stage = nest.stage(name)
    _require(scope in SCOPES, f"no scope '{scope}'; there are {', '.join(SCOPES)}")
    _require(bool(nest.readers(name)), f"'{name}' is not a buffer of the kernel's own")
    return nest._with(replace(stage, scope=scope))


def _decompose_reduction(nest: LoopNest, name: str, axis: str) -> LoopNest:
    stage = nest.stage(name)
    stage.loop(axis)
    reduced = [loop.name for loop in stage.loops if loop.reduced]
    _require(bool(reduced), f"'{name}' is not a reduction")
    _require(not stage.decomposed, f"'{name}' is decomposed already")
    at = stage.axes.index(axis)
    _require(
        at <= stage.axes.index(reduced[0]),
        f"'{axis}' is inside the reduction loop '{reduced[0]}', where the sum has begun",
    )
    place = Place(name, stage.axes[at - 1]) if at else stage.place
    loops = tuple(loop for loop in stage.loops[at:] if not loop.reduced)  # of the same kinds
    init = Stage(f"{name}.init", loops, {}, place, stage.scope, begun=False)
    return nest._with(replace(stage, decomposed=True, begun=False), init)


_STEPS: Mapping[str, Callable[..., LoopNest]] = {
    "split": _split,
    "fuse": _fuse,
    "reorder": _reorder,
    "vectorize": _vectorize,
    "parallel": _parallel,
    "unroll": _unroll,
    "inline": _inline,
    "compute_at": _compute_at,
    "reverse_compute_at": _reverse_compute_at,
    "set_scope": _set_scope,
    "decompose_reduction": _decompose_reduction,
}
