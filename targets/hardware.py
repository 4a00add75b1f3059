"""The hardware that planish compiles for: a table of named targets, and this machine."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import llvmlite.binding as llvm

from planish.ir.errors import TargetError
from planish.ir.target import Target
from planish.ir.wording import spell_option
from planish.targets.runtime.cpu_features import required_features

KIB, MIB = 1 << 10, 1 << 20

#: The x86 features that code of ours gains from, as LLVM names them. Everything in a target's
#: `features` may be used by the code generator, so that a CPU without one of them is refused at
#: load: what numeric code never gains from (cx16, sha, shstk …) is left out on purpose.
X86_FEATURES = (
    "sse3",
    "ssse3",
    "sse4.1",
    "sse4.2",
    "popcnt",
    "avx",
    "avx2",
    "bmi",
    "bmi2",
    "f16c",
    "fma",
    "lzcnt",
    "avxvnni",
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx512vbmi",
    "avx512vnni",
    "avx512bf16",
    "avx512fp16",
)

#: Tile units: never used by the code generator on its own, only by an emitter that asks for them.
X86_MATRIX_UNITS = ("amx-bf16", "amx-fp16", "amx-int8")

#: The aarch64 features that code of ours gains from; no SVE, whose width a schedule cannot know.
AARCH64_FEATURES = ("bf16", "dotprod", "fullfp16", "i8mm", "neon")

# The psABI's micro-architecture levels: https://gitlab.com/x86-psABIs/x86-64-ABI
_V2 = ("popcnt", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", *_V2)
_V4 = ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl", *_V3)

_X86 = ("x86_64", "x86_64-linux-gnu")
_ARM = ("aarch64", "aarch64-linux-gnu")


def _target(
    name: str,
    platform_of: tuple[str, str],
    cpu: str,
    features: Iterable[str],
    vectors: tuple[int, int],
    caches: tuple[int, int, int],
    cores: int,
    fma_per_cycle: int,
) -> Target:
    """`vectors` is (bytes, registers); `caches` (L1, L2, L3) in bytes."""
    return Target(
        name, *platform_of, cpu, tuple(sorted(features)), *vectors, *caches, cores, fma_per_cycle
    )


# fmt: off
#: Named targets. Caches and cores are those of a typical machine of the kind (vendors' manuals);
#: they steer tile sizes only: code runs right, if less well, with others. neoverse-v1 is used for
#: its NEON side, under the name of a CPU without SVE, which LLVM would else vectorise for.
TARGETS: tuple[Target, ...] = (
    _target("x86-64-v2", _X86, "x86-64", _V2, (16, 16), (32 * KIB, 256 * KIB, 8 * MIB), 4, 1),
    _target("x86-64-v3", _X86, "x86-64", _V3, (32, 16), (32 * KIB, 512 * KIB, 16 * MIB), 8, 2),
    _target("x86-64-v4", _X86, "x86-64", _V4, (64, 32), (32 * KIB, 1 * MIB, 32 * MIB), 8, 2),
    _target("cortex-a53", _ARM, "cortex-a53", ("neon",), (16, 32),
            (32 * KIB, 128 * KIB, 0), 4, 1),
    _target("cortex-a72", _ARM, "cortex-a72", ("neon",), (16, 32),
            (32 * KIB, 256 * KIB, 0), 4, 1),
    _target("cortex-a76", _ARM, "cortex-a76", ("neon", "fullfp16", "dotprod"), (16, 32),
            (64 * KIB, 512 * KIB, 2 * MIB), 4, 2),
    _target("neoverse-n1", _ARM, "neoverse-n1", ("neon", "fullfp16", "dotprod"), (16, 32),
            (64 * KIB, 1 * MIB, 32 * MIB), 16, 2),
    _target("neoverse-v1", _ARM, "neoverse-n1",
            ("neon", "fullfp16", "dotprod", "bf16", "i8mm"), (16, 32),
            (64 * KIB, 1 * MIB, 32 * MIB), 16, 4),
    _target("apple-m1-linux", _ARM, "apple-m1", ("neon", "fullfp16", "dotprod"), (16, 32),
            (128 * KIB, 3 * MIB, 8 * MIB), 4, 4),
)
# fmt: on


def find_target(name: str) -> Target:
    """The target of that name, or this machine for "host"; TargetError lists the known names."""
    if name == "host":
        return detect_host()
    for target in TARGETS:
        if target.name == name:
            return target
    known = ", ".join(["host", *(target.name for target in TARGETS)])
    raise TargetError(f"unknown target '{name}'; known targets are {known}")


def detect_host() -> Target:
    """This machine: features from the CPU itself, caches from sysfs, cores as this process may use.

    LLVM's name for the CPU is not used: it goes by family numbers and is wrong for many virtual
    machines. TargetError on an architecture other than x86-64 and aarch64.
    """
    machine = platform.machine()
    if machine == "x86_64":
        found = _x86_host_features()
        rate = x86_fma_per_cycle(found, Path("/proc/cpuinfo").read_text())
        return host_from(_X86, found, Path("/sys"), usable_cores(), rate)
    if machine == "aarch64":
        cpuinfo = Path("/proc/cpuinfo").read_text()
        return host_from(_ARM, _aarch64_features(cpuinfo), Path("/sys"), usable_cores())
    raise TargetError(
        f"planish compiles for x86_64 and aarch64, and this machine is {machine}; "
        f"name another machine's target with {spell_option('target')}"
    )


def host_from(
    platform_of: tuple[str, str],
    found: set[str],
    sysfs: Path,
    cores: int,
    fma_per_cycle: int = 2,
) -> Target:
    """The Target of a machine that has the LLVM features `found` and the caches in `sysfs`."""
    arch, triple = platform_of
    if arch == "x86_64":
        cpu, wanted, vector = "x86-64", frozenset(X86_FEATURES), _x86_vector_bytes(found)
        registers = 32 if vector == 64 else 16
    else:
        cpu, wanted, vector, registers = "generic", frozenset(AARCH64_FEATURES), 16, 32
    caches = _cache_sizes(sysfs / "devices/system/cpu")
    return Target(
        "host",
        arch,
        triple,
        cpu,
        tuple(sorted(found.intersection(wanted))),
        vector,
        registers,
        # Where a hypervisor or container hides the caches: the smallest of today's machines.
        l1=caches.get(1, 32 * KIB),
        l2=caches.get(2, 256 * KIB),
        l3=caches.get(3, 0),
        cores=cores,
        matrix_units=tuple(sorted(found.intersection(X86_MATRIX_UNITS))),
        fma_per_cycle=fma_per_cycle,
    )


def _x86_vector_bytes(found: set[str]) -> int:
    if "avx512f" in found:
        return 64
    return 32 if "avx2" in found else 16


def x86_fma_per_cycle(found: set[str], cpuinfo: str) -> int:
    """Widest multiply-adds a cycle: 2, but 1 on Zen 4, whose units of 256 bits take halves."""
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    cpu = {key.strip(): value.strip() for key, value in fields.items()}
    halves = cpu.get("vendor_id") == "AuthenticAMD" and cpu.get("cpu family") == "25"
    return 1 if halves and "avx512f" in found else 2


def _x86_host_features() -> set[str]:
    """By cpuid and xgetbv: what the CPU has and the system has switched on."""
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


def _aarch64_features(cpuinfo: str) -> set[str]:
    """By the flags of /proc/cpuinfo, which LLVM reads too, but with fewer names before LLVM 20."""
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Features":
            flags.update(value.split())
    known = required_features("aarch64", AARCH64_FEATURES)
    return {feature.name for feature in known if feature.cpuinfo in flags}


def cpu_list(text: str) -> set[int]:
    """CPUs of a kernel list such as "0-3,8"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _cache_sizes(cpus: Path) -> dict[int, int]:
    """Bytes of the data caches by level: levels 1 and 2 as one core's share, level 3 as a whole."""
    cpu = min(os.sched_getaffinity(0))
    sizes: dict[int, int] = {}
    threads = cpus / f"cpu{cpu}/topology/thread_siblings_list"
    siblings = len(cpu_list(threads.read_text())) if threads.exists() else 1
    for index in sorted((cpus / f"cpu{cpu}/cache").glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        level = int((index / "level").read_text())
        size = int((index / "size").read_text().strip().removesuffix("K")) * KIB
        if level < 3:
            sharing = len(cpu_list((index / "shared_cpu_list").read_text()))
            size //= max(1, sharing // siblings)
        sizes[level] = size
    return sizes


def usable_cores() -> int:
    """CPUs that this process may use: its affinity, cut by the cgroup's quota (rounded up)."""
    cpus = len(os.sched_getaffinity(0))
    quota = cgroup_quota(Path("/proc/self/cgroup").read_text(), Path("/sys/fs/cgroup"))
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cgroup_quota(membership: str, root: Path) -> float | None:
    """The least CPU quota, in CPUs, of a process's cgroups and those above them; None if unlimited.

    `membership` is the text of /proc/PID/cgroup; `root` the place where cgroups are mounted.
    """
    quotas: list[float] = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, read = root, _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / controllers, _quota_v1
        else:
            continue
        group = base / path.lstrip("/")
        levels = [group, *group.parents]
        found = (read(level) for level in levels if level.is_relative_to(base))
        quotas += [quota for quota in found if quota is not None]
    return min(quotas, default=None)


def _quota_v2(group: Path) -> float | None:
    file = group / "cpu.max"
    if not file.exists():
        return None
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    file = group / "cpu.cfs_quota_us"
    if not file.exists():
        return None
    quota = int(file.read_text())
    return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
