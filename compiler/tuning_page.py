"""The report of a tuning: report.json for programs, report.html, one file, for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planish.autotune.search.standing import Standing, Step, Tuning
from planish.bench.roofline import excess, spell_achieved

if TYPE_CHECKING:
    from planish.tuning import TuneReport

#: Nearer to its roofline than this, a task has little to gain.
NEAR = 0.7
#: Seconds of a call below which starting it costs more than its work.
_SHORT = 5e-6

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 360, 150, 62, 12, 10, 28
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #8884 }
.n { text-align: right; font-variant-numeric: tabular-nums }
.curves { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0 } figcaption { max-width: 360px; font-size: 12px }
svg text { font: 10px system-ui, sans-serif; fill: currentColor }
svg .line { fill: none; stroke: #2a6fdb; stroke-width: 1.5 }
svg .limit { stroke: #c33; stroke-dasharray: 4 3 } svg .axis { stroke: currentColor }
:root { color-scheme: light dark }
"""


def report_json(report: TuneReport) -> dict[str, Any]:
    """Plain data; seconds, and shares of 1."""
    return {
        "name": report.compiled.name,
        "output": str(report.compiled.output),
        "target": report.compiled.target.name,
        "threads": report.compiled.target.cores,
        "log": str(report.log),
        "shipped": "tuned" if report.tuned else "untuned",
        "verdict": report.verdict,
        "note": report.note,
        "budget": asdict(report.budget),
        "seconds": report.elapsed,
        "latency": {"before": report.before, "after": report.after},
        "race": asdict(report.race) if report.race else None,
        "others": report.others,
        "cost_model": asdict(report.quality) if report.quality else None,
        "digest": report.compiled.manifest.digest,
        "tuning": report.tuning.to_json(),
    }


def write_report(report: TuneReport, folder: Path) -> None:
    """Writes report.json and report.html to a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report_json(report), indent=1) + "\n")
    (folder / "report.html").write_text(page(report), encoding="utf-8")


def why(standing: Standing) -> str:
    """What keeps a task from its roofline, or lets it pass it, in words; empty if it is near."""
    achieved = standing.achieved
    if standing.note:
        return standing.note
    if standing.best is None:
        return "not measured: the budget ended before"
    if achieved is None or achieved >= NEAR:
        return excess(achieved, standing.bound, standing.about)
    if standing.best < _SHORT:
        return "short: calling it and its loops costs more than its work"
    told = f"{standing.bound}-bound, at {achieved:.0%} of what the machine could do"
    if standing.trials + standing.known >= standing.size:
        return f"{told}; every point of its space is measured"
    return f"{told}; {standing.size - standing.trials - standing.known} points are not measured"


def page(report: TuneReport) -> str:
    """The whole page: no script, nothing that is loaded."""
    tuning, name = report.tuning, escape(report.compiled.name)
    standings = sorted(tuning.standings, key=lambda s: -s.time)
    curves = [_figure("all kernels together", tuning.curve, tuning, 0.0)]
    curves += [
        _figure(f"{s.count}x {s.about}", s.curve, tuning, s.roofline) for s in standings if s.curve
    ]
    return "\n".join(
        [
            f"<!doctype html><html lang=en><meta charset=utf-8><title>Tuning of {name}</title>",
            f"<style>{_STYLE}</style><h1>Tuning of {name}</h1>",
            *(f"<p>{escape(sentence)}</p>" for sentence in summary(report)),
            "<h2>Tasks</h2>",
            _table(tuning, standings),
            "<h2>Time over trials</h2><div class=curves>",
            *curves,
            "</div></html>\n",
        ]
    )


def summary(report: TuneReport) -> list[str]:
    """The result in sentences."""
    tuning, told = report.tuning, []
    ended = ", interrupted" if tuning.interrupted else ""
    allowed = "" if report.budget.seconds is None else f" of {report.budget.seconds:.0f} s"
    told.append(
        f"{_count(tuning.trials, 'trial')} of {_count(len(tuning.standings), 'task')} in "
        f"{tuning.elapsed:.0f} s, {report.elapsed:.0f} s{allowed} in all{ended}; log {report.log}"
    )
    told += _unreached(tuning)
    if tuning.best:
        told.append(
            f"kernels: {_time(tuning.default)} untuned, {_time(tuning.best)} tuned "
            f"({tuning.default / tuning.best:.2f} times as fast)"
        )
    if report.before is not None:
        told.append(
            f"model: {_time(report.before)} before, {_time(report.after)} after, measured in turn"
        )
    told.append(report.verdict)
    if report.note and report.note not in report.verdict:
        told.append(report.note)
    if tuning.disturbed:
        told.append(
            f"other processes disturbed {tuning.disturbed} of {_count(tuning.trials, 'trial')}: "
            "what was measured says less than on an idle machine"
        )
    quality = report.quality
    if quality is not None:
        told.append(
            f"cost model on {quality.tasks} held-out tasks: rank correlation {quality.rank:.2f} "
            f"(analytic model alone {quality.analytic_rank:.2f}), recall of the fastest "
            f"{quality.recall:.0%} (alone {quality.analytic_recall:.0%})"
        )
    return told


def _unreached(tuning: Tuning) -> list[str]:
    """What the budget did not reach."""
    told = []
    tasks = _count(len(tuning.standings), "task")
    if tuning.unreached:
        told.append(
            f"{tuning.unreached} of {tasks} {_were(tuning.unreached)} never measured and "
            f"{'has' if tuning.unreached == 1 else 'have'} the default schedule"
        )
    if tuning.default_only:
        told.append(
            f"{tuning.default_only} of {tasks} {_were(tuning.default_only)} measured with the "
            "default schedule only"
        )
    return told


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _count(number: int, noun: str) -> str:
    """`(1, "task")` → "1 task"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _table(tuning: Tuning, standings: Sequence[Standing]) -> str:
    heads = (
        "task",
        "kernels",
        "share",
        "untuned",
        "tuned",
        "of roofline",
        "trials",
        "point",
        "why",
    )
    rows = [
        (
            s.about,
            s.count,
            f"{tuning.share(s):.1%}",
            _time(s.default),
            _time(s.best),
            "" if s.achieved is None else spell_achieved(s.achieved),
            f"{s.trials + s.known} of {s.size}",
            " ".join(f"{name}={value}" for name, value in s.point.items()),
            why(s),
        )
        for s in standings
    ]
    head = "".join(f"<th>{name}" for name in heads)
    numbers = range(1, 7)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if i in numbers else ''}>{escape(str(cell))}"
            for i, cell in enumerate(row)
        )
        for row in rows
    )
    return f"<table><tr>{head}{body}</table>"


def _figure(title: str, curve: Sequence[Step], tuning: Tuning, limit: float) -> str:
    drawn = _svg(curve, max(1, tuning.trials), limit) if curve else "<p>not measured</p>"
    return f"<figure>{drawn}<figcaption>{escape(title)}</figcaption></figure>"


def _svg(curve: Sequence[Step], trials: int, limit: float) -> str:
    """The time reached (from 0 up) over the trials of the whole tuning; dashed: the roofline."""
    most = max(step.seconds for step in curve) * 1.05
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(number: float) -> float:
        return _LEFT + (right - _LEFT) * number / trials

    def y(seconds: float) -> float:
        return bottom - (bottom - _TOP) * seconds / most

    path = [f"M{x(curve[0].trials):.1f} {y(curve[0].seconds):.1f}"]
    for step in curve[1:]:
        path.append(f"H{x(step.trials):.1f}V{y(step.seconds):.1f}")
    path.append(f"H{right}")
    dashed = ""
    if limit:
        dashed = f"<line class=limit x1={_LEFT} x2={right} y1={y(limit):.1f} y2={y(limit):.1f} />"
    ticks = "".join(
        f'<text x="{_LEFT - 4}" y="{y(value) + 3:.1f}" text-anchor="end">{_time(value)}</text>'
        for value in (0.0, most / 2, most)
    )
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img">'
        f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'
        f'{ticks}<text x="{_LEFT}" y="{_HEIGHT - 14}">0</text>'
        f'<text x="{right}" y="{_HEIGHT - 14}" text-anchor="end">{trials} trials</text>'
        f'{dashed}<path class="line" d="{"".join(path)}"/></svg>'
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
