"""The toy artefacts, shared with the tests of the runtime."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from toy_model import build_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact for this machine; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder / "artefact", folder / "work")


@pytest.fixture
def own_toy(toy: Path, tmp_path: Path) -> Path:
    """A copy of the artefact that the test may change."""
    return Path(shutil.copytree(toy, tmp_path / "artefact"))
