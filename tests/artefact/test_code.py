"""Loading code: each library from a file that no other ever was, in processes that close files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_model import build_toy

from planish.artefact import code as code_module
from planish.artefact import library as library_module
from planish.ir.errors import ArtefactError

_DAEMON = """
import gc, os, socket, sys
from pathlib import Path
from planish.artefact.loading import load
sys.path.insert(0, sys.argv[3])
from toy_model import sample
def count(model):
    return int(model.run(sample())["n"])
old = load(sys.argv[1])
first = count(old)
os.closerange(3, 256)  # as a daemon does when it begins
new = load(sys.argv[2])
results = [first, count(old), count(new)]
del new
os.closerange(3, 256)
pairs = [socket.socketpair() for _ in range(8)]  # take the lowest free descriptors
del old
gc.collect()
for one, other in pairs:
    one.sendall(b"x")
    assert other.recv(1) == b"x"
assert count(load(sys.argv[2])) == results[2]
print(*results)
"""


@pytest.fixture(scope="module")
def changed_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, compiled to count otherwise."""
    folder = tmp_path_factory.mktemp("changed")
    return build_toy(folder / "artefact", folder / "work", defines=("-DPER_TASK=200",))


def test_a_daemon_that_closed_its_descriptors(toy: Path, changed_toy: Path) -> None:
    """The new model runs its own code, the old one still does, and sockets stay open."""
    tests = str(Path(__file__).parents[1] / "runtime")
    command = [sys.executable, "-c", _DAEMON, str(toy), str(changed_toy), tests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.split() == [str(7 * 309 + 5)] * 2 + [str(7 * 609 + 5)]


def test_nothing_of_a_library_stays_open(toy: Path) -> None:
    before = os.listdir("/proc/self/fd")
    library = library_module.Library("toy", (toy / "libtoy.so").read_bytes())
    assert os.listdir("/proc/self/fd") == before
    assert library.c_kernel_count() == 5


def test_paths_are_used_once(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        paths = {code_module.unique_path(file.fileno()) for _ in range(1000)}
        assert len(paths) == 1000
        assert all(os.path.samestat(os.stat(path), os.fstat(file.fileno())) for path in paths)


@pytest.mark.parametrize("step", ["memfd_create", "CDLL", "RTLD_NOLOAD"])
def test_where_code_cannot_be_loaded_from_memory(
    step: str, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systems that forbid files in memory, or code from them, or take one for another library."""
    real = {"CDLL": code_module.ctypes.CDLL, "dlopen": code_module._ctypes.dlopen}

    def refuse(*arguments: Any) -> Any:
        raise OSError("forbidden")

    def refuse_memory(path: str) -> Any:
        return refuse() if path.startswith("/proc/self/fd") else real["CDLL"](path)

    def know_memory(path: str, mode: int) -> Any:
        known = path.startswith("/proc/self/fd") and mode & os.RTLD_NOLOAD
        return real["dlopen"](None, os.RTLD_NOW) if known else real["dlopen"](path, mode)

    if step == "memfd_create":
        monkeypatch.setattr(code_module.os, "memfd_create", refuse)
    elif step == "CDLL":
        monkeypatch.setattr(code_module.ctypes, "CDLL", refuse_memory)
    else:
        monkeypatch.setattr(code_module._ctypes, "dlopen", know_memory)
    content = (toy / "libtoy.so").read_bytes()
    for folders in ([tmp_path], [tmp_path / "none", tmp_path]):
        monkeypatch.setattr(code_module, "_folders", lambda folders=folders: iter(folders))
        library = library_module.Library("toy", content)
        assert library.c_kernel_count() == 5
        assert os.listdir(tmp_path) == []
    monkeypatch.setattr(code_module, "_folders", lambda: iter([tmp_path / "none"]))
    with pytest.raises(ArtefactError, match=r"load the library of 'toy': .*No such file"):
        library_module.Library("toy", content)


def test_content_that_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="the system does not load the library of 'toy': "):
        code_module.load_code("toy", b"\x7fELF" + bytes(100))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_where_the_usual_places_forbid_code(toy: Path, tmp_path: Path) -> None:
    """A temporary folder on a noexec mount, no files in memory: the next folder is taken."""
    program = (
        "import os, sys, pathlib\n"
        "from planish.artefact import code\n"
        "from planish.artefact.library import Library\n"
        "del os.memfd_create\n"
        "next_one = pathlib.Path(sys.argv[2])\n"
        "folders = code._folders\n"
        "code._folders = lambda: iter([next(folders()), next_one])\n"
        "library = Library('toy', open(sys.argv[1], 'rb').read())\n"
        "print(library.c_kernel_count())\n"
    )
    noexec = tmp_path / "noexec"
    noexec.mkdir()
    (tmp_path / "next").mkdir()
    (tmp_path / "program.py").write_text(program)
    mount = f"mount -t tmpfs -o noexec none {noexec} && TMPDIR={noexec} exec {sys.executable} "
    run = f"{tmp_path}/program.py {toy}/libtoy.so {tmp_path}/next"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount + run], capture_output=True, text=True
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine does not let us mount")
    assert (done.stdout, done.stderr) == ("5\n", "")
