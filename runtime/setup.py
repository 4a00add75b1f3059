"""Builds planish-runtime: the loader's modules, renamed so that planish can be installed beside."""

import re
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
ROOT = HERE.parent

#: Place in the package → its source in this repository.
SOURCES = {
    "__init__.py": HERE / "planish_runtime/__init__.py",
    "ir/__init__.py": ROOT / "ir/__init__.py",
    **{f"ir/{name}.py": ROOT / f"ir/{name}.py" for name in ("errors", "file_locks", "scratch")},
    **{
        f"artefact/{path.name}": path
        for path in sorted((ROOT / "compiler/artefact").glob("*.py"))
    },
}  # fmt: skip


def write_package(folder: Path) -> None:
    """Writes the modules into `folder`, importing each other by the name of this package."""
    for place, source in SOURCES.items():
        text = source.read_text(encoding="utf-8")
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        renamed = re.sub(r"^(\s*(?:from|import) )planish\b", r"\1planish_runtime", text, flags=re.M)
        path.write_text(renamed, encoding="utf-8")


class Build(build_py):
    """Adds the renamed modules to the package."""

    def run(self) -> None:
        super().run()
        write_package(Path(self.build_lib, "planish_runtime"))


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    setup(version=project["version"], cmdclass={"build_py": Build})
