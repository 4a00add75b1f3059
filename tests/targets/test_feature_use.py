"""Artefacts ask for the CPU features that their code uses; the system's assembler is the judge."""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import planish
from planish.artefact.format import read_manifest
from planish.custom import PASSES, assemble
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.logged_schedules import run_logged_pipeline
from planish.targets.codegen import build_assembly, build_object
from planish.targets.elf import needed_glibc
from planish.targets.emit import BATCH
from planish.targets.feature_use import element_families
from planish.targets.glibc import FLOOR
from planish.targets.hardware import X86_FEATURES, find_target
from planish.targets.lowering import LoweredKernel, lower_kernel

X86 = dataclasses.replace(find_target("x86-64-v4"), features=tuple(sorted(X86_FEATURES)))
ARM = find_target("neoverse-v1")
NARROW = {
    "x86_64": {"f16c", "avx512fp16", "avx512bf16", "avxvnni", "avx512vnni", "avx512vbmi"},
    "aarch64": {"fullfp16", "bf16", "dotprod", "i8mm"},
}
#: LLVM's name → GNU as's, where it differs.
GNU = {
    "avx512fp16": "avx512_fp16",
    "avx512bf16": "avx512_bf16",
    "avxvnni": "avx_vnni",
    "avx512vnni": "avx512_vnni",
    "avx512vbmi": "avx512_vbmi",
    "neon": "simd",
    "fullfp16": "fp16",
}
FLOATS = ("Exp", "Tanh", "Sigmoid", "Sqrt", "Softmax", "Relu")


def model(kind: type[np.generic], op: str) -> onnx.ModelProto:
    """A product with weights, and an op: MatMulInteger for int8 and uint8, else of the type."""
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    draw = np.random.default_rng(1)
    weights = draw.uniform(0, 1, (64, 48)).astype(kind)
    if np.dtype(kind).kind in "iu":
        nodes, out = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], onnx.TensorProto.INT32
        weights = draw.integers(0, 100, (64, 48)).astype(kind)
    else:
        nodes, out = [helper.make_node("MatMul", ["x", "w"], ["p"])], dtype
        nodes += [helper.make_node(op, ["p"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("x", dtype, (32, 64))],
        [helper.make_tensor_value_info("y", out, (32, 48))],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def lowered(source: onnx.ModelProto, target: Target) -> dict[str, LoweredKernel]:
    graph, _ = run_logged_pipeline(import_model(source), target, assemble((), PASSES), None, None)
    kernels = [node for node in graph.nodes if node.op == "kernel"]
    assert len(kernels) <= BATCH
    return {f"k{number}": lower_kernel(kernel) for number, kernel in enumerate(kernels)}


def without_conversions(assembly: str) -> str:
    """Without the functions that TVM puts beside every kernel, used or not."""
    return re.sub(r"^__\w+hf\w+:[\s\S]*?^\.Lfunc_end\d+:", "", assembly, flags=re.MULTILINE)


def assembles(assembly: str, target: Target, features: set[str], folder: Path) -> bool:
    """Whether the assembler takes the code for a CPU with these features and no others."""
    names = [GNU.get(name, name) for name in sorted(features)]
    if target.arch == "x86_64":
        tool, base = "as", "generic64"
        names = [name for name in names if name not in ("sse3",)] + ["sse3"]
    else:
        tool, base = "aarch64-linux-gnu-as", "armv8-a"
    source = folder / "kernel.s"
    lines = re.findall(r"^(?:[.\w]+:|\s+[a-z{].*)$", assembly, re.MULTILINE)  # no directives
    source.write_text("\n".join(lines) + "\n")
    command = [tool, f"-march={'+'.join([base, *names])}", str(source), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not re.search(r"march|unknown arch", done.stderr), done.stderr[:300]
    return done.returncode == 0


@pytest.mark.parametrize("target", [X86, ARM], ids=["x86-64", "aarch64"])
def test_features_are_those_that_the_assembler_wants(target: Target, tmp_path: Path) -> None:
    tool = "as" if target.arch == "x86_64" else "aarch64-linux-gnu-as"
    if shutil.which(tool) is None or (tool == "as" and shutil.which("gcc") is None):
        pytest.skip(f"{tool} is not installed")
    draw = random.Random(target.arch)
    narrow = NARROW[target.arch]
    wide = set(target.features) - narrow
    found = {}
    for kind in (np.float32, np.float16, np.int8, np.uint8):
        kernels = lowered(model(kind, draw.choice(FLOATS)), target)
        features = set(build_object(kernels, target).features)
        assembly = without_conversions(build_assembly(kernels, target))
        assert features - narrow == wide
        assert assembles(assembly, target, features, tmp_path), (kind, features)
        for name in features & narrow - {"avx512fp16"}:
            # Vectors of 512 bits convert float16 without F16C.
            without = assembles(assembly, target, features - {name}, tmp_path)
            assert not without or name == "f16c", (kind, name)
        found[kind] = features & narrow
    assert found[np.float32] == set()
    assert bool(found[np.float16]) == (target.arch == "x86_64"), "NEON itself converts float16"
    assert not found[np.int8] & {"avx512fp16", "fullfp16", "f16c"}


def test_a_model_asks_for_what_its_kernels_use(tmp_path: Path) -> None:
    """Also for another CPU, and with the oldest glibc, as the manifests say."""
    asked: dict[tuple[str, str], Mapping[str, str]] = {}
    for kind in (np.float32, np.float16):
        for target in (X86, ARM):
            if target.arch == "aarch64" and shutil.which("aarch64-linux-gnu-gcc") is None:
                continue
            folder = tmp_path / f"{kind.__name__}-{target.arch}"
            source = model(kind, "Exp")
            planish.compile(source, folder, target=target, verify=False, log=False)
            manifest = read_manifest(folder)
            asked[kind.__name__, target.arch] = manifest.features
            assert manifest.glibc == needed_glibc((folder / manifest.library).read_bytes())
            assert tuple(map(int, manifest.glibc.split("."))) <= FLOOR
    for (kind_name, arch), features in asked.items():
        narrow = set(features) & NARROW[arch]
        assert bool(narrow) == (kind_name == "float16" and arch == "x86_64"), (kind_name, arch)


def test_families_are_those_of_every_narrow_type() -> None:
    """A type that only appears inside a kernel counts as those of its inputs do."""
    for inner, family in (("FLOAT16", "half"), ("INT8", "byte"), ("UINT16", "byte")):
        nodes = [
            helper.make_node("Cast", ["x"], ["c"], to=getattr(onnx.TensorProto, inner)),
            helper.make_node("Cast", ["c"], ["y"], to=onnx.TensorProto.FLOAT),
        ]
        x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, (4, 40)) for n in "xy")
        source = helper.make_model(
            helper.make_graph(nodes, "inner", [x], [y]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        kernels = lowered(source, X86).values()
        assert {f for kernel in kernels for f in element_families(kernel.func)} == {family}
