"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_tuning_log_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels are what this tree makes them, whatever was tuned on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.delenv("PLANISH_LOG", raising=False)
        yield
