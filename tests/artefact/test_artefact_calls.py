"""A model is called like a function, copied, pickled and saved."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_model import check, expected, sample

from planish.artefact.format import MANIFEST, render
from planish.artefact.loading import load, take_over
from planish.artefact.origin import Files
from planish.ir.errors import ArtefactError, TensorError


def test_inputs_by_position_by_name_and_in_a_mapping(toy: Path) -> None:
    model = load(toy)
    given = sample()
    x, k = given["x"], given["k/é"]
    wanted = expected(x, int(k))
    for results in (model(x, k), model(x, **{"k/é": k}), model(given), model(**given)):
        assert isinstance(results, tuple)
        np.testing.assert_array_equal(results[0], wanted["y:0"])
        assert results[1] == wanted["n"]


def test_outputs_are_chosen(toy: Path) -> None:
    model = load(toy)
    given = sample()
    wanted = expected(given["x"], int(given["k/é"]))
    assert model(given, outputs="n") == wanted["n"]
    backwards = model(given, outputs=["n", "y:0"])
    assert backwards[0] == wanted["n"]
    np.testing.assert_array_equal(backwards[1], wanted["y:0"])
    assert model(given, outputs=["n"]) == (wanted["n"],)
    assert list(model.run(given, outputs=["n"])) == ["n"]
    assert model(given, outputs=[]) == ()
    place = np.zeros((), np.int64)
    assert model(given, outputs="n", out={"n": place}) is place
    assert place == wanted["n"]
    np.testing.assert_array_equal(model(given, threads=1)[0], wanted["y:0"])


@pytest.mark.parametrize(
    ("inputs", "named", "message"),
    [
        ((1, 2, 3), {}, "model 'toy' takes 2 inputs (x, k/é), got 3"),
        ((sample()["x"],), {"x": 0}, "was given input 'x' twice"),
        (({"x": 0},), {"x": 0}, "was given input 'x' twice"),
        ((sample()["x"],), {}, "lacks ['k/é']"),
        ((), {"X": 0}, "lacks ['x', 'k/é'] and has ['X']"),
        ((sample(),), {"outputs": "N"}, "model 'toy' has no output 'N'; it has ['y:0', 'n']"),
        ((sample(),), {"outputs": ["n", "N"]}, "has no output 'N'"),
        (([1.0], sample()["k/é"]), {}, "input 'x' is a list"),
    ],
)
def test_wrong_calls(toy: Path, inputs: Any, named: dict[str, Any], message: str) -> None:
    with pytest.raises(TensorError, match=re.escape(message)):
        load(toy)(*inputs, **named)
    with pytest.raises(TensorError, match=re.escape("expected a list of names: outputs=['n']")):
        load(toy).run(sample(), outputs="n")


def test_copies_share_weights_and_run_for_themselves(toy: Path) -> None:
    model = load(toy, threads=2)
    for twin in (copy.copy(model), copy.deepcopy(model), copy.deepcopy([model])[0]):
        assert twin is not model
        assert twin.threads == 2
        check(twin)
        twin.close()
    check(model)


def test_a_pickle_holds_the_path_and_the_digest(own_toy: Path) -> None:
    model = load(own_toy, threads=2)
    pickled = pickle.dumps(model)
    assert len(pickled) < 1000
    twin = pickle.loads(pickled)
    assert twin.threads == 2
    check(twin)
    content = json.loads((own_toy / MANIFEST).read_text())
    content.pop("digest")
    (own_toy / MANIFEST).write_bytes(render({**content, "verify": {"ok": True}}))
    with pytest.raises(ArtefactError, match="is not the one that the pickled model was loaded"):
        pickle.loads(pickled)
    shutil.rmtree(own_toy)
    with pytest.raises(ArtefactError, match="there is no artefact"):
        pickle.loads(pickled)


def test_an_artefact_in_memory_needs_no_folder(own_toy: Path, tmp_path: Path) -> None:
    model = take_over(own_toy, threads=1)
    shutil.rmtree(own_toy)
    check(model)
    program = (
        "import pickle, sys; model = pickle.load(sys.stdin.buffer);"
        f"sys.path.insert(0, {str(Path(__file__).parents[1] / 'runtime')!r});"
        "from toy_model import check; check(model); check(pickle.loads(pickle.dumps(model)))"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(model),
        capture_output=True,
        env={"TMPDIR": str(scratch), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not list(scratch.iterdir())
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", check=True)
    assert again.manifest.digest == model.manifest.digest
    again.save(tmp_path / "saved again")
    check(load(tmp_path / "saved again", check=True))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("text")
    with pytest.raises(ArtefactError, match="is not an artefact"):
        model.save(tmp_path / "thesis")


def test_a_mapping_keeps_no_descriptor(toy: Path) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    files = Files(toy)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with tempfile.TemporaryDirectory() as folder:
        files.write(Path(folder))
        check(load(folder, check=True))
