"""What the tuner's measuring needs of the other layers, put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planish.autotune.measure.backend import Backend
from planish.autotune.measure.measurer import MakeRunner
from planish.autotune.measure.options import Options
from planish.autotune.measure.runner import ProcessRunner
from planish.autotune.measure.verdict import Judge
from planish.inputs import index_bounds, random_inputs
from planish.ir.errors import TuningError
from planish.ir.graph import Graph
from planish.ir.target import Target
from planish.targets.trials.kernel import build_kernel
from planish.targets.trials.linking import build_harness
from planish.targets.trials.remote import Address, call_remotely, count_devices
from planish.tolerances import compare


def draw_inputs(graph: Graph, seed: int) -> Sequence[np.ndarray]:
    """Random arrays that the graph accepts, in the order of its inputs."""
    specs = [(v.name, v.type.dtype.value, v.type.static_shape) for v in graph.inputs]
    return list(random_inputs(specs, index_bounds(graph), seed).values())


def difference(actual: np.ndarray, expected: np.ndarray) -> str:
    """Why a kernel's output is out of tolerance; empty if it is not."""
    return compare(actual, expected).reason


BACKEND = Backend(build_kernel, build_harness, draw_inputs, difference)


def remote_runner(tracker: Address, key: str) -> MakeRunner:
    """Measures on the devices that an RPC tracker (host, port) has under a key, all at once."""

    def make(harness: Path, target: Target, options: Options, judge: Judge) -> ProcessRunner:
        count = count_devices(tracker, key)
        if count == 0:
            raise TuningError(
                f"tracker {tracker[0]}:{tracker[1]} has no device '{key}': start one there with "
                f"`python -m tvm.exec.rpc_server --tracker {tracker[0]}:{tracker[1]} --key {key}`"
            )
        place = (tracker, key, options.timeout + 20.0)
        return ProcessRunner(
            call_remotely, place, harness, target, options, judge, devices=count, remote=True
        )

    return make
