"""A model of hand-written kernels: y = 2 (2 x) + w, n = 2163 + k; fails where k is negative."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planish.artefact.format import KernelInfo, Manifest, TensorInfo
from planish.artefact.sealing import seal
from planish.artefact.writing import write_artefact
from planish.targets.linking import architecture_of, find_toolchain, link_library
from planish.targets.plan import Arg, Call, Group, ModelPlan, TensorSpec
from planish.targets.runtime.cpu_features import required_features

COUNT = 1000
WEIGHTS = np.linspace(-1, 1, COUNT).astype(np.float32)
LANES = {"check": (0, 0), "double": (0, 1)}
KERNELS = Path(__file__).parent / "kernels.c"
HOST = f"{platform.machine()}-linux-gnu"


def toy_plan(name: str = "toy", features: Sequence[str] = (), more_weights: int = 0) -> ModelPlan:
    """The plan; `check` and `double` are a launch group. `more_weights` are bytes of zeros."""
    x, k = Arg("input", 0), Arg("input", 1)
    y, n = Arg("output", 0), Arg("output", 1)
    doubled, weights = Arg("arena", 64), Arg("weights", 128)
    return ModelPlan(
        name=name,
        inputs=(TensorSpec("x", "float32", (10, 100)), TensorSpec("k/é", "int32", ())),
        outputs=(TensorSpec("y:0", "float32", (10, 100)), TensorSpec("n", "int64", ())),
        calls=(
            Call("toy_aligned", (x, k, y, n), "aligned"),
            Call("toy_check", (k,), "check"),
            Call("toy_double", (x, doubled), "double"),
            Call("toy_double_add", (doubled, weights, y), "double_add"),
            Call("toy_count", (k, n), "count"),
        ),
        arena_bytes=64 + 4 * COUNT,
        weights_bytes=128 + 4 * COUNT + 32 + more_weights,
        features=tuple(features),
        groups=(Group((1, 2, 3)),),
    )


def expected(x: np.ndarray, k: int) -> dict[str, np.ndarray]:
    y = 2 * (2 * x) + WEIGHTS.reshape(10, 100)
    return {"y:0": y, "n": np.array(7 * 309 + k, np.int64)}


def sample(seed: int = 0, k: int = 5) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((10, 100)).astype(np.float32)
    return {"x": x, "k/é": np.array(k, np.int32)}


def check(model: Any, seed: int = 0) -> None:
    """Run a loaded toy once, and see that its outputs are right."""
    inputs = sample(seed)
    outputs = model.run(inputs)
    wanted = expected(inputs["x"], 5)
    assert list(outputs) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(outputs[name], array)


def compile_kernels(folder: Path, triple: str = HOST, *defines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "kernels.o"
    compiler = find_toolchain(triple).command
    flags = ["-std=gnu11", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", *defines]
    subprocess.run([*compiler, *flags, "-c", str(KERNELS), "-o", str(target)], check=True)
    return target


def toy_manifest(plan: ModelPlan, architecture: str) -> Manifest:
    def infos(tensors: Sequence[TensorSpec]) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(t.name, t.dtype, t.shape) for t in tensors)

    return Manifest(
        name=plan.name,
        inputs=infos(plan.inputs),
        outputs=infos(plan.outputs),
        kernels=tuple(
            KernelInfo(c.label, (f"/{c.label}/Add",), ("Add",), 9, lane=LANES.get(c.label))
            for c in plan.calls
        ),
        architecture=architecture,
        features={f.name: f.cpuinfo for f in required_features(architecture, plan.features)},
        target={"name": "test"},
        versions={"planish": "0.0"},
        verify={"max_abs_error": 1e-7},
        weights_bytes=plan.weights_bytes,
        arena_bytes=plan.arena_bytes,
    )


def build_toy(
    folder: Path,
    work: Path,
    *,
    triple: str = HOST,
    features: Sequence[str] = (),
    defines: Sequence[str] = (),
    more_weights: int = 0,
    keep_subnormals: bool = False,
    weights: np.ndarray = WEIGHTS,
) -> Path:
    """Compile, link and write the artefact; gives its folder."""
    plan = toy_plan(features=features, more_weights=more_weights)
    plan = replace(plan, keep_subnormals=keep_subnormals)
    objects = [compile_kernels(work, triple, *defines)]
    digest, blocks = seal([(128, weights.data)], plan.weights_bytes)
    plan = replace(plan, weights_digest=digest)
    library, header = link_library(plan, objects, work, triple=triple)
    manifest = toy_manifest(plan, architecture_of(triple))
    write_artefact(folder, manifest, library=library, header=header, weights=blocks)
    return folder
