"""The progress bar waits, shows the stage, and leaves the terminal as it was."""

from __future__ import annotations

import time

import pytest

from planish.cli import progress
from planish.cli.progress import StageProgress


def test_shows_stage_and_count_once_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    with StageProgress() as advance:
        advance("import", 0, 0)
        advance("lower", 3, 40)
        time.sleep(0.3)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "lower" in shown.err
    assert "3/40" in shown.err


@pytest.mark.parametrize("environment", [{"FORCE_COLOR": "1"}, {}])
def test_says_nothing_when_quick_or_without_a_terminal(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with StageProgress() as advance:
        advance("import", 0, 0)
    assert capfd.readouterr().err.replace("\n", "") == ""
