"""Fingerprints: what is read from a machine, and how near one is to another."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from planish.autotune.log import GpuFingerprint, fingerprint_of
from planish.autotune.log.fingerprint import (
    cpu_identity,
    difference,
    fingerprint_from_json,
    fingerprint_to_json,
    grade,
)
from planish.logged_schedules import hardware_of
from planish.targets.hardware import TARGETS, detect_host, find_target
from tests.autotune_log.logs import HERE, SISTER, STRANGER

GPU = GpuFingerprint("NVIDIA H100 PCIe", "9.0", 114, 52428800, 1755, 1593, "570.86.15")

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
stepping\t: 8
power management:

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C
stepping\t: 8
"""

BIG_LITTLE = """processor\t: 0
Features\t: fp asimd
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd05
CPU revision\t: 0

processor\t: 4
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd0b
CPU revision\t: 0
"""


def test_identity_of_x86() -> None:
    assert cpu_identity("x86_64", XEON) == {
        "vendor": "GenuineIntel",
        "family": "6",
        "model": "143",
        "stepping": "8",
        "name": "Intel(R) Xeon(R) Platinum 8481C",
    }


def test_identity_of_cores_that_differ() -> None:
    assert cpu_identity("aarch64", BIG_LITTLE) == {
        "vendor": "0x41",
        "family": "8",
        "model": "0xd05+0xd0b",
        "stepping": "0x1.0",
    }


def test_this_machine_is_identified_and_another_target_is_not(tmp_path: Path) -> None:
    host = replace(find_target("cortex-a72"), name="host", cores=4)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(BIG_LITTLE)
    ours = fingerprint_of(replace(host, cores=1), host, cpuinfo)
    assert ours.is_identified
    assert (ours.vendor, ours.cores, ours.l2) == ("0x41", 4, host.l2)
    for target, machine in ((host, None), (replace(host, l2=1 << 20), host)):
        other = fingerprint_of(target, machine, cpuinfo)
        assert not other.is_identified
        assert str(other) == "any aarch64 of these features and caches"
    assert grade(ours, fingerprint_of(host, None)) == "class"


def test_the_machine_that_runs_this() -> None:
    ours = hardware_of(detect_host())
    assert ours.is_identified
    assert ours.arch == platform.machine()
    assert str(ours).startswith(f"{ours.vendor} {ours.family}/{ours.model}/{ours.stepping} (")
    assert hardware_of(replace(detect_host(), cores=77)) == ours
    assert not any(hardware_of(target) == ours for target in TARGETS)


def test_grades() -> None:
    assert grade(HERE, HERE) == "exact"
    assert grade(replace(HERE, microarchitecture="unknown", name=""), HERE) == "exact"
    assert grade(SISTER, HERE) == grade(replace(HERE, cores=2), HERE) == "class"
    for change in ({"arch": "aarch64"}, {"l1": 1}, {"l2": 1}, {"l3": 1}, {"features": ("avx",)}):
        assert grade(replace(HERE, **change), HERE) == "seed"
    kind = replace(HERE, vendor="")
    assert grade(kind, kind) == "class", "two machines of a kind need not be one"


def test_grades_of_gpus() -> None:
    assert grade(GPU, GPU) == "exact"
    assert grade(replace(GPU, driver="580.1"), GPU) == "class"
    assert grade(replace(GPU, clock_mhz=1980), GPU) == "class"
    assert grade(replace(GPU, sm_count=132), GPU) == "seed"
    assert grade(GPU, HERE) == grade(HERE, GPU) == "seed"


def test_difference_tells_what_differs() -> None:
    assert difference(HERE, HERE) == ""
    assert difference(SISTER, HERE) == "stepping is 6, here 8"
    assert difference(STRANGER, HERE) == "no avx2 fma there; l2 is 524288, here 1048576"
    assert difference(HERE, STRANGER) == "no avx2 fma here; l2 is 1048576, here 524288"
    assert difference(GPU, HERE).startswith("measured on NVIDIA H100 PCIe, 114 SMs at 1755 MHz")


@pytest.mark.parametrize("hardware", [HERE, GPU])
def test_json_and_back(hardware: object) -> None:
    data = json.loads(json.dumps(fingerprint_to_json(hardware)))  # type: ignore[arg-type]
    assert fingerprint_from_json(data) == hardware
    assert fingerprint_from_json({**data, "of a newer planish": 1}) == hardware


def test_json_that_is_no_fingerprint() -> None:
    data = json.loads(json.dumps(fingerprint_to_json(HERE)))
    for wrong in ({"l2": "1 MiB"}, {"cores": True}, {"vendor": 6}, {"features": "avx"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is no"):
            fingerprint_from_json({**data, **wrong})
    with pytest.raises(KeyError):
        fingerprint_from_json({**data, "type": "tpu"})
