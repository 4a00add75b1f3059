"""`planish tune`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from planish.autotune.search.budget import Budget
from planish.autotune.search.standing import Standing, Tuning
from planish.bench.roofline import spell_achieved
from planish.bench.turns import TOLERATED, warn_of_load
from planish.bench.worker import ForeignLoad
from planish.cli.options import check_writable, parse_dims, parse_shapes
from planish.cli.printing import plain_text, spell_seconds
from planish.cli.terminal import say
from planish.ir.errors import PlanishError, TuningError
from planish.ir.seconds import TIMES
from planish.tuning import TuneReport, tune
from planish.tuning_page import report_json, summary, write_report

#: Tasks in the live table; the others are summed up.
_ROWS = 16
#: Seconds for which the machine is watched before anything is done.
_WATCHING = 0.2


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    target: str
    dims: Sequence[str]
    shapes: Sequence[str]
    name: str | None
    threads: int | None
    budget: str | None
    trials: int | None
    log: Path | None
    keep_subnormals: bool
    seed: int
    report: Path | None
    begun: float | None = None


def run_tune(model: Path, output: Path, options: Options, *, as_json: bool) -> None:
    """Tunes, compiles, prints; PlanishError for options that cannot be read."""
    budget = parse_budget(options.budget, options.trials)
    _check_report(options.report)
    begun = time.monotonic() if options.begun is None else options.begun
    _warn_of_company()
    with TuningProgress(enabled=not as_json, until=_end(budget, begun)) as progress:
        report = tune(
            model,
            output,
            target=options.target,
            dims=parse_dims(options.dims),
            shapes=parse_shapes(options.shapes),
            name=options.name,
            threads=options.threads,
            log=options.log,
            keep_subnormals=options.keep_subnormals,
            budget=budget,
            begun=begun,
            seed=options.seed,
            observer=progress.observe,
            progress=progress.stage,
        )
    if options.report is not None:
        write_report(report, options.report)
    if as_json:
        say(json.dumps(report_json(report)))
    else:
        _print_report(report, options.report)
    note = warn_of_load(report.others)
    if note:
        say(f"planish: {note}", file=sys.stderr)


def parse_budget(text: str | None, trials: int | None) -> Budget:
    """`"10m"` → 600 seconds; without both limits, ten minutes."""
    try:
        return Budget.of(text, trials)
    except TuningError:
        raise PlanishError(f"--budget {text} is no time; write {TIMES}") from None


def _end(budget: Budget, begun: float) -> float | None:
    return None if budget.seconds is None else begun + budget.seconds


def _warn_of_company() -> None:
    """Says at once that the machine is not idle: later, a budget has been spent on it."""
    load = ForeignLoad()
    time.sleep(_WATCHING)
    others = load.cpus()
    if others > TOLERATED:
        say(
            f"planish: this machine is busy: other processes use {others:.1f} CPUs; trials wait "
            "for quiet moments, and the times will say less",
            file=sys.stderr,
        )


def _check_report(folder: Path | None) -> None:
    """Makes the folder now: it would be late to find out after the tuning that it cannot be."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise PlanishError(f"--report {folder} is a file; name a folder for the report")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanishError(f"--report {folder} cannot be made: {error.strerror}") from None
    check_writable(folder / "report.html")


def _print_report(report: TuneReport, folder: Path | None) -> None:
    for sentence in summary(report):
        say(sentence)
    for standing in report.tuning.standings:
        if standing.note:
            say(f"not tuned: {standing.about}: {standing.note}")
    if report.tuning.interrupted:
        say("interrupted: `planish tune` with the same log goes on where it ended")
    say(f"{report.compiled.output}: {len(report.compiled.manifest.kernels)} kernels")
    if folder is not None:
        say(f"report: {folder / 'report.html'}")


class TuningProgress(AbstractContextManager["TuningProgress"]):
    """The live table on a terminal, else a line for each batch; on stderr."""

    def __init__(
        self, enabled: bool = True, console: Console | None = None, until: float | None = None
    ) -> None:
        self._enabled, self._until = enabled, until
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._stage = ""
        self._trials = 0

    def __enter__(self) -> TuningProgress:
        if self._enabled and self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def stage(self, stage: str, done: int, total: int) -> None:
        """Tells what is done besides measuring."""
        if not self._enabled or (stage == self._stage and self._live is None):
            return
        self._stage = stage
        if self._live is not None:
            told = f"{stage} {done}/{total}" if total else stage
            self._live.update(plain_text(told + self._left()))

    def observe(self, tuning: Tuning) -> None:
        """Shows where the tuning stands."""
        if not self._enabled:
            return
        if self._live is not None:
            self._live.update(Group(live_table(tuning), plain_text(line(tuning) + self._left())))
        elif tuning.trials != self._trials:
            self._trials = tuning.trials
            self._console.print(plain_text(line(tuning) + self._left()), soft_wrap=True)

    def _left(self) -> str:
        """What is left of the budget of the whole command."""
        if self._until is None:
            return ""
        return f", {max(0.0, self._until - time.monotonic()):.0f} s of the budget left"


def line(tuning: Tuning) -> str:
    """A batch in one line."""
    current = next((s for s in tuning.standings if s.task == tuning.current), None)
    parts = [f"{tuning.trials} trials", f"kernels {spell_seconds(tuning.best)}"]
    if tuning.best:
        parts.append(f"{tuning.default / tuning.best:.2f} times as fast as untuned")
    if tuning.left is not None:
        parts.append(f"{tuning.left:.0f} s left for measuring")
    if current is not None and current.best is not None:
        parts.append(f"{current.about}: {spell_seconds(current.best)}")
    return ", ".join(parts)


def live_table(tuning: Tuning) -> Table:
    """The tasks that take longest."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("task", ">share", ">untuned", ">best", ">of roofline", ">trials"):
        number = heading.startswith(">")
        table.add_column(
            heading.removeprefix(">"),
            justify="right" if number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    ordered = sorted(tuning.standings, key=lambda s: -s.time)
    for standing in ordered[:_ROWS]:
        style = "bold" if standing.task == tuning.current else ""
        table.add_row(*map(plain_text, _cells(tuning, standing)), style=style)
    if len(ordered) > _ROWS:
        rest = ordered[_ROWS:]
        share = sum(tuning.share(s) for s in rest)
        trials = sum(s.trials for s in rest)
        table.add_row(f"{len(rest)} more", f"{share:.1%}", "", "", "", str(trials))
    return table


def _cells(tuning: Tuning, standing: Standing) -> tuple[str, ...]:
    return (
        f"{standing.count}x {standing.about}",
        f"{tuning.share(standing):.1%}",
        spell_seconds(standing.default) if standing.default else "",
        spell_seconds(standing.best) if standing.best else "",
        spell_achieved(standing.achieved) if standing.achieved else "",
        f"{standing.trials + standing.known}/{standing.size}",
    )
