"""Named targets are consistent, and detection reads features, caches and quotas right."""

from __future__ import annotations

import os
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from planish.ir.errors import TargetError
from planish.targets.hardware import (
    TARGETS,
    X86_FEATURES,
    X86_MATRIX_UNITS,
    cgroup_quota,
    detect_host,
    find_target,
    host_from,
    x86_fma_per_cycle,
)
from planish.targets.runtime.cpu_features import required_features

X86 = ("x86_64", "x86_64-linux-gnu")
ARM = ("aarch64", "aarch64-linux-gnu")
AVX2 = {"sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "avx", "avx2", "fma", "sha", "shstk"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_named_targets_are_ones_that_llvm_knows(target, capfd) -> None:
    llvm.initialize_all_targets()
    features = ",".join(f"+{feature}" for feature in target.features)
    machine = llvm.Target.from_triple(target.triple)
    machine.create_target_machine(cpu=target.cpu, features=features)
    assert capfd.readouterr().err == ""  # LLVM only warns of names that it does not know
    assert required_features(target.arch, target.features)
    assert target.vector_bytes in (16, 32, 64)
    assert target.l1 < target.l2
    assert find_target(target.name) is target


def test_every_x86_feature_can_be_checked_at_load() -> None:
    names = required_features("x86_64", X86_FEATURES)
    assert [feature.name for feature in names] == sorted(X86_FEATURES)
    assert required_features("x86_64", X86_MATRIX_UNITS)


def test_unknown_target_lists_the_known() -> None:
    with pytest.raises(TargetError, match=r"unknown target 'z80'; known targets are host, x86-64"):
        find_target("z80")


def test_host_has_what_its_cpu_has() -> None:
    target = detect_host()
    assert target == find_target("host")
    assert 1 <= target.cores <= len(os.sched_getaffinity(0))
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert {f.cpuinfo for f in required_features(target.arch, target.features)} <= flags


@pytest.mark.parametrize(
    ("vendor", "family", "found", "rate"),
    [
        ("AuthenticAMD", 25, {"avx512f"}, 1),
        ("AuthenticAMD", 25, {"avx2"}, 2),
        ("AuthenticAMD", 26, {"avx512f"}, 2),
        ("GenuineIntel", 6, {"avx512f"}, 2),
    ],
)
def test_zen_4_halves_its_widest_vectors(
    vendor: str, family: int, found: set[str], rate: int
) -> None:
    cpuinfo = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\n\nprocessor\t: 1\n"
    assert x86_fma_per_cycle(found, cpuinfo) == rate


def _cpus(root: Path, caches: dict[str, tuple[str, str, str, str]], siblings: str) -> Path:
    for cpu in os.sched_getaffinity(0):
        folder = root / f"devices/system/cpu/cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology/thread_siblings_list").write_text(siblings)
        for index, values in caches.items():
            place = folder / "cache" / index
            place.mkdir(parents=True)
            for name, text in zip(("level", "type", "size", "shared_cpu_list"), values):
                (place / name).write_text(text + "\n")
    return root


def test_caches_are_a_cores_share(tmp_path: Path) -> None:
    caches = {
        "index0": ("1", "Data", "48K", "0-1"),
        "index1": ("1", "Instruction", "64K", "0-1"),
        "index2": ("2", "Unified", "4096K", "0-7"),  # a cluster of four cores, two threads each
        "index3": ("3", "Unified", "16384K", "0-15"),
    }
    target = host_from(X86, AVX2, _cpus(tmp_path, caches, "0-1"), 8)
    assert (target.l1, target.l2, target.l3) == (48 << 10, 1 << 20, 16 << 20)


@pytest.mark.parametrize(
    ("arch", "more", "vector", "registers"),
    [
        (X86, set(), 32, 16),
        (X86, {"avx512f"}, 64, 32),
        (ARM, {"neon"}, 16, 32),
    ],
)
def test_vector_width_follows_features(arch, more, vector, registers, tmp_path: Path) -> None:
    target = host_from(arch, AVX2 | more, tmp_path, 4)
    assert (target.vector_bytes, target.vector_registers) == (vector, registers)
    assert "sha" not in target.features
    assert target.l1 == 32 << 10  # sysfs tells nothing here


def test_sse_only_and_tile_units(tmp_path: Path) -> None:
    assert host_from(X86, {"sse2", "sse3"}, tmp_path, 1).vector_bytes == 16
    assert host_from(X86, {"amx-bf16", "avx512f"}, tmp_path, 1).matrix_units == ("amx-bf16",)


def test_cgroup_v2_quota_is_the_least_on_the_way_up(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cpu.max").write_text("150000 100000\n")
    (tmp_path / "a/b/cpu.max").write_text("max 100000\n")
    assert cgroup_quota("0::/a/b\n", tmp_path) == 1.5
    assert cgroup_quota("0::/\n", tmp_path) is None


def test_cgroup_v1_quota(tmp_path: Path) -> None:
    group = tmp_path / "cpu,cpuacct/job"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("250000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    membership = "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n"
    assert cgroup_quota(membership, tmp_path) == 2.5
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert cgroup_quota(membership, tmp_path) is None
