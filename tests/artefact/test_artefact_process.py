"""Loaded artefacts in a process: threads, forks, code that is compiled anew, and what is left."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from toy_model import build_toy, check, sample

from planish.artefact import library as library_module
from planish.artefact.loading import Model, load
from planish.ir.errors import ArtefactError


def test_python_threads_with_one_model_and_with_clones(toy: Path) -> None:
    shared = load(toy, threads=2)
    failures: list[BaseException] = []

    def work(model: Model, begin: int) -> None:
        try:
            for seed in range(begin, begin + 50):
                check(model, seed)
        except BaseException as error:
            failures.append(error)

    models = [shared, shared, shared.clone(), shared.clone(threads=1)]
    workers = [
        threading.Thread(target=work, args=(model, 50 * i)) for i, model in enumerate(models)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))


def await_threads(count: int) -> None:
    """A thread is listed for a moment after it was joined."""
    deadline = time.monotonic() + 10
    while thread_count() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert thread_count() == count


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_threads_start_late_and_end_with_the_model(toy: Path) -> None:
    gc.collect()
    time.sleep(0.05)
    before = thread_count()
    model = load(toy, threads=3)
    assert thread_count() == before
    check(model)
    await_threads(before + 2)
    del model
    await_threads(before)
    with load(toy, threads=1) as model:
        check(model)
        await_threads(before)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_with_the_pool_running_and_the_lock_held(toy: Path) -> None:
    model = load(toy, threads=2)
    check(model)
    with model._lock.lock:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                check(model)
                check(model.clone(threads=4))
                model.close()
                status = 0
            finally:
                os._exit(status)
    deadline = time.monotonic() + 60
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            pytest.fail("the child of the fork hangs")
        time.sleep(0.01)
    assert done[1] == 0
    check(model)


def test_recompiled_library_at_the_same_path(toy: Path, own_toy: Path, tmp_path: Path) -> None:
    """The dynamic loader knows libraries by path and would give the old code."""
    first = load(own_toy)
    check(first)
    new = build_toy(tmp_path / "new", tmp_path / "work", defines=("-DPER_TASK=200",))
    changed = 7 * 609 + 5
    shutil.rmtree(own_toy)
    shutil.copytree(new, own_toy)
    second = load(own_toy)
    assert second.run(sample())["n"] == changed
    check(first)
    shutil.copy(toy / "libtoy.so", own_toy / "libtoy.so")  # overwritten in place
    assert second.run(sample())["n"] == changed
    check(first)


def test_a_library_of_another_interface(toy: Path) -> None:
    with pytest.raises(ArtefactError, match="the library of 'other' has another C interface"):
        library_module.Library("other", (toy / "libtoy.so").read_bytes())


def test_many_loads_leave_nothing_behind(toy: Path) -> None:
    check(load(toy))
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    maps = len(Path("/proc/self/maps").read_text().splitlines())
    for _ in range(50):
        check(load(toy, threads=2))
    assert len(os.listdir("/proc/self/fd")) <= files
    assert len(Path("/proc/self/maps").read_text().splitlines()) <= maps + 8


def test_weights_are_mapped_once_for_all_clones(toy: Path) -> None:
    model = load(toy)
    clones = [model.clone() for _ in range(4)]
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(toy / "weights.bin")) == 1
    assert len({id(clone._weights) for clone in clones}) == 1
