"""planish-runtime: the loader as a distribution of its own, with numpy alone, beside planish."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Loads the artefact and runs it; LIBRARY is the package's name.
PROGRAM = """
import sys
before = {{name.split(".")[0] for name in sys.modules}}
import LIBRARY
import numpy as np

def check(model):
    x = np.arange(1000, dtype=np.float32).reshape(10, 100) / 7
    results = model({{"x": x, "k/é": np.array(5, np.int32)}})
    assert [result.dtype for result in results] == [np.float32, np.int64]
    assert np.isfinite(results[0]).all() and results[0].any() and results[1] > 0

with LIBRARY.load({toy!r}, check=True) as model:
    check(model)
    check(model.clone())
    try:
        model(np.zeros(3))
        raise AssertionError("no error")
    except LIBRARY.TensorError as error:
        assert isinstance(error, (ValueError, LIBRARY.PlanishError))
    model.save({saved!r})
allowed = {{*sys.stdlib_module_names, *before, "numpy", "LIBRARY"}}
print(sorted({{name.split(".")[0] for name in sys.modules}} - allowed))
"""


def program(library: str, toy: Path, tmp_path: Path) -> str:
    """What prints the modules beyond numpy and the standard library that it imported: none."""
    text = PROGRAM.format(toy=str(toy), saved=str(tmp_path / "saved"))
    return text.replace("LIBRARY", library)


def runtime_setup() -> object:
    spec = importlib.util.spec_from_file_location("runtime_setup", ROOT / "runtime/setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_renamed_loader_runs_without_planish(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", "the script that builds it imports setuptools")
    package = tmp_path / "planish_runtime"
    runtime_setup().write_package(package)  # type: ignore[attr-defined]
    init = package / "__init__.py"
    init.write_text(init.read_text().replace('version("planish-runtime")', '"0"'))
    text = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    text += "import importlib.abc\n"
    text += "class Refuse(importlib.abc.MetaPathFinder):\n"
    text += "    def find_spec(self, name, path=None, target=None):\n"
    text += "        if name.split('.')[0] == 'planish': raise ImportError(name)\n"
    text += "sys.meta_path.insert(0, Refuse())\n"
    done = subprocess.run(
        [sys.executable, "-c", text + program("planish_runtime", toy, tmp_path)],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.slow
def test_both_wheels_alone_and_together(toy: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", "building wheels needs setuptools 77")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "compiler", "ir", "passes", "autotune"):
        (source / name).symlink_to(ROOT / name)
    (source / "targets").symlink_to(ROOT / "targets")
    shutil.copytree(ROOT / "runtime", source / "runtime")
    dist = tmp_path / "dist"
    for project in (source, source / "runtime"):
        wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
        subprocess.run([*wheel, "-w", dist, project], check=True, capture_output=True)
    (runtime,), (whole,) = dist.glob("planish_runtime-*.whl"), dist.glob("planish-*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def pip(*arguments: object) -> None:
        command = [home / "bin/python", "-m", "pip", *map(str, arguments)]
        subprocess.run(command, check=True, env=environ, capture_output=True)

    def check(library: str) -> None:
        done = subprocess.run(
            [home / "bin/python", "-c", program(library, toy, tmp_path)],
            capture_output=True, text=True, env=environ, cwd=tmp_path,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("[]\n", "")

    pip("install", runtime)
    names = {path.name.split("-")[0] for path in home.glob("lib/python*/site-packages/*.dist-info")}
    assert names <= {"planish_runtime", "numpy", "pip", "setuptools"}
    check("planish_runtime")
    pip("install", "--no-deps", whole)
    check("planish_runtime")
    check("planish")
    pip("uninstall", "-y", "planish-runtime")
    check("planish")
    pip("install", runtime)
    pip("uninstall", "-y", "planish")
    check("planish_runtime")
