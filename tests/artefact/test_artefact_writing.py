"""Writing an artefact: whole or not at all, never over anything else, the same bytes each time."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_model import WEIGHTS, toy_manifest, toy_plan

from planish.artefact import writing
from planish.artefact.format import (
    MANIFEST,
    Manifest,
    TensorInfo,
    digest_of,
    parse_json,
    read_manifest,
)
from planish.artefact.writing import WeightBlock, write_artefact
from planish.ir.errors import ArtefactError

BLOCKS = [(128, WEIGHTS.data)]


def write(folder: Path, toy: Path, **changes: object) -> Manifest:
    manifest = dataclasses.replace(toy_manifest(toy_plan(), "x86_64"), **changes)  # type: ignore[arg-type]
    library, header = toy / "libtoy.so", toy / "toy.h"
    return write_artefact(folder, manifest, library=library, header=header, weights=BLOCKS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_written_is_what_is_read(toy: Path, tmp_path: Path) -> None:
    written = write(tmp_path / "deep" / "er", toy, options={"a": [1, None, 0.1]})
    assert read_manifest(tmp_path / "deep" / "er") == written
    text = parse_json((tmp_path / "deep" / "er" / MANIFEST).read_bytes())
    assert text is not None
    assert text["digest"] == digest_of(text) == written.digest
    assert set(contents(tmp_path / "deep" / "er")) == {*written.files, MANIFEST}
    assert os.listdir(tmp_path / "deep") == ["er"]


def test_same_input_gives_the_same_bytes(toy: Path, tmp_path: Path) -> None:
    write(tmp_path / "a", toy, features={"fma": "fma", "avx2": "avx2"})
    write(tmp_path / "b", toy, features={"fma": "fma", "avx2": "avx2"})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_weights_are_placed_and_padded_with_zeros(toy: Path, tmp_path: Path) -> None:
    manifest = dataclasses.replace(toy_manifest(toy_plan(), "x86_64"), weights_bytes=200_000)
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    blocks: list[WeightBlock] = [(64, b"abc"), (128, b""), (128, matrix.data), (199_999, b"z")]
    write_artefact(
        tmp_path / "a", manifest, library=toy / "libtoy.so", header=toy / "toy.h", weights=blocks
    )
    content = (tmp_path / "a" / "weights.bin").read_bytes()
    assert len(content) == 200_064  # a multiple of 64; the seal is one of the blocks
    assert content[64:67] == b"abc"
    assert content[128:152] == matrix.tobytes()
    assert content[199_999:] == b"z" + bytes(64)
    assert content.count(0) == 200_064 - 4 - sum(byte != 0 for byte in matrix.tobytes())


@pytest.mark.parametrize(
    "blocks", [[(64, b"ab"), (65, b"c")], [(4223, b"ab")], [(-1, b"a")], [(0, b"ab"), (0, b"c")]]
)
def test_weights_that_do_not_fit(toy: Path, tmp_path: Path, blocks: list[WeightBlock]) -> None:
    manifest = toy_manifest(toy_plan(), "x86_64")
    with pytest.raises(ArtefactError, match=r"a weight at bytes .* does not fit"):
        write_artefact(
            tmp_path / "a",
            manifest,
            library=toy / "libtoy.so",
            header=toy / "toy.h",
            weights=blocks,
        )
    assert os.listdir(tmp_path) == []


def test_an_artefact_is_replaced(own_toy: Path, toy: Path) -> None:
    write(own_toy, toy, versions={"planish": "9"})
    assert read_manifest(own_toy).versions == {"planish": "9"}
    (own_toy / "toy.h").unlink()  # a damaged one too
    write(own_toy, toy, versions={"planish": "10"})
    assert read_manifest(own_toy).versions == {"planish": "10"}
    assert os.listdir(own_toy.parent) == [own_toy.name]


def test_an_artefact_is_replaced_without_exchange(
    own_toy: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda first, second: False)
    write(own_toy, toy, versions={"planish": "9"})
    assert read_manifest(own_toy).versions == {"planish": "9"}
    assert os.listdir(own_toy.parent) == [own_toy.name]


def test_an_empty_folder_and_a_link_are_used(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write(tmp_path / "link", toy)
    assert (tmp_path / "link").is_symlink()
    read_manifest(tmp_path / "empty")


def test_nothing_else_is_overwritten(own_toy: Path, toy: Path, tmp_path: Path) -> None:
    (own_toy / "notes.txt").write_text("mine")
    with pytest.raises(ArtefactError, match=r"also holds 'notes.txt', which is not part"):
        write(own_toy, toy)
    assert (own_toy / "notes.txt").read_text() == "mine"
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    (home / MANIFEST).write_text('{"format": "another"}')
    with pytest.raises(ArtefactError, match="exists and is not an artefact; choose another folder"):
        write(home, toy)
    with pytest.raises(ArtefactError, match="is a file; choose another place"):
        write(home / "thesis.tex", toy)
    assert (home / "thesis.tex").read_text() == "mine"


def full_disk() -> Iterator[WeightBlock]:
    yield 0, b"begin"
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_artefact(own_toy: Path, toy: Path) -> None:
    before = contents(own_toy)
    manifest = toy_manifest(toy_plan(), "x86_64")
    with pytest.raises(ArtefactError, match=r"cannot write artefact '.*': No space left on device"):
        write_artefact(
            own_toy,
            manifest,
            library=toy / "libtoy.so",
            header=toy / "toy.h",
            weights=full_disk(),
        )
    assert contents(own_toy) == before
    assert os.listdir(own_toy.parent) == [own_toy.name]


def test_a_real_limit_of_file_size(toy: Path, tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from planish.artefact.format import Manifest\n"
        "from planish.artefact.writing import write_artefact\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "toy = Path(sys.argv[1]); m = Manifest('toy', (), (), (), 'x', weights_bytes=1_000_000)\n"
        "write_artefact(sys.argv[2], m, library=toy / 'libtoy.so', header=toy / 'toy.h')\n"
    )
    command = [sys.executable, "-c", program, str(toy), str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "ArtefactError: cannot write artefact" in done.stderr
    assert "File too large" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [float("nan"), np.float32(1), object()])
def test_what_json_cannot_hold_is_refused(toy: Path, tmp_path: Path, content: object) -> None:
    with pytest.raises(ArtefactError, match="the manifest holds something that JSON cannot"):
        write(tmp_path / "a", toy, verify={"error": content})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../toy"}, "has '../toy' as 'name'"),
        ({"inputs": (TensorInfo("x", "float32", (-1,)),)}, "has [-1] as 'shape'"),
        ({"arena_bytes": -5}, "has -5 as 'arena_bytes'"),
        ({"features": {"a": 1}}, "has {'a': 1} as 'features'"),
        ({"architecture": None}, "has None as 'architecture'"),
    ],
)
def test_what_could_not_be_read_is_not_written(
    toy: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ArtefactError, match=re.escape(message) + r"|cannot write"):
        write(tmp_path / "a", toy, **changes)
    assert os.listdir(tmp_path) == []
