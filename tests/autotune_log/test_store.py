"""Where logs are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.autotune.log import open_log, stored_paths, written_path
from planish.autotune.log import store as store_module
from planish.autotune.log.store import shipped_paths, user_store
from planish.ir.errors import TuningError
from tests.autotune_log.logs import trial, write


def test_the_store_respects_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    default = Path("/home/me/.local/share/planish/tuning.jsonl")
    assert user_store({}) == default
    assert user_store({"XDG_DATA_HOME": ""}) == default
    assert user_store({"XDG_DATA_HOME": "relative"}) == default
    assert user_store({"XDG_DATA_HOME": "/data"}) == Path("/data/planish/tuning.jsonl")


def test_planish_log_names_files(tmp_path: Path) -> None:
    mine, team = tmp_path / "mine", tmp_path / "team"
    environ = {"PLANISH_LOG": f"{mine}:{team}", "XDG_DATA_HOME": str(tmp_path)}
    assert written_path(environ) == mine
    with pytest.raises(TuningError, match=r"PLANISH_LOG names '.*team', which does not exist"):
        stored_paths(environ)
    write(team, trial(1e-3))
    assert stored_paths(environ) == (team, *shipped_paths())
    write(mine, trial(1e-3))
    assert stored_paths(environ) == (mine, team, *shipped_paths())
    assert written_path({**environ, "PLANISH_LOG": ""}) == tmp_path / "planish/tuning.jsonl"


def test_shipped_logs_are_read_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module.resources, "files", lambda package: tmp_path)
    assert shipped_paths() == ()
    for name in ("zen4", "avx2"):
        write(tmp_path / f"shipped/{name}.jsonl", trial(1e-3))
    (tmp_path / "shipped/README.md").write_text("")
    names = [path.name for path in shipped_paths()]
    assert names == ["avx2.jsonl", "zen4.jsonl"]
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    write(user_store(environ), trial(1e-3))
    assert stored_paths(environ) == (user_store(environ), *shipped_paths())


def test_shipped_logs_hold_nothing_foreign() -> None:
    log = open_log(shipped_paths())
    assert log is not None
    assert not any((*file.torn, *file.foreign, *file.orphans) for file in log.files)


def test_open_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(store_module, "shipped_paths", lambda: ())
    assert open_log(True) is None
    path = write(tmp_path / "planish/tuning.jsonl", trial(1e-3))
    log = open_log(True)
    assert log is not None
    assert [file.path for file in log.files] == [path]
    assert open_log(log) is log
    assert open_log(False) is None
    for source in (path, str(path), [path]):
        found = open_log(source)
        assert found is not None
        assert found.records == log.records
