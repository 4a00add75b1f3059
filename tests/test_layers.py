"""The house rules of docs/architecture.md: who may import whom, and what a wheel holds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]

#: Layer → the layers that it may import besides itself.
ALLOWED = {
    "compiler": {"targets", "autotune", "passes", "ir"},
    "targets": {"passes", "ir"},
    "autotune": {"passes", "ir"},
    "passes": {"ir"},
    "ir": set(),
}
LAYER_OF = {"planish." + name: name for name in ALLOWED if name != "compiler"}
TVM = {"tvm", "tvm_ffi"}

#: What loading an artefact may import, and nothing beyond (the standard library aside).
LOADER = ("compiler/__init__.py", "compiler/artefact", "ir/__init__.py", "ir/errors.py")


def sources(*places: str) -> list[Path]:
    """The Python files of folders or files, relative to the root."""
    found: list[Path] = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def imports(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Full names of the modules that a file imports; `at_load`: those that importing it needs."""
    queue: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    for node in queue:
        if at_load and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_load and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        queue += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str | None:
    """The layer that holds a module of ours."""
    if module.split(".")[0] != "planish":
        return None
    return LAYER_OF.get(".".join(module.split(".")[:2]), "compiler")


@pytest.mark.parametrize("layer", ALLOWED)
def test_layers_import_downwards_only(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(layer)
        for module in imports(path)
        if layer_of(module) not in {None, layer, *ALLOWED[layer]}
    ]
    assert not wrong


def test_tvm_is_imported_in_targets_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for layer in ALLOWED
        if layer != "targets"
        for path in sources(layer)
        for module in imports(path)
        if module.split(".")[0] in TVM
    ]
    assert not wrong


def test_loader_imports_numpy_and_the_standard_library_only() -> None:
    permitted = {"numpy", *sys.stdlib_module_names}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sources(*LOADER)
        for module in imports(path, at_load=True)
        if module.split(".")[0] not in permitted
        and not module.startswith(("planish.artefact.", "planish.ir.errors."))
    ]
    assert not wrong


def test_loading_does_not_import_the_compiler() -> None:
    program = (
        "import sys, planish; planish.load; planish.ArtefactError;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    present = set(done.stdout.split())
    assert "numpy" in present
    foreign = {"tvm", "tvm_ffi", "onnx", "xgboost", "networkx", "llvmlite", "typer", "rich"}
    assert not foreign & {*present}
    assert "ml_dtypes" not in present


def test_every_package_is_listed_in_pyproject() -> None:
    listed = {name: ROOT / folder_of(name) for name in PACKAGES}
    present = {path.parent for layer in ALLOWED for path in sources(layer)}
    assert set(listed.values()) == present
    assert all((folder / "__init__.py").exists() for folder in listed.values())


def folder_of(package: str) -> str:
    """The folder of a package by the longest entry of package-dir that fits."""
    parts = package.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in FOLDERS:
            return "/".join([FOLDERS[prefix], *parts[length:]])
    raise AssertionError(f"{package} is in no folder of package-dir")


def test_module_names_say_what_is_inside() -> None:
    banned = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    places = [*ALLOWED, "tests", "benchmarks", "examples"]
    assert not [path for path in sources(*places) if path.stem in banned]


def build_wheel(folder: Path) -> Path:
    """The wheel of this tree, built with the setuptools that is installed."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    # setuptools builds in the source tree: not in ours, where other tests read at the same time.
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *ALLOWED):
        (copy / name).symlink_to(ROOT / name)
    subprocess.run([*command, "-w", str(folder), str(copy)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_every_module_and_the_c_runtime(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", "77", "building the wheel needs setuptools 77")
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        held = set(wheel.namelist())
    for package in PACKAGES:
        folder, place = ROOT / folder_of(package), package.replace(".", "/")
        assert {f"{place}/{path.name}" for path in folder.glob("*.py")} <= held
    runtime = {f"planish/targets/runtime/{path.name}" for path in sources_of_runtime()}
    assert runtime <= held
    assert "planish/py.typed" in held
    assert any(name.endswith("licenses/LICENSE") for name in held)


def sources_of_runtime() -> list[Path]:
    """The C files that an artefact is linked from."""
    return [*ROOT.glob("targets/runtime/*.c"), *ROOT.glob("targets/runtime/*.h")]


@pytest.mark.slow
def test_wheel_in_a_clean_environment_imports_everything(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin/python"
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True, env=environ)
    modules = [
        ".".join([package, path.stem]).removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted((ROOT / folder_of(package)).glob("*.py"))
    ]
    program = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    subprocess.run([python, "-c", program], check=True, cwd=tmp_path, env=environ)
