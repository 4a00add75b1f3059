"""A logged point reaches the kernel, where its grade allows, and the report says so."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import planish
from planish.autotune.apply_log import LogReport, apply_log, checked_choices
from planish.autotune.default_schedules import assign_default_schedules
from planish.autotune.log import Fingerprint, Header, LogWriter, TuningLog, task_digest
from planish.autotune.log.record import point_of
from planish.autotune.log.task import describe
from planish.autotune.spaces import space_of
from planish.ir.errors import ScheduleError
from planish.ir.graph import Graph, Node
from planish.ir.reference import evaluate
from planish.logged_schedules import hardware_of
from planish.passes.local import with_schedule
from planish.passes.pass_ import Step
from planish.passes.pipeline import PIPELINE
from tests.autotune_log.logged_model import (
    HOST,
    choice_of_numbers,
    fused,
    kernels_of,
    log_of,
    other_than_the_pick,
    sister,
    stranger,
    trial_of,
)
from tests.compiler.small_models import perceptron


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small perceptron."""
    return perceptron(tmp_path / "small.onnx")


def applied(model: Path, log: Path) -> tuple[Graph, LogReport]:
    """The graph and the report for this machine."""
    return apply_log(fused(model), HOST, TuningLog.read([log]), hardware_of(HOST))


def choices(kernel: Node) -> dict[str, object] | None:
    """The choices of a kernel's schedule; None if it has none."""
    schedule = kernel.attrs["schedule"]
    return None if schedule is None else dict(schedule.choices)


@pytest.mark.parametrize(("hardware", "grade"), [(None, "exact"), (sister, "class")])
def test_logged_points_become_schedules(
    hardware: Callable[[], Fingerprint] | None, grade: str, model: Path, tmp_path: Path
) -> None:
    log = log_of(tmp_path / "log", model, hardware and hardware())
    graph, report = apply_log(fused(model), HOST, TuningLog.read([log]), hardware_of(HOST))
    kernels = kernels_of(graph)
    assert len(kernels) == 2
    for kernel in kernels:
        assert choices(kernel) == other_than_the_pick(kernel)
        schedule = space_of(kernel).schedule(kernel, HOST, other_than_the_pick(kernel))
        assert kernel.attrs["schedule"] == schedule
        assert schedule != space_of(kernel).schedule(kernel, HOST)
    assert [kernel.outcome for kernel in report.kernels] == [grade, grade]
    assert report.count(grade) == 2  # type: ignore[arg-type]
    assert report.kernels[0].seconds == 1e-3
    assert report.kernels[0].reason.endswith("measured on 2026-01-31T12:00:00Z")
    assert report.to_json()[grade] == 2
    json.dumps(report.to_json())
    assert assign_default_schedules(graph, HOST) is graph


def test_other_hardware_is_never_applied(model: Path, tmp_path: Path) -> None:
    graph = fused(model)
    log = TuningLog.read([log_of(tmp_path / "log", model, stranger())])
    after, report = apply_log(graph, HOST, log, hardware_of(HOST))
    assert after is graph
    assert str(report) == (
        "tuning log: 0 kernels as measured on this hardware, 0 as on its class, 2 untuned"
    )
    reason = "no record of 1 may be applied here, 1 of them are seeds"
    assert [kernel.reason for kernel in report.kernels] == [reason, reason]


def test_other_threads_are_never_applied(model: Path, tmp_path: Path) -> None:
    log = TuningLog.read([log_of(tmp_path / "log", model)])
    target = dataclasses.replace(HOST, cores=HOST.cores + 1)
    graph = fused(model, target)
    assert apply_log(graph, target, log, hardware_of(target))[0] is graph


def test_kernels_that_were_never_measured_stay(model: Path, tmp_path: Path) -> None:
    first, second = kernels_of(fused(model))
    with LogWriter(tmp_path / "log", Header.of(hardware_of(HOST))) as writer:
        writer.append(trial_of(second, other_than_the_pick(second)))
    graph, report = applied(model, tmp_path / "log")
    assert [choices(kernel) for kernel in kernels_of(graph)] == [
        None,
        other_than_the_pick(second),
    ]
    assert report.kernels[0].reason == "never measured"
    assert report.kernels[0].task == task_digest(first)


def test_a_schedule_that_is_there_stays(model: Path, tmp_path: Path) -> None:
    log = TuningLog.read([log_of(tmp_path / "log", model)])
    scheduled = assign_default_schedules(fused(model), HOST)
    graph, report = apply_log(scheduled, HOST, log, hardware_of(HOST))
    assert graph is scheduled
    assert report.kernels == ()


@pytest.mark.parametrize("value", [7777, True, "wide"])
def test_values_that_the_space_no_longer_has_are_told(
    value: object, model: Path, tmp_path: Path
) -> None:
    name = choice_of_numbers(kernels_of(fused(model))[0])
    log = log_of(tmp_path / "log", model, **{name: value})
    told_to_be_refused(model, log, rf"'{name}' of space 'matmul' may be .*, and is {value}")


def test_choices_that_the_space_no_longer_has_are_told(model: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", model, colour="blue")
    told_to_be_refused(model, log, r"space 'matmul' has the choices .*, and the point has .*colour")


def test_points_that_share_otherwise_than_the_default_are_told(model: Path, tmp_path: Path) -> None:
    picked = [space_of(k).pick(k, HOST)["parallel"] for k in kernels_of(fused(model))]
    assert picked[0] == picked[1]
    log = log_of(tmp_path / "log", model, parallel=not picked[0])
    told_to_be_refused(model, log, "shares its work by .*, and the default, .*, by ")


def told_to_be_refused(model: Path, log: Path, reason: str) -> None:
    """No kernel gets a schedule, and the report tells why."""
    graph, report = applied(model, log)
    assert [choices(kernel) for kernel in kernels_of(graph)] == [None, None]
    assert len(report.refused) == report.count("untuned") == 2
    assert all(re.search(reason, kernel.reason) for kernel in report.refused)
    assert re.search(reason, str(report))


def test_a_schedule_error_of_the_space_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_of(tmp_path / "log", model)

    def refuse(*args: object) -> None:
        raise ScheduleError("the tile has become too wide")

    monkeypatch.setattr("planish.autotune.apply_log.schedule_at", refuse)
    graph, report = applied(model, log)
    assert [choices(kernel) for kernel in kernels_of(graph)] == [None, None]
    assert "refused: the point " in str(report)
    assert "the tile has become too wide" in str(report)


def test_the_pick_is_always_in_the_space(model: Path) -> None:
    for kernel in kernels_of(fused(model)):
        pick = space_of(kernel).pick(kernel, HOST)
        assert checked_choices(kernel, HOST, tuple(sorted(pick.items()))) == pick


def test_names_and_weights_are_no_part_of_a_task(model: Path, tmp_path: Path) -> None:
    other = onnx.load(model)
    for node in other.graph.node:
        node.name = f"other/{node.name}"
    for tensor in other.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    onnx.save(other, tmp_path / "other.onnx")
    ours, theirs = (kernels_of(fused(path)) for path in (model, tmp_path / "other.onnx"))
    assert [kernel.provenance for kernel in ours] != [kernel.provenance for kernel in theirs]
    assert [*map(task_digest, ours)] == [*map(task_digest, theirs)]
    scheduled = with_schedule(ours[0], space_of(ours[0]).schedule(ours[0], HOST))
    assert task_digest(scheduled) == task_digest(ours[0]) != task_digest(ours[1])
    assert describe(ours[0]).endswith("relu float32[2, 16]")


def artefact(folder: Path) -> dict[str, bytes]:
    """The files of an artefact."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_compilation_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", model)
    reports = [planish.compile(model, tmp_path / name, log=log) for name in ("a", "b")]
    assert all(report.log and report.log.count("exact") == 2 for report in reports)
    assert artefact(tmp_path / "a") == artefact(tmp_path / "b")
    untuned = planish.compile(model, tmp_path / "untuned", log=False)
    assert untuned.log is None
    assert artefact(tmp_path / "untuned") != artefact(tmp_path / "a")
    x = np.random.default_rng(3).standard_normal((2, 12)).astype("f4")
    with planish.load(tmp_path / "a") as loaded:
        expected = evaluate(planish.import_model(model), {"x": x})["y"]
        np.testing.assert_allclose(loaded.run({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_a_strangers_log_changes_no_byte(model: Path, tmp_path: Path) -> None:
    log = log_of(tmp_path / "log", model)
    text = log.read_text()
    log.write_text(text.replace(f'"l2": {HOST.l2}', '"l2": 12345'))
    assert log.read_text() != text
    report = planish.compile(model, tmp_path / "edited", log=log, verify=False)
    assert report.log is not None
    assert report.log.count("untuned") == 2
    planish.compile(model, tmp_path / "untuned", log=False, verify=False)
    assert artefact(tmp_path / "edited") == artefact(tmp_path / "untuned")


def test_the_store_is_used_unless_told_otherwise(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANISH_LOG", str(log_of(tmp_path / "log", model)))
    report = planish.compile(model, tmp_path / "out", verify=False)
    assert report.log is not None
    assert report.log.files == (str(tmp_path / "log"),)
    assert report.log.count("exact") == 2


def test_a_pipeline_without_defaults_is_given_the_log_last(model: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    log = log_of(tmp_path / "log", model)
    report = planish.compile(
        model,
        tmp_path / "out",
        log=log,
        verify=False,
        pipeline=[*PIPELINE, Step(lambda graph, target: graph, "nothing", label="nothing")],
        observer=lambda name, before, after, seconds: seen.append(name),
    )
    assert report.log is not None
    assert report.log.count("exact") == 2
    assert seen == [*(step.name for step in PIPELINE), "nothing"]


def test_the_pick_in_other_types_is_no_point(model: Path) -> None:
    for kernel in kernels_of(fused(model)):
        pick = space_of(kernel).pick(kernel, HOST)
        checked_choices(kernel, HOST, point_of(pick))
        for name, value in pick.items():
            if isinstance(value, int):
                for other in (float(value), str(value), int(value) if value is True else b"1"):
                    with pytest.raises(ScheduleError, match=name):
                        checked_choices(kernel, HOST, point_of(pick | {name: other}))
