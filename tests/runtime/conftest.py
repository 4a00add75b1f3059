"""The toy artefacts that the tests of runtime and artefact share."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_model import build_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact for this machine; not to be changed."""
    folder = tmp_path_factory.mktemp("toy")
    return build_toy(folder / "artefact", folder / "work")
