"""A run needs no more of its caller's stack than the header says: 64 KiB."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from toy_model import HOST

import planish
from planish.targets.linking import find_toolchain

SOURCE = Path(__file__).parent / "stack_test.c"
FLOAT, HALF, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64


def hungry_model() -> ModelProto:
    """Kernels that keep large buffers: attention, sorting, sums in half precision, a recurrence,
    a convolution by Winograd's algorithm."""
    rng = np.random.default_rng(0)
    weights = {
        "k": np.array([5000]),
        "w": rng.standard_normal((1, 512, 64)).astype(np.float32),
        "r": rng.standard_normal((1, 512, 128)).astype(np.float32),
        "c": rng.standard_normal((64, 64, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["attended"]),
        helper.make_node("TopK", ["x", "k"], ["sorted", "places"]),
        helper.make_node("ScatterND", ["d", "i", "u"], ["summed"], reduction="add"),
        helper.make_node("LSTM", ["s", "w", "r"], ["states"], hidden_size=128),
        helper.make_node("Conv", ["image", "c"], ["filtered"], pads=[1, 1, 1, 1]),
    ]
    inputs = {
        "q": (FLOAT, [2, 384, 64]), "kt": (FLOAT, [2, 64, 384]), "v": (FLOAT, [2, 384, 64]),
        "x": (FLOAT, [2, 5000]), "d": (HALF, [300, 100]), "i": (INT, [50, 1]),
        "u": (HALF, [50, 100]), "s": (FLOAT, [4, 1, 64]), "image": (FLOAT, [1, 64, 28, 28]),
    }  # fmt: skip
    outputs = {
        "attended": (FLOAT, [2, 384, 64]), "sorted": (FLOAT, [2, 5000]), "places": (INT, [2, 5000]),
        "summed": (HALF, [300, 100]), "states": (FLOAT, [4, 1, 1, 128]),
        "filtered": (FLOAT, [1, 64, 28, 28]),
    }  # fmt: skip
    sides = [
        [helper.make_tensor_value_info(name, *kind) for name, kind in side.items()]
        for side in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "hungry", *sides, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_thread_with_a_small_stack(tmp_path: Path) -> None:
    folder, program = tmp_path / "artefact", tmp_path / "program"
    planish.compile(hungry_model(), folder, name="hungry", threads=2, verify=False, log=False)
    command = [*find_toolchain(HOST).command, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]
    command += ["-DMODEL=hungry", "-include", f"{folder}/hungry.h", str(SOURCE), "-o", str(program)]
    command += [f"{folder}/libhungry.so", f"-Wl,-rpath,{folder}", "-lpthread"]
    subprocess.run(command, check=True)
    done = subprocess.run([program, folder / "weights.bin"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "more than 64 KiB of its caller's stack" in (folder / "hungry.h").read_text()
