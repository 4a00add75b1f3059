"""What runtime.py tells of programs at once: begun together, measured by their share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Command

pytestmark = pytest.mark.usefixtures("_importable")

# Prints "ready", waits for its line and answers with how many others were ready by then.
_READY = """
import pathlib, sys
(pathlib.Path(sys.argv[1]) / sys.argv[2]).touch()
print("ready", flush=True)
sys.stdin.readline()
print(len(list(pathlib.Path(sys.argv[1]).iterdir())), 0.5)
"""


def test_programs_begin_when_all_are_ready(tmp_path: Path) -> None:
    from runtime_neighbours import Program, count

    command = (sys.executable, "-c", _READY, str(tmp_path))
    together = [Program(name, (*command, name)) for name in ("a", "b", "c")]
    assert count(*together) == [[3.0, 0.5]] * 3


def test_a_program_that_does_not_start_is_named() -> None:
    from runtime_neighbours import Program, count

    with pytest.raises(RuntimeError, match=r"late did not start: .* print"):
        count(Program("late", (sys.executable, "-c", "print('not yet')")))


def test_a_line() -> None:
    from runtime_neighbours import Program, Together, describe

    artefact, loops = Program("artefact", ("a",)), Program("loops", ("b",), threads=1)
    rounds = [Together((1.5, 2.0, 6.0), (0.004, 0.005)), Together((1.0, 3.0, 4.0), (0.004, 0.003))]
    assert describe((artefact, artefact, loops), rounds, 2) == (
        "  artefact, two 1.75 (1.0 to 3.0); loops 5.00 (4.0 to 6.0); fair 2.5; "
        "CPU time of a run 4.00 -> 4.00 ms"
    )
    alike = [Together(one.slower[:2], None) for one in rounds]
    assert describe((artefact, artefact), alike, 8) == "  artefact, two 1.75 (1.0 to 3.0); fair 1.0"


@pytest.mark.slow
def test_all_reports(script: Command) -> None:
    pytest.importorskip("onnxruntime", reason="one of the neighbours")
    done = script("runtime.py", "--seconds", 0.05, "--rounds", 1)
    assert done.returncode == 0, done.stderr
    calls, adds, launch, idle, head, *lines = done.stdout.splitlines()
    assert calls.startswith("50 tiny kernels")
    assert adds.endswith("ns a kernel")
    assert launch.startswith("parallel launch, 2 threads:")
    assert idle.startswith("threads of an idle artefact:")
    assert head.startswith("times slower than alone on ")
    pairs = ["artefact"] * 3 + ["onnxruntime"] * 2 + ["OpenMP", "busy loop"]
    assert [line.split(", two ")[0].strip() for line in lines] == pairs
