"""The report: one file that loads nothing, a curve for each task, the reason of each gap."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from planish.autotune.log import Race
from planish.autotune.search.assess import Quality
from planish.tuning import TuneReport
from planish.tuning_page import page, report_json, why, write_report
from tests.search.standings import OTHER, STANDING, TUNING, UNREACHED


def report() -> TuneReport:
    """A report without a compilation of its own."""
    compiled = SimpleNamespace(
        name="model",
        output=Path("out"),
        target=SimpleNamespace(name="host", cores=2),
        manifest=SimpleNamespace(digest="d"),
        log=None,
    )
    quality = Quality(5, 200, 0.91, 0.7, 0.62, 0.4)
    race = Race("ab", 2, 1.2e-3, 1.8e-3, 1.5, "2026-01-31T12:00:00Z")
    return TuneReport(TUNING, compiled, True, race, 0.0, quality, Path("log"))  # type: ignore[arg-type]


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        self.text += data


def test_page_loads_nothing_and_escapes_names() -> None:
    parsed = Tags()
    parsed.feed(page(report()))
    assert not [
        t for t, a in parsed.tags if t in ("script", "link", "img") or {"src", "href"} & {*a}
    ]
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert "relu<b>" in parsed.text
    assert sum(tag == "svg" for tag, _ in parsed.tags) == 3  # the model, and two tasks with curves
    assert "rank correlation 0.91 (analytic model alone 0.62)" in parsed.text
    assert "the tuned artefact is 1.500 times as fast as untuned" in parsed.text
    assert "kernels: 1.8 ms untuned, 1.2 ms tuned (1.50 times as fast)" in parsed.text


def test_curves_fall_to_the_right_and_roofs_lie_below() -> None:
    figure = page(report()).split("<figure>")[2]
    path = re.search(r'class="line" d="([^"]+)"', figure)
    assert path is not None
    numbers = [float(n) for n in re.findall(r"[\d.]+", path[1])]
    begin, first, later, second, end = numbers
    assert begin < later < end
    assert first < second  # y grows downwards
    roof = re.search(r"class=limit .* y1=([\d.]+)", figure)
    assert roof is not None
    assert float(roof[1]) > second


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        (
            STANDING,
            "compute-bound, at 20% of what the machine could do; 60 points are not measured",
        ),
        (OTHER, ""),
        (UNREACHED, "not measured: the budget ended before"),
        (dataclasses.replace(STANDING, note="it holds a custom op"), "it holds a custom op"),
        (dataclasses.replace(STANDING, size=40), "every point of its space is measured"),
        (dataclasses.replace(OTHER, best=4e-6, roofline=1e-6), "short: calling it"),
        (dataclasses.replace(OTHER, best=9e-4), "memory-bound, at 20%"),
    ],
)
def test_why(standing: object, words: str) -> None:
    told = why(standing)  # type: ignore[arg-type]
    assert words in told if words else told == ""


def test_files(tmp_path: Path) -> None:
    write_report(report(), tmp_path / "new/report")
    data = json.loads((tmp_path / "new/report/report.json").read_text())
    assert data == json.loads(json.dumps(report_json(report())))
    tasks = data["tuning"]["tasks"]
    assert [task["share"] for task in tasks] == pytest.approx([1 / 1.2, 0.2 / 1.2, 0])
    assert [task["achieved"] for task in tasks] == pytest.approx([0.2, 0.9, None])
    assert (tmp_path / "new/report/report.html").read_text().startswith("<!doctype html>")
