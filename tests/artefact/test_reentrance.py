"""Models called by signal handlers and finalisers within a run, and forks while others load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_BEGIN = """
import faulthandler, gc, os, random, signal, sys, threading, time
faulthandler.dump_traceback_later(60, exit=True)
sys.path.insert(0, sys.argv[2])
from toy_model import check, sample, expected
from planish.artefact.loading import load
from planish.ir.errors import ArtefactError
path = sys.argv[1]
model = load(path, threads=2)
check(model)
"""

_SIGNALS = """
# Signals come at random moments of runs; each handler uses the model that runs, and a clone of it.
told, handled, wait = set(), 0, random.Random(1)
other = model.clone(threads=1)
def arm():
    signal.setitimer(signal.ITIMER_REAL, wait.uniform(1e-6, 3e-4))
def handler(number, frame):
    global handled
    handled += 1
    try:
        check(model)
    except ArtefactError as error:
        told.add(str(error))
    check(other)
    arm()
signal.signal(signal.SIGALRM, handler)
arm()
while handled < 500:
    check(model, handled)
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(told) == 1 and "called by a signal handler or a finaliser" in told.pop()
print("ok")
"""

_CLOSE_BY_SIGNAL = """
# The handler closes the model at a random moment of its run, which goes on to its end.
closed = 0
def handler(number, frame):
    model.close()
signal.signal(signal.SIGALRM, handler)
for attempt in range(60):
    model = load(path, threads=2)
    inputs = sample(attempt)
    signal.setitimer(signal.ITIMER_REAL, random.Random(attempt).uniform(1e-6, 4e-4))
    try:
        while True:
            outputs = model.run(inputs)
            assert (outputs["y:0"] == expected(inputs["x"], 5)["y:0"]).all()
    except ArtefactError as error:
        assert "is closed; load it again" in str(error), error
    assert not model._finalizer.alive  # freed, not only said to be
print("ok")
"""

_FINALISERS = """
# Garbage is collected at every other allocation, and finalisers use the models that run.
told = set()
class Closes:
    def __init__(self, victim):
        self.victim, self.own = victim, self
    def __del__(self):
        try:
            check(self.victim)
        except ArtefactError as error:
            told.add(str(error).split("'")[2])
        self.victim.close()
        load(path).close()
gc.set_threshold(3)
def work(number):
    for _ in range(60):
        mine, others = load(path, threads=2), models[number - 1]
        models[number] = mine
        for victim in (mine, others):
            Closes(victim)
        for seed in range(5):
            try:
                check(mine, seed)
            except ArtefactError as error:
                told.add(str(error).split("'")[2])
models = [model, model]
workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert told <= {" is closed; load it again",
                " was called by a signal handler or a finaliser in the middle of a load or run, "
                "which cannot wait for it; let it use a model.clone()"}, told
print("ok")
"""

_FORKS = """
# Two threads load without end, slowly; the children of a third load and run as well.
stop, create = False, os.memfd_create
def create_slowly(*arguments):
    time.sleep(0.002)
    return create(*arguments)
os.memfd_create = create_slowly
del model
gc.collect()
def load_on():
    while not stop:
        check(load(path, threads=2))
loaders = [threading.Thread(target=load_on, daemon=True) for _ in range(2)]
for loader in loaders:
    loader.start()
for number in range(25):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        check(load(path))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
stop = True
for loader in loaders:
    loader.join()
print("ok")
"""

_FORK_IN_A_RUN = """
# A handler forks in the middle of a run: the run of the child goes on to the right end too.
children = []
def handler(number, frame):
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.alarm(20)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        try:
            check(model, 77)
        except ArtefactError as error:
            assert "in the middle" in str(error), error
        check(model.clone())
        globals()["in_child"] = True
    else:
        children.append(child)
in_child = False
signal.signal(signal.SIGALRM, handler)
for attempt in range(20):
    signal.setitimer(signal.ITIMER_REAL, random.Random(attempt).uniform(1e-6, 3e-4))
    before = len(children)
    while len(children) == before and not in_child:
        check(model, attempt)
    if in_child:
        os._exit(0)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
print("ok")
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(_SIGNALS, id="signals"),
        pytest.param(_CLOSE_BY_SIGNAL, id="close-by-signal"),
        pytest.param(_FINALISERS, id="finalisers"),
        pytest.param(_FORKS, id="forks"),
        pytest.param(_FORK_IN_A_RUN, id="fork-in-a-run"),
    ],
)
def test_process(program: str, toy: Path) -> None:
    tests = str(Path(__file__).parents[1] / "runtime")
    command = [sys.executable, "-W", "ignore", "-c", _BEGIN + program, str(toy), tests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.startswith("ok")
