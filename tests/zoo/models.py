"""Finds the model zoo (not part of the project) and its reference tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ZOO = Path(os.environ.get("PLANISH_ZOO") or Path(__file__).parents[3] / "shared" / "zoo")

#: Models whose folder is in the zoo.
STORED = (
    "basic_pitch",
    "dtln_1",
    "dtln_2",
    "magika_v3_3",
    "minilm_l6_int8w",
    "mobilenet_v2",
    "mtcnn_onet",
    "mtcnn_pnet",
    "mtcnn_rnet",
    "ppocr_cls",
    "ppocrv4_det",
    "romanizer_encoder",
    "shufflenet_v2_x1_0",
    "silero_vad_v6_static16k",
    "squeezenet1_1",
)

#: Models that the zoo's make_models.py writes.
MADE = ("resnet50", "densenet121", "shufflenet", "minilm_l6_fp32")


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model file with the inputs and outputs of its reference.npz.

    `floors`: how far onnxruntime is from itself with and without its optimisations, by output.
    """

    path: Path
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    floors: dict[str, float]


def zoo_model(name: str, made: Path) -> ZooModel:
    """The model `name`, first written below `made` if need be; skips without a zoo."""
    if not ZOO.is_dir():
        pytest.skip(f"no model zoo at {ZOO} (set PLANISH_ZOO)")
    folder = ZOO / name
    if name in MADE:
        pytest.importorskip("onnxruntime", reason="make_models.py needs onnxruntime")
        folder = made / name
        if not (folder / "reference.npz").exists():
            script = ZOO / "make_models.py"
            subprocess.run([sys.executable, script, made, name], check=True, capture_output=True)
    tensors = np.load(folder / "reference.npz")
    found: dict[str, dict[str, np.ndarray]] = {"in": {}, "out": {}}
    for key in tensors.files:
        kind, _, tensor = key.partition(":")
        found[kind][tensor.replace("|", "/")] = tensors[key]
    meta = json.loads((folder / "meta.json").read_text())
    floors = meta.get("ort_opt_vs_noopt_maxdiff", {})
    return ZooModel(folder / f"{name}.onnx", found["in"], found["out"], floors)
