"""Artefacts that somebody has tampered with: one sentence as an error, and no memory touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_artefact_loading import sign
from toy_model import check, sample

from planish.artefact.format import MANIFEST
from planish.artefact.loading import TensorError, load
from planish.ir.errors import ArtefactError

X = {"name": "x", "dtype": "float32", "shape": [10, 100]}
K = {"name": "k/é", "dtype": "int32", "shape": []}
Y = {"name": "y:0", "dtype": "float32", "shape": [10, 100]}
N = {"name": "n", "dtype": "int64", "shape": []}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", [{**X, "shape": [10, 10]}, K]),
        ("inputs", [{**X, "dtype": "float64"}, K]),
        ("inputs", [{**X, "dtype": "int32"}, K]),
        ("inputs", [{**X, "shape": [100, 10]}, K]),
        ("inputs", [X]),
        ("inputs", [X, K, K]),
        ("inputs", [K, X]),
        ("inputs", [{**X, "name": "other"}, K]),
        ("outputs", [{**Y, "shape": [1]}, N]),
        ("outputs", [{**Y, "dtype": "no such type"}, N]),
        ("outputs", [{**Y, "dtype": "object"}, N]),
        ("outputs", [Y]),
        ("outputs", []),
        ("arena_bytes", 64),
        ("kernels", []),
    ],
)
def test_a_manifest_of_another_library(own_toy: Path, field: str, value: Any) -> None:
    sign(own_toy, **{field: value})
    with pytest.raises(ArtefactError, match="and its library differ in ") as caught:
        load(own_toy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inputs", [{**X, "shape": [10**400]}, K]),
        ("inputs", [{**X, "shape": [1] * 65}, K]),
        ("inputs", [{**X, "shape": [2**32, 2**32]}, K]),
        ("inputs", [{**X, "shape": [float(10)]}, K]),
        ("inputs", [{**X, "shape": ["\x1b[31m"]}, K]),
        ("arena_bytes", 10**400),
        ("arena_bytes", -1),
        ("weights_bytes", 10**400),
        ("weights_bytes", True),
        ("name", "\x1b]0;owned\x07"),
        ("name", "../../toy"),
        ("files", {"libtoy.so": {"bytes": 2**62, "sha256": "0" * 64}}),
        ("files", {"../libtoy.so": {"bytes": 1, "sha256": "0" * 64}}),
    ],
)
def test_a_manifest_of_impossible_values(own_toy: Path, field: str, value: Any) -> None:
    sign(own_toy, **{field: value})
    with pytest.raises(ArtefactError, match=r" as '.*'; it was not written by") as caught:
        load(own_toy)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        (b'"arena_bytes": 4064', b'"arena_bytes": NaN'),
        (b'"arena_bytes": 4064', b'"arena_bytes": 1e999'),
        (b'"arena_bytes": 4064', b'"arena_bytes": ' + b"9" * 5000),
        (b'"arena_bytes": 4064', b'"arena_bytes": ' + b"[" * 900 + b"]" * 900),
        (b'"arena_bytes": 4064', b'"arena_bytes": ' + b"[" * 90_000 + b"]" * 90_000),
        (b'"format_version": 3', b'"format_version": "' + b"\\u001b" * 1000 + b'"'),
        (b'"format_version": 3', b'"format_version": ' + b"9" * 400),
        (b'"x"', b'"\xff"'),
        (b'"x"', b'"\x1b[2J"'),
        (b'"x"', b'"\\ud800"'),
        (b'"toy"', b'"toy", "name": "toy"'),
    ],
)
def test_a_manifest_that_is_no_json_of_ours(own_toy: Path, change: tuple[bytes, bytes]) -> None:
    text = (own_toy / MANIFEST).read_bytes()
    assert change[0] in text
    (own_toy / MANIFEST).write_bytes(text.replace(*change))
    with pytest.raises(ArtefactError, match=r"is damaged|was changed|artefact format") as caught:
        load(own_toy)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("limits", [1, [], {"x": [0]}, {"y": [0, 1]}, {"x": [0, 10**30]}])
def test_limits_that_are_none(own_toy: Path, limits: Any) -> None:
    sign(own_toy, options={"input_limits": limits})
    with pytest.raises(ArtefactError, match="has no ranges of its inputs as 'input_limits'"):
        load(own_toy)


def test_a_name_that_is_no_text(own_toy: Path) -> None:
    """Half of a surrogate pair, under a digest that is right."""
    sign(own_toy, inputs=[{**X, "name": "\ud800"}, K])
    with pytest.raises(ArtefactError, match=r"differ in inputs: \('\\ud800' float32"):
        load(own_toy)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link to itself"])
@pytest.mark.parametrize("name", [MANIFEST, "libtoy.so", "weights.bin"])
def test_files_that_are_none(own_toy: Path, name: str, kind: str) -> None:
    """Nobody waits for the other end of a pipe, nor reads a device without end."""
    path = own_toy / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    reason = "pipe or device, expected a file" if kind != "link to itself" else "cannot read"
    with pytest.raises(ArtefactError, match=reason):  # the test's own limit of time would end it
        load(own_toy)


def test_a_pipe_in_place_of_weights_in_c(own_toy: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = (
        "import ctypes, sys\n"
        "dll, model = ctypes.CDLL(sys.argv[1]), ctypes.c_void_p()\n"
        "dll.toy_error.restype = ctypes.c_char_p\n"
        "print(dll.toy_open(sys.argv[2].encode(), ctypes.byref(model)), dll.toy_error().decode())\n"
    )
    command = [sys.executable, "-c", program, str(own_toy / "libtoy.so"), str(tmp_path / "pipe")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    expected = f"1002 cannot read the weights '{tmp_path}/pipe': it is not a file\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_huge_files(own_toy: Path) -> None:
    """A manifest says that the header has as many bytes as a file full of holes."""
    os.truncate(own_toy / "toy.h", 1 << 40)
    content = json.loads((own_toy / MANIFEST).read_text())
    content["files"]["toy.h"]["bytes"] = 1 << 40
    sign(own_toy, files=content["files"])
    with pytest.raises(ArtefactError, match="has 1099511627776 as 'bytes'"):
        load(own_toy)
    os.truncate(own_toy / MANIFEST, 1 << 40)
    with pytest.raises(ArtefactError, match=r"has 1099511627776 bytes, expected at most"):
        load(own_toy)


def test_outputs_that_overlap(toy: Path) -> None:
    """Of each other, of inputs; wholly, in part, by one element; aligned or not."""
    model = load(toy)
    inputs = sample()
    memory = np.zeros(4096, np.float32)
    for begin, end in ((0, 0), (0, 999), (999, 0), (500, 1), (3, 3)):
        x = memory[begin : begin + 1000].reshape(10, 100)
        y = memory[end : end + 1000].reshape(10, 100)
        with pytest.raises(TensorError, match="memory of output 'y:0' overlaps that of input 'x'"):
            model.run({**inputs, "x": x}, out={"y:0": y})
    n = memory[2:4].view(np.int64).reshape(())
    y = memory[:1000].reshape(10, 100)
    with pytest.raises(TensorError, match="memory of output 'n' overlaps that of output 'y:0'"):
        model.run(inputs, out={"y:0": y, "n": n})
    assert not memory.any()
    x, y = memory[:1000].reshape(10, 100), memory[1000:2000].reshape(10, 100)
    x[...] = inputs["x"]
    model.run({**inputs, "x": x}, out={"y:0": y})
    np.testing.assert_array_equal(y, model.run(inputs)["y:0"])
    # A copy is made of an input that is not contiguous: nothing is shared then.
    strided = np.asfortranarray(inputs["x"])
    result = model.run({**inputs, "x": strided}, out={"y:0": strided.T.reshape(10, 100)})
    np.testing.assert_array_equal(result["y:0"], model.run(inputs)["y:0"])
    check(model)
