"""An artefact that is replaced while others load it: code and weights are of one compilation."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_artefact_loading import sign
from toy_model import WEIGHTS, build_toy, check, expected, sample

from planish.artefact.format import MANIFEST, read_manifest
from planish.artefact.loading import load
from planish.artefact.writing import copy_artefact
from planish.ir.errors import ArtefactError

_LOADER = """
import sys
sys.path.insert(0, sys.argv[2])
from toy_model import WEIGHTS, expected, sample
from planish.artefact.loading import load
inputs = sample()
wanted = expected(inputs["x"], 5)
print("ready", flush=True)
seen = set()
for _ in range(400):
    outputs = load(sys.argv[1], threads=1).run(inputs)
    other = int(outputs["n"]) != wanted["n"]
    weights = WEIGHTS.reshape(10, 100) * (2 if other else 1)
    assert (outputs["y:0"] == 2 * (2 * inputs["x"]) + weights).all(), other
    seen.add(other)
assert seen == {False, True}
"""


@pytest.fixture(scope="module")
def other_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with other code (it counts otherwise) and other weights (twice as large)."""
    folder = tmp_path_factory.mktemp("other")
    options = {"defines": ("-DPER_TASK=200",), "weights": 2 * WEIGHTS}
    return build_toy(folder / "artefact", folder / "work", **options)  # type: ignore[arg-type]


def test_replaced_while_it_is_loaded(toy: Path, other_toy: Path, tmp_path: Path) -> None:
    place = tmp_path / "artefact"
    copy_artefact(toy, place, read_manifest(toy))
    tests = str(Path(__file__).parents[1] / "runtime")
    command = [sys.executable, "-c", _LOADER, str(place), tests]
    loaders = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for loader in loaders:
        assert loader.stdout is not None
        assert loader.stdout.readline() == "ready\n"
    while any(loader.poll() is None for loader in loaders):
        for source in (other_toy, toy):
            copy_artefact(source, place, read_manifest(source))
    for loader in loaders:
        assert loader.communicate() == ("", "")
        assert loader.returncode == 0


@pytest.mark.parametrize("name", ["libtoy.so", "weights.bin", MANIFEST])
def test_files_of_two_compilations(
    name: str, own_toy: Path, other_toy: Path, tmp_path: Path
) -> None:
    """In Python and in C, whichever file is the other one, even if the manifest is mended."""
    shutil.copy(other_toy / name, own_toy / name)
    with pytest.raises(ArtefactError, match=r"was changed after|copy the artefact again"):
        load(own_toy, check=True)
    sign(own_toy, files=_files(own_toy))
    if name == MANIFEST:
        check(load(own_toy))
        return
    with pytest.raises(ArtefactError, match="artefact again, as a whole") as caught:
        load(own_toy)
    assert "not those that the library of model 'toy' was compiled with" in str(caught.value)
    dll, model = ctypes.CDLL(str(own_toy / "libtoy.so")), ctypes.c_void_p()
    dll.toy_error.restype = ctypes.c_char_p
    weights = bytes(own_toy / "weights.bin")
    assert dll.toy_open(weights, ctypes.byref(model)) == 1002
    assert b"are not those that the library" in dll.toy_error()
    assert model.value is None


def _files(folder: Path) -> dict[str, object]:
    import hashlib

    return {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in ("libtoy.so", "toy.h", "weights.bin")
    }


def test_a_model_is_not_saved_from_another_folder(
    own_toy: Path, other_toy: Path, tmp_path: Path
) -> None:
    """The model's folder was replaced since it was loaded."""
    model = load(own_toy)
    shutil.rmtree(own_toy)
    shutil.copytree(other_toy, own_toy)
    with pytest.raises(ArtefactError, match="is not the file that was written with its manifest"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_copied_weights(own_toy: Path) -> None:
    """Nothing that is done to the file later matters: not even that it is cut short."""
    mapped, copied = load(own_toy), load(own_toy, copy_weights=True)
    inputs = sample()
    np.testing.assert_array_equal(copied.run(inputs)["y:0"], expected(inputs["x"], 5)["y:0"])
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(own_toy / "weights.bin")) == 1
    mapped.close()
    del mapped
    os.truncate(own_toy / "weights.bin", 0)
    check(copied)
    check(copied.clone())
    with pytest.raises(ArtefactError, match="has 0 bytes, expected 4224"):
        load(own_toy, copy_weights=True)
