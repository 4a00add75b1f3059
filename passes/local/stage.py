"""A stage of a kernel, its tiles, and where what follows the anchor reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from planish.ir.errors import ScheduleError
from planish.ir.ops.winograd import STEP, patches
from planish.ir.schedule import Schedule
from planish.passes.local.loop import Loop, whole_axis

#: Own axis → the producer's axis with the same index; other axes of the producer are read whole.
Links = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Under the loop `axis` of the stage `stage`."""

    stage: str
    axis: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A stored tensor of a kernel and the loops that compute it, outermost first.

    `reads` names the stages that it reads, with what links their axes to its own, or None where
    ops between them move elements. `place` is where `compute_at` has put it.
    """

    name: str
    loops: tuple[Loop, ...]
    reads: Mapping[str, Links | None] = field(default_factory=dict)
    place: Place | None = None
    scope: str = "global"
    begun: bool = True  # the loops are those that it began with
    decomposed: bool = False

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the loops, outermost first."""
        return tuple(loop.name for loop in self.loops)

    def loop(self, axis: str) -> Loop:
        """The loop of that name; ScheduleError if there is none."""
        for loop in self.loops:
            if loop.name == axis:
                return loop
        raise ScheduleError(
            f"stage '{self.name}' has no loop '{axis}'; it has {', '.join(self.axes)}"
        )


@dataclass(frozen=True, slots=True)
class Tiles:
    """One axis of `out` as (tiles, size), as the anchor's accumulator has it."""

    axis: int
    size: int

    def tiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape with that axis in tiles; ScheduleError if none fits."""
        extent = shape[self.axis]
        if not 1 <= self.size <= extent:
            raise ScheduleError(f"tiles of {self.size} do not fit an axis of {extent}")
        count = -(-extent // self.size)
        return (*shape[: self.axis], count, self.size, *shape[self.axis + 1 :])


@dataclass(frozen=True, slots=True)
class Patches:
    """H and W of `out`[N, C, H, W, c] as (tiles, size, 2, 2): patches of pixels, in tiles."""

    size: int

    def tiled(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape with H and W in tiles of patches; ScheduleError if none fits."""
        line = Tiles(2, self.size)
        count, size = line.tiled((*shape[:2], patches(shape[2], shape[3])))[2:]
        return (*shape[:2], count, size, STEP, STEP, *shape[4:])


@dataclass(frozen=True, slots=True)
class Anchored:
    """An anchor's stages, the axis of `out` for each of theirs by position, and its tiles."""

    stages: tuple[Stage, ...]
    positions: Mapping[str, Mapping[str, int]]  # stage that out reads → its axis → out's position
    tiles: Tiles | Patches | None = None
    flatten: bool = False


def numbered(count: int) -> tuple[str, ...]:
    """The names of so many axes."""
    return tuple(f"d{i}" for i in range(count))


def make_stage(
    name: str,
    shape: Sequence[int],
    over: Iterable[tuple[str, int]] = (),
    axes: Sequence[str] = (),
    reads: Mapping[str, Links | None] | None = None,
) -> Stage:
    """A stage of a shape (axes d0, d1, … by default) that joins the axes `over`."""
    names = tuple(axes) or numbered(len(shape)) or ("d0",)
    kept = tuple(map(whole_axis, names, tuple(shape) or (1,)))
    reduced = tuple(whole_axis(axis, extent, reduced=True) for axis, extent in over)
    return Stage(name, kept + reduced, reads or {})


def vector_tiles(plan: Schedule, axis: int) -> Tiles | None:
    """Tiles of an anchor's last axis, where those of `out` overlap."""
    if ("overlap", True) not in plan.choices:
        return None
    return Tiles(axis, int(plan.choice("vector")))
