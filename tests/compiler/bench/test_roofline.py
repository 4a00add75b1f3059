"""Kernels against the roofline, by peaks that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planish
from planish.artefact.format import KernelInfo
from planish.bench.peaks import Bandwidth, Level, Peaks
from planish.bench.roofline import (
    achieved_overall,
    excess,
    judge_kernels,
    spell_achieved,
    time_kernels,
)
from tests.compiler.small_models import perceptron

#: 100 GFLOPS, 50 GB/s from a cache of 1 MB, 10 GB/s from memory.
PEAKS = Peaks(
    {1: 100e9},
    (
        Bandwidth(Level("L1", 1_000_000, False), 1, 4096, 50e9),
        Bandwidth(Level("DRAM", None, True), 1, 4096, 10e9),
    ),
)


def test_rooflines_of_computing_and_of_moving() -> None:
    kernels = [
        KernelInfo("copy", flops=0, bytes=500_000),
        KernelInfo("matmul", flops=200_000_000, bytes=1_000_000),
        KernelInfo("big add", flops=1_000_000, bytes=12_000_000),
    ]
    figures = judge_kernels(kernels, [20e-6, 4e-3, 2e-3], PEAKS, 1)
    assert [figure.kernel.name for figure in figures] == ["matmul", "big add", "copy"]
    matmul, add, copy = figures
    assert (matmul.level, matmul.bound) == ("L1", "compute")
    assert matmul.roofline == pytest.approx(2e-3)
    assert matmul.achieved == pytest.approx(0.5)
    assert matmul.gflops == pytest.approx(50)
    assert matmul.share == pytest.approx(4 / 6.02)
    assert (add.level, add.bound) == ("DRAM", "memory")
    assert add.roofline == pytest.approx(1.2e-3)
    assert add.gbs == pytest.approx(6)
    assert (copy.level, copy.bound) == ("L1", "memory")
    assert copy.achieved == pytest.approx(0.5)
    assert achieved_overall(figures) == pytest.approx((2e-3 + 1.2e-3 + 10e-6) / 6.02e-3)


def test_a_time_for_each_kernel_or_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge_kernels([KernelInfo("one"), KernelInfo("two")], [1.0], PEAKS, 1)


def test_kernels_of_an_artefact_are_timed(tmp_path: Path) -> None:
    planish.compile(perceptron(tmp_path / "small.onnx"), tmp_path / "out", verify=False)
    told: list[tuple[str, int, int]] = []
    with planish.load(tmp_path / "out", threads=1) as model:
        x = np.random.default_rng(4).standard_normal((2, 12)).astype("f4")
        seconds, others = time_kernels(model, {"x": x}, 0.01, lambda *step: told.append(step))
        assert len(seconds) == len(model.kernels) > 0
    assert all(0 < spent < 1 for spent in seconds)
    assert others >= 0
    assert len(told) >= 5
    assert all(stage == "time kernels" and 0 <= done <= total for stage, done, total in told)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0.9, "compute", "conv"), ""),
        ((1.0, "memory", "add"), ""),
        ((None, "memory", "add"), ""),
        ((1.2, "memory", "add"), "a part of them stays in a nearer cache"),
        ((1.2, "compute", "winograd_conv add"), "Winograd's form does fewer"),
        ((1.2, "compute", "matmul"), "the machine ran slower then"),
        ((1.2, "compute", "matmul", 1.5), "other processes used 1.5 CPUs"),
    ],
)
def test_more_than_the_roofline_has_a_reason(arguments: tuple[Any, ...], reason: str) -> None:
    told = excess(*arguments)
    assert reason in told
    assert bool(told) == bool(reason)
    assert spell_achieved(1.12) == "112%*"
    assert spell_achieved(0.87) == "87%"
