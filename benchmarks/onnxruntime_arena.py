"""Bytes of onnxruntime's arena for one inference: `python onnxruntime_arena.py MODEL INPUTS.npz`.

A process of its own, as the arena's settings and its log belong to the process. The log goes to
stderr, which `arena_bytes` reads.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

_MARK = "the run that counts"
_EXTENSION = re.compile(r"Extended allocation by (\d+) bytes")


def arena_bytes(model: Path, inputs: Path) -> int:
    """Bytes that the arena takes for activations and scratch memory once it has settled.

    Weights, inputs and outputs are left out, as they are of planish's arena. RuntimeError with
    onnxruntime's own words where it does not run the model.
    """
    command = [sys.executable, __file__, str(model), str(inputs)]
    done = subprocess.run(command, capture_output=True, text=True)
    _, mark, counted = done.stderr.partition(_MARK)
    if done.returncode != 0 or not mark:
        told = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"onnxruntime does not run {model}: {told[0]}")
    return sum(map(int, _EXTENSION.findall(counted)))


def main(model: str, inputs: str) -> None:
    """Runs the model twice; the log of the second run tells what it took.

    The arena grows by what is asked for (its default is powers of two), and is emptied after the
    first run, in which onnxruntime learns the sizes that its memory pattern then takes at once.
    """
    import onnxruntime as ort

    ort.set_default_logger_severity(0)
    cpu = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    settings = {"arena_extend_strategy": 1, "initial_chunk_size_bytes": 256}
    ort.create_and_register_allocator(cpu, ort.OrtArenaCfg(settings))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(inputs) as arrays:
        given = dict(arrays)
    first = session.run(None, given)  # tells the outputs' types
    binding = session.io_binding()
    for name, array in given.items():
        binding.bind_cpu_input(name, array)
    for output, array in zip(session.get_outputs(), first):
        binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(array))
    shrinking = ort.RunOptions()
    shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run_with_iobinding(binding, shrinking)
    print(_MARK, file=sys.stderr, flush=True)
    session.run_with_iobinding(binding, shrinking)


if __name__ == "__main__":
    main(*sys.argv[1:])
