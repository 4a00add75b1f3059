"""One engine in a process of its own, driven by JSON lines: `python -P worker.py ENGINE`.

Commands, one object a line on stdin, one answer a line on stdout:
    {"do": "ready"}                                              imports are done
    {"do": "start", "model": PATH, "inputs": NPZ, "threads": N}  load + first run, from cold
    {"do": "time", "seconds": S}                                 runs for S seconds
    {"do": "kernels", "seconds": S}                              the same of each kernel (planish)
    {"do": "save", "path": NPZ}                                  the outputs

Run by its path, it imports nothing of planish but the loader, and so serves any planish that is
first in PYTHONPATH; -P keeps the modules beside it from being taken for others of the same name.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Run = Callable[[], Arrays]


@dataclass(frozen=True)
class Started:
    """A model that is ready to run; `profile`, where an engine has it, times a run's kernels."""

    run: Run
    profile: Callable[[], list[tuple[str, float]]] | None = None


Start = Callable[[str, Arrays, int], Started]

#: From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1


def planish_engine() -> Start:
    """Artefacts, run by planish.load; its import is done before the clock starts."""
    from planish.artefact.loading import load

    def start(path: str, inputs: Arrays, threads: int) -> Started:
        model = load(path, threads=threads)
        return Started(lambda: model.run(inputs), lambda: model.profile(inputs))

    return start


def onnxruntime_engine() -> Start:
    """ONNX models in onnxruntime, all optimisations on, its other settings as they come."""
    import onnxruntime

    def start(path: str, inputs: Arrays, threads: int) -> Started:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return Started(lambda: dict(zip(names, session.run(names, inputs))))

    return start


def openvino_engine() -> Start:
    """ONNX models in OpenVINO on the CPU: float32 kept as such, made for latency."""
    # Its telemetry forks a process at import, which would outlive a worker that is killed: as not
    # installed, which OpenVINO expects.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    def start(path: str, inputs: Arrays, threads: int) -> Started:
        core = openvino.Core()
        model = core.read_model(path)
        feeds = [_of_port(inputs, port) for port in model.inputs]
        model.reshape({port: list(array.shape) for port, array in zip(model.inputs, feeds)})
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(model, "CPU", settings)
        request = compiled.create_infer_request()
        given = dict(enumerate(feeds))
        # A port that several ONNX values became has all of their names.
        names = [(i, name) for i, port in enumerate(compiled.outputs) for name in port.get_names()]

        def run() -> Arrays:
            found = request.infer(given, share_inputs=True, share_outputs=True)
            return {name: found[i] for i, name in names}

        return Started(run)

    return start


def _of_port(inputs: Arrays, port: Any) -> np.ndarray:
    for name in port.get_names():
        if name in inputs:
            return inputs[name]
    raise KeyError(f"no input is called {' or '.join(sorted(port.get_names()))}")


ENGINES = {
    "planish": planish_engine,
    "onnxruntime": onnxruntime_engine,
    "openvino": openvino_engine,
}


def resident_bytes() -> int:
    """Memory of this process that is in RAM (VmRSS)."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmRSS"].split()[0]) << 10


class ForeignLoad:
    """CPUs that other processes of the machine use, from its creation on."""

    def __init__(self) -> None:
        self._began, self._before = time.perf_counter(), self._foreign()

    def cpus(self) -> float:
        """How many they used on average until now; none should be."""
        used = self._foreign() - self._before
        return max(0.0, used / (time.perf_counter() - self._began))

    @staticmethod
    def _foreign() -> float:
        """CPU seconds of all processes but this one."""
        with open("/proc/stat", encoding="ascii") as stat:
            user, nice, system = stat.readline().split()[1:4]
        busy = (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
        return busy - time.process_time()


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a multiple of 64 bytes, as a caller who minds speed has it."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    offset = -memory.ctypes.data % 64
    copy = memory[offset : offset + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Session:
    """The engine's state between commands."""

    def __init__(self, engine: str) -> None:
        self._start = ENGINES[engine]()
        self._started: Started | None = None

    def ready(self) -> dict[str, float]:
        """Answers when the engine's imports are done."""
        return {}

    def start(self, model: str, inputs: str, threads: int) -> dict[str, float]:
        """Seconds of loading and of the first run, and what memory both took."""
        with np.load(inputs) as arrays:
            given = {name: aligned(arrays[name]) for name in arrays}
        before = resident_bytes()
        begin = time.perf_counter()
        self._started = self._start(model, given, threads)
        loaded = time.perf_counter()
        self._started.run()
        done = time.perf_counter()
        return {
            "load": loaded - begin,
            "cold": done - begin,
            "resident": resident_bytes(),
            "grown": resident_bytes() - before,
        }

    def time(self, seconds: float) -> dict[str, float]:
        """Median and least latency of runs for so many seconds, after two that do not count.

        `others` is how many CPUs other processes used meanwhile.
        """
        assert self._started is not None
        run = self._started.run
        run()
        run()
        spent: list[float] = []
        load = ForeignLoad()
        end = time.perf_counter() + seconds
        while len(spent) < 5 or time.perf_counter() < end:
            begin = time.perf_counter()
            run()
            spent.append(time.perf_counter() - begin)
        return {
            "median": float(np.median(spent)),
            "least": min(spent),
            "runs": len(spent),
            "others": load.cpus(),
        }

    def kernels(self, seconds: float) -> dict[str, Any]:
        """Median seconds of each kernel, in the order of the calls."""
        assert self._started is not None
        profile = self._started.profile
        assert profile is not None, "engines of others do not time kernels"
        self._started.run()
        self._started.run()
        runs: list[list[float]] = []
        end = time.perf_counter() + seconds
        while len(runs) < 5 or time.perf_counter() < end:
            runs.append([spent for _, spent in profile()])
        return {"medians": np.median(runs, 0).tolist()}

    def save(self, path: str) -> dict[str, float]:
        """The outputs of one run to an .npz file."""
        assert self._started is not None
        with open(path, "wb") as file:
            np.savez(file, **self._started.run())  # type: ignore[arg-type]
        return {}


def die_with_parent() -> None:
    """Has the system kill this process when its parent ends, even while it is stopped."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answers commands until stdin ends; an error is an answer too."""
    die_with_parent()
    # What an engine's library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    session = Session(sys.argv[1])
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        action = getattr(session, command.pop("do"))
        try:
            answer = action(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
