"""One measurer for all tests: its builder has imported TVM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planish.autotune.measure import Measurer, Options
from tests.measure.kernels_in_c import C_BACKEND, HOST

OPTIONS = Options(
    timeout=1.5,
    build_timeout=20.0,
    memory=64 << 20,
    build_memory=1 << 30,
    budget=0.1,
    patience=0.0,
)


@pytest.fixture(scope="session")
def measurer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measurer]:
    """Measures kernels in C and generated ones; tests leave it usable."""
    base: Path = tmp_path_factory.mktemp("measure")
    with Measurer(C_BACKEND, HOST, OPTIONS, builders=1, base=base) as started:
        yield started
    assert not list(base.iterdir())
