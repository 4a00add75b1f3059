"""Fixtures of the tests on real models."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models that the zoo generates are written, once for a test run."""
    return tmp_path_factory.mktemp("made")
