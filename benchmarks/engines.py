"""One engine in a process of its own, driven by JSON lines: `python engines.py ENGINE`.

Commands, one object a line on stdin, one answer a line on stdout:
    {"do": "ready"}                                              imports are done
    {"do": "start", "model": PATH, "inputs": NPZ, "threads": N}  load + first run, from cold
    {"do": "time", "seconds": S}                                 runs for S seconds
    {"do": "save", "path": NPZ}                                  the outputs
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Run = Callable[[], Arrays]


def planish_engine() -> Callable[[str, Arrays, int], Run]:
    """Artefacts, run by planish.load; its import is done before the clock starts."""
    from planish.artefact.loading import load

    def start(path: str, inputs: Arrays, threads: int) -> Run:
        model = load(path, threads=threads)
        return lambda: model.run(inputs)

    return start


def onnxruntime_engine() -> Callable[[str, Arrays, int], Run]:
    """ONNX models in onnxruntime, all optimisations on, its other settings as they come."""
    import onnxruntime

    def start(path: str, inputs: Arrays, threads: int) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda: dict(zip(names, session.run(names, inputs)))

    return start


ENGINES = {"planish": planish_engine, "onnxruntime": onnxruntime_engine}


def resident_bytes() -> int:
    """Memory of this process that is in RAM (VmRSS)."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmRSS"].split()[0]) << 10


def busy_seconds() -> float:
    """CPU time that all processes of the machine have used since it started."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system = stat.readline().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


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
        self._run: Run | None = None

    def ready(self) -> dict[str, float]:
        """Answers when the engine's imports are done."""
        return {}

    def start(self, model: str, inputs: str, threads: int) -> dict[str, float]:
        """Seconds of loading and of the first run, and what memory both took."""
        with np.load(inputs) as arrays:
            given = {name: aligned(arrays[name]) for name in arrays}
        before = resident_bytes()
        begin = time.perf_counter()
        self._run = self._start(model, given, threads)
        loaded = time.perf_counter()
        self._run()
        done = time.perf_counter()
        return {
            "load": loaded - begin,
            "cold": done - begin,
            "resident": resident_bytes(),
            "grown": resident_bytes() - before,
        }

    def time(self, seconds: float) -> dict[str, float]:
        """Median and least latency of runs for so many seconds, after two that do not count.

        `others` is how many CPUs other processes used meanwhile, which should be none.
        """
        assert self._run is not None
        self._run()
        self._run()
        spent: list[float] = []
        began, own, busy = time.perf_counter(), time.process_time(), busy_seconds()
        end = began + seconds
        while len(spent) < 5 or time.perf_counter() < end:
            begin = time.perf_counter()
            self._run()
            spent.append(time.perf_counter() - begin)
        others = busy_seconds() - busy - (time.process_time() - own)
        return {
            "median": float(np.median(spent)),
            "least": min(spent),
            "runs": len(spent),
            "others": max(0.0, others / (time.perf_counter() - began)),
        }

    def save(self, path: str) -> dict[str, float]:
        """The outputs of one run to an .npz file."""
        assert self._run is not None
        with open(path, "wb") as file:
            np.savez(file, **self._run())  # type: ignore[arg-type]
        return {}


def main() -> None:
    """Answers commands until stdin ends; an error is an answer too."""
    session = Session(sys.argv[1])
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        action = getattr(session, command.pop("do"))
        try:
            answer = action(**command)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
