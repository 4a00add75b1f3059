"""Real models, compiled for this machine, give their reference outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

import planish
from planish.tolerances import compare
from tests.zoo.models import MADE, STORED, ZooModel, zoo_model

pytestmark = pytest.mark.zoo


def shapes(model: ZooModel) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in model.inputs.items()}


#: Those that take the longest; others of their kinds are compiled all the same.
LONG = (
    "densenet121",
    "mtcnn_pnet",
    "mtcnn_rnet",
    "ppocrv4_det",
    "resnet50",
    "shufflenet",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
)
MODELS = [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
    for name in (*STORED, *MADE)
]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_agree_with_the_reference(name: str, made: Path, tmp_path: Path) -> None:
    model = zoo_model(name, made)
    folder = tmp_path / name
    planish.compile(model.path, folder, shapes=shapes(model), name=name, verify=False)
    with planish.load(folder, threads=2) as loaded:
        actual = loaded.run(model.inputs)
    for output, expected in model.outputs.items():
        difference = compare(actual[output], expected, floor=model.floors.get(output, 0.0))
        assert difference.ok, f"{output}: {difference.reason}"


def test_artefact_is_hardly_larger_than_its_weights(made: Path, tmp_path: Path) -> None:
    model = zoo_model("mobilenet_v2", made)
    planish.compile(model.path, tmp_path / "a", shapes=shapes(model), verify=False)
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    assert size <= model.path.stat().st_size + 1_000_000


def test_same_model_gives_same_bytes(made: Path, tmp_path: Path) -> None:
    model = zoo_model("mtcnn_onet", made)
    for folder in ("a", "b"):
        planish.compile(model.path, tmp_path / folder, shapes=shapes(model), verify=False)
    first, second = (
        {file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()}
        for folder in ("a", "b")
    )
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
