"""An artefact beside others: shared weights, no CPU when idle, forks and OpenMP in the host."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toy_model import HOST, build_toy, check

from planish.artefact.loading import load
from planish.targets.linking import find_toolchain

WEIGHTS_BYTES = 4 << 20

_READ_ALL_WEIGHTS = """
import ctypes, sys
from planish.artefact.loading import load
model = load(sys.argv[1])
for line in open("/proc/self/maps"):
    if line.rstrip().endswith("weights.bin"):
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        ctypes.string_at(begin, end - begin)
print("ready", flush=True)
sys.stdin.read()
"""

_CPU_SECONDS_IDLE = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from toy_model import check
from planish.artefact.loading import load
models = [load(sys.argv[1], threads=2) for _ in range(2)]
for model in models:
    check(model)
tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
def used():
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
windows = []
for _ in range(5):
    before = used()
    time.sleep(0.1)
    windows.append(used() - before)
print(len(tasks), *windows)
"""


def _weights_of(process: int) -> dict[str, str]:
    """The lines of /proc/PID/smaps on weights.bin, and its permissions."""
    found: dict[str, str] = {}
    inside = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = line.endswith("weights.bin")
            found |= {"permissions": words[1]} if inside else {}
        elif inside:
            found[words[0][:-1]] = " ".join(words[1:])
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_processes_share_the_weights(tmp_path: Path) -> None:
    """Each of two processes is charged for half of the pages, and has none of its own."""
    folder = build_toy(tmp_path / "artefact", tmp_path / "work", more_weights=WEIGHTS_BYTES)
    command = [sys.executable, "-c", _READ_ALL_WEIGHTS, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            told = _weights_of(process.pid)
            resident = int(told["Rss"].split()[0])
            assert resident >= WEIGHTS_BYTES >> 10
            assert told["permissions"] == "r--s"
            assert int(told["Pss"].split()[0]) <= resident // 2 + 4
            assert (told["Private_Clean"], told["Private_Dirty"]) == ("0 kB", "0 kB")
    finally:
        for process in processes:
            process.communicate(timeout=60)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs Linux's schedstat")
def test_an_idle_artefact_uses_no_cpu(toy: Path) -> None:
    """Not a nanosecond in a tenth of a second, once its threads had a CPU to go to sleep on."""
    tests = str(Path(__file__).parents[1] / "runtime")
    command = [sys.executable, "-c", _CPU_SECONDS_IDLE, str(toy), tests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    threads, *nanoseconds = map(int, done.stdout.split())
    assert threads >= 2
    assert nanoseconds[-1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_while_other_threads_run(toy: Path) -> None:
    """The child has none of the pool's threads, and a run of the parent's that never ends."""
    model = load(toy, threads=3)
    check(model)  # imports numpy.random: a fork meanwhile would leave its lock taken in the child
    stop = threading.Event()

    def keep_running() -> None:
        while not stop.is_set():
            check(model)

    runner = threading.Thread(target=keep_running)
    runner.start()
    try:
        for _ in range(8):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    check(model)
                    check(model.clone(threads=2))
                    status = 0
                finally:
                    os._exit(status)
            _await(child)
    finally:
        stop.set()
        runner.join()
    check(model)


def _await(child: int) -> None:
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child of the fork hangs")
        time.sleep(0.005)
    assert done[1] == 0


def test_a_host_with_openmp(toy: Path, tmp_path: Path) -> None:
    program = tmp_path / "openmp_host"
    source = Path(__file__).parent / "openmp_host.c"
    command = [*find_toolchain(HOST).command, "-std=c11", "-O1", "-Wall", "-Wextra", "-fopenmp"]
    command += [f"-I{toy}", str(source), str(toy / "libtoy.so"), f"-Wl,-rpath,{toy}"]
    built = subprocess.run([*command, "-o", program], capture_output=True, text=True)
    if built.returncode != 0 and "omp" in built.stderr and "toy" not in built.stderr:
        pytest.skip("the C compiler has no OpenMP")
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [program, toy / "weights.bin"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
