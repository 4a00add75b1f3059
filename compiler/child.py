"""Runs an artefact in a process of its own: code under suspicion may crash.

`python -m planish.child FOLDER IN.npz OUT.npz`; tensors are in the artefact's order.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planish.artefact.format import read_manifest
from planish.ir.errors import PlanishError
from planish.ir.scratch import scratch_folder

#: Seconds after which code is taken to never end.
PATIENCE_SECONDS = 600


class Crashed(PlanishError):
    """Compiled code ended its process, or did not end."""


def run_in_child(folder: Path, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of an artefact in order; Crashed with how the process ended if it did not."""
    with scratch_folder() as scratch:
        given, found = Path(scratch, "in.npz"), Path(scratch, "out.npz")
        np.savez(given, *arrays)
        command = [sys.executable, "-m", __name__, str(folder), str(given), str(found)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Crashed(f"the code did not end within {PATIENCE_SECONDS} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            how = f"signal {-done.returncode}" if done.returncode < 0 else last
            raise Crashed(f"the code ended its process: {how}")
        with np.load(found) as outputs:
            return [outputs[f"arr_{i}"] for i in range(len(outputs.files))]


def main(folder: str, given: str, found: str) -> None:
    """Runs the artefact on the arrays of `given` and writes its outputs to `found`."""
    from planish.artefact.loading import load

    names = [tensor.name for tensor in read_manifest(Path(folder)).inputs]
    with np.load(given) as arrays, load(folder) as model:
        inputs = {name: arrays[f"arr_{i}"] for i, name in enumerate(names)}
        outputs = model.run(inputs)
        np.savez(found, *outputs.values())


if __name__ == "__main__":
    main(*sys.argv[1:])
