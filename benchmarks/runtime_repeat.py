"""A neighbour: runs a model again and again: `runtime_repeat.py MODEL SECONDS THREADS [--idle]`.

The model is an artefact's folder, or an ONNX file for onnxruntime; its input is `x`. Says "ready",
begins when told to, and prints how many runs there were and the CPU seconds of each. With --idle it
waits so long instead, from 10 ms after a run, and prints the CPU seconds of all other threads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def runner(model: Path, threads: int) -> Callable[[], object]:
    """One run of the model on an input of its own."""
    if model.is_dir():
        from planish.artefact.loading import load

        loaded = load(model, threads=threads)
        inputs = {"x": _values(loaded.inputs[0].shape)}
        return lambda: loaded.run(inputs)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    feed = {"x": _values(session.get_inputs()[0].shape)}
    return lambda: session.run(None, feed)


def _values(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def idle_cpu(seconds: float) -> float:
    """CPU seconds of the process's other threads while this one sleeps."""
    time.sleep(0.01)
    before = _cpu_of_others()
    time.sleep(seconds)
    return 1e-9 * (_cpu_of_others() - before)


def _cpu_of_others() -> int:
    """Nanoseconds, by /proc: process_time() would count some of this thread's own."""
    tasks = Path("/proc/self/task")
    others = [task for task in tasks.iterdir() if task.name != str(threading.get_native_id())]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in others)


def main() -> None:
    """Loads and warms up, waits for a line, then counts; or only waits."""
    model, seconds, threads = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    run = runner(model, threads)
    run()
    if "--idle" in sys.argv:
        print(idle_cpu(seconds))
        return
    print("ready", flush=True)
    sys.stdin.readline()
    runs, end, used = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end:
        run()
        runs += 1
    print(runs, (time.process_time() - used) / max(1, runs))


if __name__ == "__main__":
    main()
